"""A run of the command line on Ray, whose corpus and root lie on Google Cloud Storage and Azure Blob.

Its workers are forks, its gang writes through Ray Train's own use of the store's filesystem, and its
checkpoints lie there. The servers speak the clouds' APIs on loopback.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from support.cloud_server import CloudServer
from support.pipeline_runs import CONFIG, RUN_S, finished

from gmp_atl_dist.corpora.synth import write_synthetic_corpus
from gmp_atl_dist.store.checkpoints import RAY_RUNS
from gmp_atl_dist.store.filesystem import Store

pytest_plugins = ["support.pipeline_runs"]


def server_of(kind: str, request: pytest.FixtureRequest) -> CloudServer:
    return request.getfixturevalue({"gs": "google", "az": "azure"}[kind])


@pytest.mark.parametrize("kind", ["gs", "az"])
def test_ray_train_takes_the_filesystem(kind: str, request: pytest.FixtureRequest) -> None:
    """Its own checks of a gang's storage, in the driver and in another process; no Ray is started."""
    from ray.train.v2._internal.execution.storage import StorageContext

    store = Store.open(server_of(kind, request).new_uri(f"{kind}://"))

    made = StorageContext(
        storage_path=store.absolute(RAY_RUNS),
        experiment_dir_name="name",
        storage_filesystem=store.filesystem,
    )

    assert [e.path for e in store.list()] == [f"{RAY_RUNS}/name/.validate_storage_marker"]
    there = pickle.loads(pickle.dumps(made))
    there._check_validation_file()
    store.delete(RAY_RUNS)
    with pytest.raises(RuntimeError, match="Unable to set up cluster storage"):
        there._check_validation_file()


@pytest.mark.timeout(2400)
@pytest.mark.nightly
@pytest.mark.usefixtures("ray_folder")
@pytest.mark.parametrize("kind", ["gs", "az"])
def test_a_run_on_a_cloud(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    server = server_of(kind, request)
    place, root = server.new_uri(f"{kind}://"), server.new_uri(f"{kind}://")
    corpus = tmp_path / "corpus"
    write_synthetic_corpus(corpus, utterances_per_speaker_and_emotion=1)
    source = Store.open(place)
    for path in (p for p in corpus.rglob("*") if p.is_file()):
        source.put(path.relative_to(corpus).as_posix(), path.read_bytes())
    config = tmp_path / "run.toml"
    config.write_text(CONFIG.replace("CORPUS", place))

    output = finished(
        "run", "--config", str(config), "--root", root, log=tmp_path / "log", limit_s=RUN_S
    )
    verified = finished("verify", "--root", root, log=tmp_path / "verify")

    assert f"report: {root}/runs/" in output
    assert f"artefacts below {root} are intact" in verified
    assert not [e for e in Store.open(root).list() if e.path.startswith("checkpoints/")]
    for token in server.tokens:
        assert token not in output + verified
