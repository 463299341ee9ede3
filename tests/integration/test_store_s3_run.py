from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.pipeline_runs import RUN_S, Reference, finished

from gmp_atl_dist.store.artifact import find_artifact, list_artifacts
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.layout import LAYOUT_PATH

if TYPE_CHECKING:
    from support.s3_server import S3Server

pytest_plugins = ["support.pipeline_runs"]
pytestmark = [pytest.mark.timeout(2400), pytest.mark.nightly]


def test_a_run_on_s3_makes_the_bytes_of_one_on_a_folder(
    reference: Reference, s3_server: S3Server, tmp_path: Path
) -> None:
    root = s3_server.new_uri()
    # One trained stage has its checkpoints there; the two others are put there, and found.
    folder = reference.root.folder
    for path in (folder / LAYOUT_PATH, *reference.root.files("retrain", "finetune")):
        Store.open(root).put(path.relative_to(folder).as_posix(), path.read_bytes())

    output = finished(*reference.command("run", root=root), log=tmp_path / "log", limit_s=RUN_S)
    verified = finished("verify", "--root", root, log=tmp_path / "verify")

    assert f"report: {root}/runs/" in output
    assert f"12 artefacts below {root} are intact" in verified
    store = Store.open(root)
    found = {key.kind: find_artifact(store, key) for key in list_artifacts(store)}
    for kind in ("backbone", "warmup", "extract", "cluster", "label", "evaluate"):
        artifact = found[kind]
        assert artifact is not None
        hashes = {name: receipt.sha256 for name, receipt in artifact.receipts.items()}
        assert hashes == reference.root.hashes(kind), kind
    entries = store.list()
    assert not [entry for entry in entries if entry.path.startswith("checkpoints/")]
    secrets = [os.environ[name] for name in ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID")]
    for secret in secrets:
        assert secret not in output + verified
        assert not [e.path for e in entries if secret.encode() in store.read(e.path)]
