"""Runs whose corpus and root lie on Google Cloud Storage and Azure Blob give the bytes of one on a folder.

The servers speak these clouds' APIs on loopback (``tests/support``). The stages run in this process.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cloud_server import CloudServer
from support.one_process import (
    FOLD,
    Tiny,
    context_of,
    finish,
    ingest,
    no_ray,
    tiny_experiment,
)
from support.plans import plan_of

from gmp_atl_dist import execution
from gmp_atl_dist.cli.main import main
from gmp_atl_dist.config import ExtractConfig, ModelConfig
from gmp_atl_dist.stages.backbone import Backbone
from gmp_atl_dist.stages.base import Context
from gmp_atl_dist.stages.extract import Extract
from gmp_atl_dist.store.artifact import Artifact, find_artifact, list_artifacts
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.training_set import TrainingSet

pytest_plugins = ["support.one_process"]

BYTE_EQUAL = ("backbone", "extract", "cluster", "label")
"""Kinds whose parts have the same bytes in every run on one machine."""


def uploaded(corpus: Path, uri: str) -> str:
    store = Store.open(uri)
    for path in corpus.rglob("*"):
        if path.is_file():
            store.put(path.relative_to(corpus).as_posix(), path.read_bytes())
    return uri


def server_of(kind: str, request: pytest.FixtureRequest) -> CloudServer:
    return request.getfixturevalue({"gs": "google", "az": "azure"}[kind])


def hashes(artifact: Artifact) -> dict[str, str]:
    return {name: receipt.sha256 for name, receipt in artifact.receipts.items()}


def extracted(context: Context, corpus: Artifact, backbone: Artifact) -> Artifact:
    training = TrainingSet(corpus, FOLD.training_speakers())
    stage = Extract(ExtractConfig(layers=(2, 3)), backbone, training, plan_of())
    return finish(stage, context)


@pytest.mark.parametrize("kind", ["gs", "az"])
def test_ingest_and_extract_give_the_same_bytes(
    kind: str, request: pytest.FixtureRequest, tiny: Tiny, tmp_path: Path
) -> None:
    server = server_of(kind, request)
    place = uploaded(tiny.folder, server.new_uri(f"{kind}://"))
    with no_ray():
        there = context_of(server.new_uri(f"{kind}://"), place)
        corpus = ingest(there, part_audio_s=5)
        backbone = finish(Backbone(ModelConfig(source="random:tiny")), there)
        features = extracted(there, corpus, backbone)
        here = extracted(tiny.with_root(tmp_path / "root"), tiny.corpus, tiny.backbone)

    assert hashes(backbone) == hashes(tiny.backbone)
    assert hashes(corpus) == hashes(tiny.corpus)
    assert features.key == here.key
    assert hashes(features) == hashes(here)


def artifacts_of(root: str) -> dict[str, Artifact]:
    store = Store.open(root)
    found = {key.kind: find_artifact(store, key) for key in list_artifacts(store)}
    return {kind: artifact for kind, artifact in found.items() if artifact is not None}


def whole_run(corpus: str, root: str) -> dict[str, Artifact]:
    with no_ray():
        execution.run_pipeline(tiny_experiment(Path("unused"), root), context_of(root, corpus))
    return artifacts_of(root)


@pytest.mark.slow
def test_whole_runs_give_the_same_bytes(
    google: CloudServer, azure: CloudServer, tiny_corpus: Path, tmp_path: Path
) -> None:
    here = whole_run(str(tiny_corpus), (tmp_path / "root").as_uri())
    for kind, server in (("gs", google), ("az", azure)):
        place = uploaded(tiny_corpus, server.new_uri(f"{kind}://"))
        root = server.new_uri(f"{kind}://")

        there = whole_run(place, root)

        assert there.keys() == here.keys()
        for name in BYTE_EQUAL:
            assert hashes(there[name]) == hashes(here[name]), (kind, name)
        assert main(["verify", "--root", root]) == 0
        # Trainings have deleted their checkpoints, also where a listing has several pages.
        assert not [e for e in Store.open(root).list() if e.path.startswith("checkpoints/")]
