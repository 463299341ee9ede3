from __future__ import annotations

from pathlib import Path

import pytest
from support.pipeline_runs import CliRun, Reference, Root, finished, started

pytest_plugins = ["support.pipeline_runs"]
pytestmark = [pytest.mark.timeout(2400), pytest.mark.nightly]

BEFORE_EXTRACT = ("ingest", "backbone", "warmup")


def until_some_are_done(run: CliRun, root: Root) -> None:
    """Two parts have receipts, and many have none."""
    run.until(lambda: len(root.receipts("extract")) >= 2, "two receipts")


def test_a_killed_driver_leaves_nothing_to_do_twice(reference: Reference, tmp_path: Path) -> None:
    root = reference.root.copy_to(tmp_path / "root", *BEFORE_EXTRACT)
    command = reference.command("stage", "extract", "--set=runtime.extract.workers=1", root=root)
    with started(*command, log=tmp_path / "killed") as run:
        until_some_are_done(run, root)
        run.kill_driver()
    assert not root.is_sealed("extract")
    folder = root.artifact("extract")
    done = {p.name.removesuffix(".json") for p in root.receipts("extract")}
    written = {name: (folder / "parts" / name).stat().st_mtime_ns for name in done}
    assert 2 <= len(done) < len(reference.root.receipts("extract"))

    output = finished(*command, log=tmp_path / "finished")

    assert "parts were done before" in output
    # A part of the corpus becomes a part a layer; where one of two has no receipt both are relocated.
    whole = [
        n
        for n in done
        if {n.replace("layer01", "layer02"), n.replace("layer02", "layer01")} <= done
    ]
    assert whole
    for name in whole:
        assert (folder / "parts" / name).stat().st_mtime_ns == written[name], name
    assert root.hashes("extract") == reference.root.hashes("extract")
    assert root.objects("extract") == reference.root.objects("extract")
