"""Datasets of the hub by name, over HTTP against a hub on loopback."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub.errors import HTTPError  # pyright: ignore[reportPrivateImportUsage]
from support.hub_server import Dataset, Hub, running_hub
from support.one_process import context_of, ingest
from support.shards import SAMPLES, SHARDS, parquet_bytes, put_parquet
from support.silent import silent_server

from gmp_atl_dist.config import CorpusConfig
from gmp_atl_dist.corpora.audio_files import AudioBytes
from gmp_atl_dist.corpora.reading import CorpusListing, read_corpus
from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.store import hub as hub_module
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.readers import read_utterances

pytest_plugins = ["support.one_process"]

FIRST, SECOND = "a" * 40, "b" * 40
COLUMNS = {"id": "utt"}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A dataset of two commits; its branch main is the first one."""
    for commit in (FIRST, SECOND):
        (tmp_path / commit).mkdir()
        put_parquet(Store.open(str(tmp_path / commit)))
    commits = {commit: tmp_path / commit for commit in (FIRST, SECOND)}
    datasets = {
        "some/speech": Dataset(commits, {"main": FIRST, "refs/convert/parquet": SECOND}),
        "some/gated": Dataset(commits, {"main": FIRST}, gated=True),
    }
    hub_module._commit_of.cache_clear()
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with running_hub(datasets) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        yield running


def read(store: Store) -> CorpusListing:
    config = CorpusConfig(adapter="huggingface", columns=COLUMNS)
    return read_corpus(config, store, gender_needed=False)


def test_a_dataset_is_read_by_name(hub: Hub) -> None:
    store = Store.open("hf://datasets/some/speech")
    listing = read(store)
    assert {(u.utterance_id, u.speaker, u.emotion) for u in listing.utterances} == {
        (s.id, s.speaker, s.emotion) for s in SAMPLES
    }
    recordings, audio = AudioBytes(store), {s.id: s.audio for s in SAMPLES}
    for u in listing.utterances:
        assert recordings.read(u.path) == audio[u.utterance_id]


def test_the_commit_at_the_start_is_read_to_the_end(hub: Hub) -> None:
    store = Store.open("hf://datasets/some/speech@main/data")
    assert store.uri == f"hf://datasets/some/speech@{FIRST}/data"
    hub.datasets["some/speech"].revisions["main"] = SECOND
    asked = len(hub.requests)
    # What a worker gets is the commit, and it asks the hub for none.
    assert Store.open(store.uri).uri == store.uri
    assert len(hub.requests) == asked
    assert [e.path for e in store.list()] == [
        f"train-{i:05d}-of-00003.parquet" for i in range(len(SHARDS))
    ]


def test_the_converted_branch_has_a_short_name(hub: Hub) -> None:
    for revision in ("~parquet", "refs/convert/parquet"):
        store = Store.open(f"hf://datasets/some/speech@{revision}")
        assert store.uri == f"hf://datasets/some/speech@{SECOND}"


def test_another_commit_is_another_corpus(hub: Hub) -> None:
    one, two = (
        read(Store.open(f"hf://datasets/some/speech@{commit}")).stamp for commit in (FIRST, SECOND)
    )
    assert one != two
    assert read(Store.open(f"hf://datasets/some/speech@{FIRST}")).stamp == one


@pytest.mark.usefixtures("in_process")
def test_ingest_stores_the_samples_of_a_folder(hub: Hub, tmp_path: Path) -> None:
    stored: list[dict[str, str]] = []
    for number, corpus in enumerate(("hf://datasets/some/speech", tmp_path / FIRST)):
        context = context_of(tmp_path / f"root{number}", corpus)
        artifact = ingest(context, adapter="huggingface", columns=COLUMNS, part_audio_s=0.7)
        stored.append({u.utterance_id: u.audio_sha256 for u in read_utterances(artifact)})
    assert len(stored[0]) == len(SAMPLES)
    assert stored[0] == stored[1]


def test_a_shard_is_read_in_ranges(hub: Hub, tmp_path: Path) -> None:
    big = tmp_path / FIRST / "data" / "train-00003-of-00004.parquet"
    for old in big.parent.iterdir():
        old.unlink()
    big.write_bytes(parquet_bytes(SAMPLES, rows=1))
    store = Store.open("hf://datasets/some/speech")
    with store.open_input("data/train-00003-of-00004.parquet") as file:
        file.seek(10)
        assert file.read(20) == big.read_bytes()[10:30]
    assert store.read("data/train-00003-of-00004.parquet") == big.read_bytes()


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("hf://datasets/some/other", r"shows no dataset some/other; .*HF_TOKEN"),
        ("hf://datasets/some/speech@v9", r"some/speech has no revision 'v9'; name a branch"),
        ("hf://some/speech", r"no dataset of the hub; write hf://datasets/OWNER/NAME"),
        ("hf:/datasets/some/speech", r"write hf://datasets/some/speech"),
    ],
)
def test_what_the_hub_does_not_have_is_named(hub: Hub, uri: str, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        Store.open(uri)


def test_a_gated_dataset_says_what_to_do(hub: Hub) -> None:
    store = Store.open("hf://datasets/some/gated")
    with pytest.raises(ArtifactError, match="accept its terms on the hub and set HF_TOKEN"):
        store.read("data/train-00000-of-00003.parquet")


def test_a_hub_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    hub_module._commit_of.cache_clear()
    # Nobody listens there.
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ArtifactError, match=r"does not answer for dataset some/speech at 'main'"):
        Store.open("hf://datasets/some/speech", timeout_s=2)


@pytest.mark.timeout(60)
def test_a_silent_hub_is_waited_for_as_long_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    hub_module._commit_of.cache_clear()
    with silent_server() as (host, port):
        monkeypatch.setenv("HF_ENDPOINT", f"http://{host}:{port}")
        began_s = time.monotonic()
        with pytest.raises(ArtifactError, match="does not answer for dataset some/speech"):
            Store.open("hf://datasets/some/speech", timeout_s=0.5)
    assert time.monotonic() - began_s < 8, "its library waits without an end unless told"


@pytest.mark.timeout(60)
def test_a_hub_that_falls_silent_is_named(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(f"hf://datasets/some/speech@{FIRST}")
    monkeypatch.setattr(hub_module, "_SILENT_S", 0.2)
    monkeypatch.setattr(time, "sleep", lambda _: None)  # between the tries of its library
    hub.silent = "/tree/"
    with pytest.raises(ArtifactError, match=r"Timeout|timed out"):
        store.list("data")


def test_nothing_is_written_to_the_hub(hub: Hub) -> None:
    store = Store.open("hf://datasets/some/speech")
    with pytest.raises(ArtifactError, match="read only here; give a folder, s3://"):
        store.put("x", b"x")
    with pytest.raises(ArtifactError, match="read only here"):
        store.check_writable()
    with pytest.raises(ArtifactError, match="read only here"):
        store.delete("data")
    assert all(request.startswith(("GET", "HEAD", "POST /api")) for request in hub.requests)


def test_a_hub_that_is_gone_while_reading_is_named(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open("hf://datasets/some/speech")
    listing = read(store)

    def lost(*_: object, **__: object) -> None:
        raise HTTPError("the network is gone")

    monkeypatch.setattr("huggingface_hub.hf_file_system.http_backoff", lost)
    with pytest.raises(ArtifactError, match="the network is gone"):
        AudioBytes(store).read(listing.utterances[0].path)
