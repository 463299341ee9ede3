"""The layout version of a root: what is accepted, what is refused, and by which commands."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gmp_atl_dist.cli.main import main
from gmp_atl_dist.config import CorpusConfig, RunConfig, RuntimeConfig
from gmp_atl_dist.console import Reporter
from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.execution import run_pipeline, run_stage
from gmp_atl_dist.runtime import RayConnection
from gmp_atl_dist.stage_survey import find_fold, survey
from gmp_atl_dist.stages.base import Context
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.layout import (
    LAYOUT_PATH,
    LAYOUT_VERSION,
    check_layout,
    claim_layout,
    open_root,
    read_layout,
)
from gmp_atl_dist.store.manifest import ArtifactKey

OLD = r"has layout 0, written by release 0\.1 of gmp_atl_dist; .* use a new root, or the release"
NEWER = r"has layout 99, written by another release of gmp_atl_dist; .* upgrade gmp_atl_dist"
DAMAGED = rf'{LAYOUT_PATH} is damaged; expected {{"layout": {LAYOUT_VERSION}}}: restore it'


def of_layout_0(store: Store) -> None:
    """As release 0.1 left it: artefacts, and no layout file."""
    store.put(ArtifactKey("ingest", "0" * 64).manifest_path, b"{}")


def of_a_newer_layout(store: Store) -> None:
    store.put(LAYOUT_PATH, b'{"layout": 99}')


def damaged(store: Store) -> None:
    store.put(LAYOUT_PATH, b'{"layout": ')


REFUSED = pytest.mark.parametrize(
    ("fill", "message"), [(of_layout_0, OLD), (of_a_newer_layout, NEWER), (damaged, DAMAGED)]
)


def test_an_empty_root_is_claimed(store_uri: str) -> None:
    store = Store.open(store_uri)
    assert read_layout(store) is None
    check_layout(store)
    assert not store.exists(LAYOUT_PATH)
    claim_layout(store)
    assert read_layout(store) == LAYOUT_VERSION
    assert json.loads(store.read(LAYOUT_PATH)) == {"layout": LAYOUT_VERSION}


def test_a_claimed_root_is_accepted_again(store_uri: str) -> None:
    store = open_root(store_uri, to_write=True)
    # From now on there are artefacts beside the layout file.
    of_layout_0(store)
    (before,) = [e for e in store.list() if e.path == LAYOUT_PATH]
    claim_layout(store)
    check_layout(open_root(store_uri))
    assert [e for e in store.list() if e.path == LAYOUT_PATH] == [before]


def test_other_objects_do_not_make_a_root_old(store_uri: str) -> None:
    store = Store.open(store_uri)
    store.put("checkpoints/x/1-a/_record.json", b"{}")
    assert read_layout(store) is None


@REFUSED
def test_another_layout_is_refused(
    store_uri: str, fill: Callable[[Store], None], message: str
) -> None:
    store = Store.open(store_uri)
    fill(store)
    listed = store.list()
    for refuse in (
        lambda: check_layout(store),
        lambda: claim_layout(store),
        lambda: open_root(store_uri),
        lambda: open_root(store_uri, to_write=True),
    ):
        with pytest.raises(ArtifactError, match=message):
            refuse()
    assert store.list() == listed


@pytest.mark.parametrize("text", [b"", b"[]", b'{"layout": "1"}', b'{"version": 1}', b"\xff\xfe"])
def test_a_damaged_layout_file_is_named(store_uri: str, text: bytes) -> None:
    store = Store.open(store_uri)
    store.put(LAYOUT_PATH, text)
    with pytest.raises(ArtifactError, match=DAMAGED):
        check_layout(store)


@REFUSED
def test_walks_over_the_method_refuse_it(
    tmp_path: Path, fill: Callable[[Store], None], message: str
) -> None:
    """Before anything of the corpus is read: there is none."""
    root = tmp_path / "root"
    store, source = Store.open(str(root)), Store.open(str(tmp_path / "no-corpus"))
    fill(store)
    settings = RuntimeConfig(root=str(root), corpus=str(tmp_path / "no-corpus"))
    config = RunConfig(corpus=CorpusConfig(adapter="table"), runtime=settings)
    context = Context(store, source, settings, Reporter(terminal=False), RayConnection(settings))
    for walk in (
        lambda: run_pipeline(config, context),
        lambda: run_stage(config, context, "ingest"),
        lambda: survey(config, context),
        lambda: find_fold(config, store, source, 1),
    ):
        with pytest.raises(ArtifactError, match=message):
            walk()


@REFUSED
@pytest.mark.parametrize(
    "command",
    [
        ("verify",),
        ("codebook", "show"),
        ("codebook", "export", "abc", "--out", "out.npy"),
        ("codebook", "import", "centroids.npy", "--layer", "2"),
        ("features", "export", "abc", "--layer", "2", "--out", "out"),
        ("features", "import", "features.npy", "--layer", "2"),
    ],
    ids=" ".join,
)
def test_commands_refuse_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: tuple[str, ...],
    fill: Callable[[Store], None],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("centroids.npy", np.eye(3, dtype=np.float32))
    np.save("features.npy", np.eye(3, dtype=np.float32))
    Path("features.len").write_text("3\n")
    store = Store.open("root")
    fill(store)
    listed = store.list()
    assert main([*command, "--root", "root"]) == ArtifactError.exit_code
    assert re.search(message, capsys.readouterr().err)
    assert store.list() == listed


def test_an_import_claims_an_empty_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("centroids.npy", np.eye(3, dtype=np.float32))
    assert main(["codebook", "import", "centroids.npy", "--layer", "2", "--root", "root"]) == 0
    assert read_layout(Store.open("root")) == LAYOUT_VERSION
    assert main(["verify", "--root", "root"]) == 0
