"""Records of runs: what is written is read, and a damaged or foreign one is named."""

import json
from pathlib import Path

import pytest

from gmp_atl_dist.errors import ArtifactError, ConfigError
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.runs import (
    Attempt,
    RunRecord,
    StageRun,
    check_run_name,
    read_run,
    run_names,
    write_run,
)


def record(name: str = "demo-12ab34cd") -> RunRecord:
    stage = StageRun(
        label="warmup fold1",
        name="warmup",
        fold="fold1",
        kind="warmup",
        fingerprint="ab" * 32,
        state="running",
        attempt=0,
        started_s=10.0,
    )
    return RunRecord(
        name=name,
        config_name="demo",
        fingerprint="cd" * 32,
        corpus_name="Demo",
        configuration={"corpus": {"adapter": "synthetic"}},
        attempts=(Attempt(started_s=9.0, seen_s=12.0),),
        stages=(stage,),
    )


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    write_run(store, record())
    write_run(store, record("a"))
    assert read_run(store, "demo-12ab34cd") == record()
    store.put("runs/a/report.html", b"a page beside a record")
    store.put("runs/begun/log.txt", b"no record yet")
    assert run_names(store) == ("a", "demo-12ab34cd")
    found = record().stage("warmup fold1")
    assert found is not None
    assert found.kind == "warmup"
    assert record().stage("warmup fold2") is None


def test_no_record_is_none_and_an_empty_root_has_no_runs(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    assert read_run(store, "demo") is None
    assert run_names(store) == ()


def test_fields_of_a_later_release_are_ignored(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    values = record().model_dump(mode="json") | {"added_later": 1}
    store.put("runs/demo-12ab34cd/run.json", json.dumps(values).encode())
    assert read_run(store, "demo-12ab34cd") == record()


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    store.put("runs/demo/run.json", b'{"name": "demo"')
    with pytest.raises(ArtifactError, match=r"runs/demo/run\.json is damaged"):
        read_run(store, "demo")


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 101, "größe"])
def test_a_name_that_could_leave_its_folder_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="run name"):
        check_run_name(name)
