"""Ingest from shards on a real S3 server by workers of a real Ray."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.local_ray import local_ray
from support.one_process import context_of, finish, ingest, no_ray
from support.s3_server import S3Server
from support.shards import LAYOUTS

from gmp_atl_dist.config import CorpusConfig
from gmp_atl_dist.stages.ingest import Ingest
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.readers import read_utterances

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]


@pytest.fixture(scope="module")
def ray(s3_server: S3Server) -> Iterator[None]:
    """After the server, whose address and keys its processes inherit."""
    with local_ray(num_cpus=2):
        yield


@pytest.mark.usefixtures("ray")
@pytest.mark.parametrize("layout", ["webdataset", "huggingface"])
def test_workers_read_shards_from_s3(tmp_path: Path, s3_server: S3Server, layout: str) -> None:
    loose = tmp_path / "loose"
    loose.mkdir()
    LAYOUTS["table"][0](Store.open(str(loose)))
    with no_ray():
        expected = ingest(context_of(tmp_path / "here", loose), adapter="table", max_bad_fraction=0)
    source = Store.open(s3_server.new_uri())
    put, keys = LAYOUTS[layout]
    put(source)
    config = {"adapter": layout, "part_audio_s": 0.1, "max_bad_fraction": 0, **keys}
    context = context_of(s3_server.new_uri(), loose)
    stage = Ingest(CorpusConfig.model_validate(config), source)
    found = {u.utterance_id: u.audio_sha256 for u in read_utterances(finish(stage, context))}
    assert found == {u.utterance_id: u.audio_sha256 for u in read_utterances(expected)}
