"""Commands that only look, on a configuration of several corpora."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.mixed import NAMES, mixed_config, write_corpora

from gmp_atl_dist.cli import predict_ray
from gmp_atl_dist.cli.main import main
from gmp_atl_dist.config.file import load_config
from gmp_atl_dist.corpora.names import corpus_name
from gmp_atl_dist.doctor.corpus import check_corpus
from gmp_atl_dist.errors import ConfigError
from gmp_atl_dist.runs.names import corpus_place, named
from gmp_atl_dist.submit import name_of


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpora")
    write_corpora(folder)
    return folder


def options(corpora: Path, **places: Path) -> list[str]:
    where = {name: corpora / name for name in NAMES} | places
    sets = [f"--set=runtime.corpora.{name}={place}" for name, place in where.items()]
    return ["--config", "mixed", *sets]


def test_corpora_check_shows_each_source_and_the_folds(
    corpora: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["corpora", "check", *options(corpora)]) == 0
    out = capsys.readouterr().out
    for words in ("acted", "angry 10, happy 10, neutral 10, sad 10", "unlabelled", "acted/Ses01F"):
        assert words in out
    assert "40 utterances, 10 speakers" in out


def test_a_source_that_is_not_there_is_named(
    corpora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["corpora", "check", *options(corpora, talks=tmp_path / "absent")]) == 3
    assert "source talks (its keys stand in [[corpora]]" in capsys.readouterr().err


def test_doctor_lists_every_source(corpora: Path, tmp_path: Path) -> None:
    config = mixed_config(corpora, tmp_path / "root")
    found = list(check_corpus(config, 3.0, 20.0))
    assert [f.severity for f in found] == ["ok"] * 4
    assert "2 can be planned over 2 corpora" in found[-1].value
    broken = mixed_config(corpora, tmp_path / "root", folds={"held_out": [["talks"]]})
    last = list(check_corpus(broken, 3.0, 20.0))[-1]
    assert last.severity == "fatal"
    assert "there is no corpus 'talks'" in last.value + last.remedy


def test_a_run_is_told_from_one_with_the_same_science_and_other_places(
    corpora: Path, tmp_path: Path
) -> None:
    here = mixed_config(corpora, tmp_path / "root")
    there = mixed_config(tmp_path, tmp_path / "root")
    assert corpus_place(here.runtime) != corpus_place(there.runtime)
    assert name_of(here) != name_of(there)
    assert corpus_name(here) == "acted + read"
    assert named(here, "mixed.toml").runtime.run_name.startswith("mixed-")


def test_predict_on_ray_takes_several_corpora_or_one_folder() -> None:
    read = predict_ray._experiment  # pyright: ignore[reportPrivateUsage]

    assert [source.name for source in read((), None, Path("mixed"), None).corpora] == list(NAMES)
    with pytest.raises(ConfigError, match="takes one corpus"):
        read((), None, None, None)


def test_the_shipped_file_is_printed_with_its_sources(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", "--config", "mixed"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [source["name"] for source in shown["corpora"]] == list(NAMES)
    assert load_config("mixed").retrain.unlabelled_share == 0.5
