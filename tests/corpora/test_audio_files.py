"""Audio inside shards: what is listed, what is read, in which order, and what is refused."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.one_process import context_of, ingest
from support.s3_server import S3Server
from support.shards import (
    AUDIO_TYPE,
    LAYOUTS,
    SAMPLES,
    SHARDS,
    cut_of,
    jsonl_gz,
    parquet_bytes,
    put_cuts,
    put_tars,
    tar_bytes,
)
from support.trees import recording

from gmp_atl_dist.audio import decode_pcm16
from gmp_atl_dist.config import CorpusConfig
from gmp_atl_dist.corpora.addresses import Address, file_of, find_address
from gmp_atl_dist.corpora.audio_files import AudioBytes, read_audio_bytes
from gmp_atl_dist.corpora.reading import CorpusListing, read_corpus
from gmp_atl_dist.errors import ConfigError, CorpusError
from gmp_atl_dist.stages.ingest import plan_parts
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.readers import read_utterances

pytest_plugins = ["support.one_process"]


def read(store: Store, layout: str, **config: object) -> CorpusListing:
    adapter, keys = layout.partition(" ")[0], LAYOUTS.get(layout, (None, {}))[1]
    corpus = {"adapter": adapter, "max_bad_fraction": 1.0} | keys | config
    return read_corpus(CorpusConfig.model_validate(corpus), store, gender_needed=False)


def problems_of(listing: CorpusListing) -> dict[str, str]:
    return {p.item: p.reason for p in listing.problems}


ON_S3 = ("webdataset", "huggingface", "lhotse")
"""Of the layouts; the others differ from one of them in text alone."""


@pytest.mark.parametrize(
    ("layout", "where"),
    [*((layout, "file") for layout in LAYOUTS), *((layout, "s3") for layout in ON_S3)],
)
def test_each_layout_gives_the_same_utterances(
    tmp_path: Path, request: pytest.FixtureRequest, layout: str, where: str
) -> None:
    uri = request.getfixturevalue("s3_server").new_uri() if where == "s3" else str(tmp_path)
    store = Store.open(uri)
    LAYOUTS[layout][0](store)
    listing = read(store, layout, max_bad_fraction=0.0)
    assert {(u.utterance_id, u.speaker, u.gender, u.emotion) for u in listing.utterances} == {
        (s.id, s.speaker, s.gender, s.emotion) for s in SAMPLES
    }
    assert all((u.start_s, u.end_s) == (None, None) for u in listing.utterances)
    audio = {s.id: s.audio for s in SAMPLES}
    recordings = AudioBytes(store)
    # In the order of ids, which jumps between shards and back.
    for u in listing.utterances:
        assert recordings.read(u.path) == audio[u.utterance_id]
        assert read_audio_bytes(store, u.path) == audio[u.utterance_id]


@pytest.mark.usefixtures("in_process")
def test_ingest_stores_the_same_samples_from_each_layout(tmp_path: Path) -> None:
    stored: dict[str, dict[str, str]] = {}
    for layout, (put, keys) in LAYOUTS.items():
        corpus = tmp_path / layout / "corpus"
        corpus.mkdir(parents=True)
        put(Store.open(str(corpus)))
        context = context_of(tmp_path / layout / "root", corpus)
        adapter = layout.partition(" ")[0]
        artifact = ingest(context, adapter=adapter, part_audio_s=0.7, max_bad_fraction=0.0, **keys)
        stored[layout] = {u.utterance_id: u.audio_sha256 for u in read_utterances(artifact)}
    assert len(stored["table"]) == len(SAMPLES)
    assert all(digests == stored["table"] for digests in stored.values())


@pytest.mark.parametrize("layout", ["webdataset", "huggingface"])
def test_parts_hold_neighbours_of_a_shard(tmp_path: Path, layout: str) -> None:
    store = Store.open(str(tmp_path))
    LAYOUTS[layout][0](store)
    tasks = plan_parts(read(store, layout), part_audio_s=0.1)
    addresses = [find_address(row["path"]) for task in tasks for row in json.loads(task.payload)]
    places = [(a.shard, a.start) for a in addresses if a is not None]
    assert len(tasks) > 3
    assert places == sorted(places)
    assert len(places) == len(SAMPLES)


def test_a_shard_that_is_written_again_changes_the_stamp(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    put_tars(store)
    before = read(store, "webdataset")
    assert read(store, "webdataset").stamp == before.stamp
    os.utime(tmp_path / "train-000001.tar", (1, 1))
    assert read(store, "webdataset").stamp != before.stamp


def test_neighbours_in_a_tar_shard_on_s3_need_one_request(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(s3_server.new_uri())
    put_tars(store)
    paths = sorted((u.path for u in read(store, "webdataset").utterances), key=place)
    recordings = AudioBytes(store)
    reads: list[int] = []
    plain = Store.open_input

    class Counted:
        def __init__(self, file: pa.NativeFile) -> None:
            self._file = file

        def seek(self, position: int) -> None:
            self._file.seek(position)

        def read(self, size: int) -> bytes:
            reads.append(size)
            return self._file.read(size)

    monkeypatch.setattr(Store, "open_input", lambda self, path: Counted(plain(self, path)))
    assert [recordings.read(path) for path in paths] == [s.audio for s in SAMPLES]
    assert len(reads) == len(SHARDS)


def counted_listing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> tuple[CorpusListing, list[int]]:
    """A listing of tar shards, and the bytes of each request for a part of a shard."""
    reads: list[int] = []
    plain = Store.open_input

    class Counted:
        def __init__(self, file: pa.NativeFile) -> None:
            self._file = file
            self.size, self.seek = file.size, file.seek

        def read(self, size: int) -> bytes:
            data = self._file.read(size)
            reads.append(len(data))
            return data

    with monkeypatch.context() as patch:
        patch.setattr(Store, "open_input", lambda self, path: Counted(plain(self, path)))
        listing = read(store, "webdataset", max_bad_fraction=0.0)
    return listing, reads


def test_listing_of_shards_on_s3_leaves_out_long_recordings(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(s3_server.new_uri())
    audio = {f"talk{i}": bytes([i + 1]) * (3 << 20) for i in range(4)}
    members = [(f"{name}.flac", data) for name, data in audio.items()]
    both = [
        (m, (f"{m[0][:5]}.json", labels(("sad", "happy")[i % 2]))) for i, m in enumerate(members)
    ]
    store.put("train-0.tar", tar_bytes(member for pair in both for member in pair))
    listing, reads = counted_listing(store, monkeypatch)
    assert {u.utterance_id for u in listing.utterances} == set(audio)
    # The first header, and what follows each recording.
    assert len(reads) == 1 + len(audio)
    assert sum(reads) <= len(reads) << 16
    paths = {u.utterance_id: u.path for u in listing.utterances}
    assert {name: read_audio_bytes(store, path) for name, path in paths.items()} == audio


def test_listing_of_shards_on_s3_reads_short_clips_together(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(s3_server.new_uri())
    members = [
        member
        for i in range(40)
        for member in (
            (f"c{i:02d}.flac", bytes(100_000)),
            (f"c{i:02d}.json", labels(("sad", "happy")[i % 2])),
        )
    ]
    shard = tar_bytes(members)
    store.put("train-0.tar", shard)
    listing, reads = counted_listing(store, monkeypatch)
    assert len(listing.utterances) == 40
    # 64 KiB, 128 KiB, ... 4 MiB hold the 4 MB of this shard.
    assert len(reads) <= 7
    assert sum(reads) <= len(shard)


def place(path: str) -> tuple[str, int]:
    address = find_address(path)
    assert address is not None
    return address.shard, address.start


def test_an_address_says_where_audio_is() -> None:
    address = Address("a/b-0.tar", "x#y@1+2.wav", 512, 64)
    assert find_address(str(address)) == address
    assert file_of(str(address)) == "a/b-0.tar"
    for path in ("a.wav", "a#b.wav", "a.tar", "a.wav#x@1+2", "a.tar#x@-1+2", "a.tar#x@1"):
        assert find_address(path) is None
        assert file_of(path) == path


def test_a_file_whose_name_looks_like_an_address_is_a_file(tmp_path: Path) -> None:
    name = "a#b.wav"
    (tmp_path / name).write_bytes(recording())
    (tmp_path / "manifest.csv").write_text(f"id,path,speaker,emotion\nu,{name},s,sad\n")
    listing = read(Store.open(str(tmp_path)), "table")
    assert read_audio_bytes(Store.open(str(tmp_path)), listing.utterances[0].path) == recording()


@pytest.mark.parametrize(
    ("path", "reason"),
    {
        "../secret.tar#x.flac@512+10": "leaves the corpus",
        "/etc/secret.tar#x.flac@512+10": "leaves the corpus",
        "none.tar#x.flac@512+10": "is missing",
        "train-000000.tar#x.flac@512+99999999": "is missing",
    }.items(),
)
def test_an_address_of_a_table_never_leaves_the_corpus(
    tmp_path: Path, path: str, reason: str
) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (tmp_path / "secret.tar").write_bytes(bytes(2048))
    put_tars(Store.open(str(corpus)))
    first = read(Store.open(str(corpus)), "webdataset").utterances[0]
    rows = f"id,path,speaker,emotion\ngood,{first.path},s,sad\nbad,{path},s,sad\n"
    (corpus / "manifest.csv").write_text(rows)
    listing = read(Store.open(str(corpus)), "table")
    assert [u.utterance_id for u in listing.utterances] == ["good"]
    assert reason in problems_of(listing)["utterance 'bad'"]


# WebDataset


def labels(emotion: str = "sad") -> bytes:
    return json.dumps({"speaker": "s", "emotion": emotion, "split": "dev"}).encode()


def test_samples_that_are_not_whole_are_named(tmp_path: Path) -> None:
    link = tarfile.TarInfo("link.flac")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    buffer = io.BytesIO(
        tar_bytes(
            [
                ("./a/good.flac", recording(suffix="flac")),
                ("./a/good.json", labels()),
                ("a/good.txt", b"text"),
                ("mute.json", labels()),
                ("bare.flac", b"x"),
                ("twice.flac", b"x"),
                ("twice.wav", b"x"),
                ("twice.json", labels()),
                ("torn.flac", b"x"),
                ("torn.json", b"{"),
                ("calm.flac", b"x"),
                ("calm.json", b'{"speaker": "s"}'),
                ("._calm.flac", b"x"),
            ]
        )
    )
    with tarfile.open(fileobj=buffer, mode="a") as tar:
        tar.addfile(link)
    (tmp_path / "train-0.tar").write_bytes(buffer.getvalue())
    (tmp_path / "train-1.tar.gz").write_bytes(b"x")
    listing = read(Store.open(str(tmp_path)), "webdataset")
    assert [(u.utterance_id, u.split) for u in listing.utterances] == [("a/good", "valid")]
    assert {item: reason.partition(";")[0] for item, reason in problems_of(listing).items()} == {
        "train-1.tar.gz": "is neither a recording nor a text",
        "train-0.tar: 'link.flac'": "is no plain file",
        "train-0.tar: sample 'mute'": "must have one recording, and has none",
        "train-0.tar: sample 'bare'": "has no .json with its labels",
        "train-0.tar: sample 'twice'": "must have one recording, and has twice.flac, twice.wav",
        "train-0.tar: sample 'torn'": problems_of(listing)["train-0.tar: sample 'torn'"].partition(
            ";"
        )[0],
        "train-0.tar: sample 'calm'": "has no emotion",
    }
    assert "cannot be read" in problems_of(listing)["train-0.tar: sample 'torn'"]


@pytest.mark.parametrize("how", ["in a header", "in a member", "without its end", "no tar"])
def test_a_damaged_shard_is_an_error_and_not_a_smaller_corpus(tmp_path: Path, how: str) -> None:
    put_tars(Store.open(str(tmp_path)))
    shard = tmp_path / "train-000001.tar"
    whole = shard.read_bytes()
    with tarfile.open(shard) as tar:
        member = tar.getmembers()[2]
    cut = {
        "in a header": whole[: member.offset + 100],
        "in a member": whole[: member.offset_data + 100],
        "without its end": whole[: member.offset],
        "no tar": b"x" * 2048,
    }[how]
    shard.write_bytes(cut)
    with pytest.raises(CorpusError, match=r"train-000001\.tar: is "):
        read(Store.open(str(tmp_path)), "webdataset")
    if how == "in a header":
        shard.write_bytes(whole[: member.offset] + b"\xff" * 512 + whole[member.offset + 512 :])
        with pytest.raises(CorpusError, match=r"is damaged or cut short after 1 samples, at byte"):
            read(Store.open(str(tmp_path)), "webdataset")


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (("train-00000-of-00003", "train-00002-of-00003"), "data/train-00001-of-00003"),
        (("a-00001-of-00002-0f3b", "b-00000-of-00001"), "data/a-00000-of-00002"),
        (("a-00001-of-00002-0f3b", "a-00000-of-00002-77ac"), ""),
        (("a-1-of-2", "a-2-of-2"), ""),
        (("train-0", "train-2"), ""),
        (("2019", "2021"), ""),
        (("train-000000", "train-000002"), "data/train-000001.tar"),
        (("train-000007", "train-000008", "test-000000"), ""),
        (("00000", "00002"), "data/00001.tar"),
    ],
)
def test_a_shard_that_is_missing_by_the_names_of_others_is_named(
    tmp_path: Path, names: tuple[str, ...], missing: str
) -> None:
    store = Store.open(str(tmp_path))
    for name in names:
        store.put(f"data/{name}.tar", tar_bytes([]))
    if missing:
        with pytest.raises(CorpusError, match="1 more belong to them") as e:
            read(store, "webdataset")
        assert str(e.value).endswith(f"\n  - {missing}")
    with pytest.raises(CorpusError, match="listed 0 utterances"):
        read(store, "webdataset", allow_incomplete=True)


def test_a_missing_parquet_shard_is_refused(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    store.put("train-00000-of-00002.parquet", parquet_bytes(SAMPLES))
    with pytest.raises(CorpusError, match=r"train-00001-of-00002$"):
        read(store, "huggingface")
    assert len(read(store, "huggingface", allow_incomplete=True).utterances) == len(SAMPLES)


def test_a_shard_that_shrinks_after_listing_is_told(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    put_tars(store)
    last = max(read(store, "webdataset").utterances, key=lambda u: place(u.path))
    address = find_address(last.path)
    assert address is not None
    shard = tmp_path / address.shard
    shard.write_bytes(shard.read_bytes()[: address.start + 10])
    with pytest.raises(CorpusError, match="before the end of the recording"):
        read_audio_bytes(store, last.path)


# Hugging Face


def test_class_labels_splits_and_ids_without_a_column(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    store.put("default/validation/0000.parquet", parquet_bytes(SHARDS[0]))
    store.put("default/test/0000.parquet", parquet_bytes(SHARDS[1]))
    listing = read_corpus(CorpusConfig(adapter="huggingface"), store, gender_needed=False)
    assert {u.emotion for u in listing.utterances} == {"happy", "sad"}
    assert {(u.utterance_id.rpartition("/")[0], u.split) for u in listing.utterances} == {
        ("default/validation", "valid"),
        ("default/test", "test"),
    }
    assert listing.utterances[-1].utterance_id == "default/validation/0000-000004"


def test_a_snapshot_of_links_is_read_as_the_hub_caches_it(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc" / "data"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    (blobs / "123").write_bytes(parquet_bytes(SAMPLES))
    (snapshot / "train-00000-of-00001.parquet").symlink_to("../../../blobs/123")
    store = Store.open(str(snapshot.parent))
    listing = read(store, "huggingface")
    assert len(listing.utterances) == len(SAMPLES)
    assert read_audio_bytes(store, listing.utterances[0].path) == SAMPLES[0].audio


def test_rows_that_refer_to_files_are_read_from_the_files(tmp_path: Path) -> None:
    rows = {
        "audio": pa.array([{"bytes": None, "path": p} for p in ("a.wav", "../b.wav")], AUDIO_TYPE),
        "speaker": ["s1", "s2"],
        "label": ["sad", "happy"],
    }
    pq.write_table(pa.table(rows), tmp_path / "train.parquet")
    (tmp_path / "a.wav").write_bytes(recording())
    (tmp_path / "stray.wav").write_bytes(recording())
    columns = {"emotion": "label"}
    listing = read(Store.open(str(tmp_path)), "huggingface", columns=columns)
    assert [u.path for u in listing.utterances] == ["a.wav"]
    assert "leaves the corpus" in problems_of(listing)["utterance 'train-000001'"]
    assert problems_of(listing)["stray.wav"] == "is in no row; move it away"


def test_a_row_without_audio_is_told_when_it_is_read(tmp_path: Path) -> None:
    rows = {
        "audio": pa.array([recording(), None], pa.binary()),
        "speaker": ["s1", "s2"],
        "emotion": ["sad", "happy"],
    }
    pq.write_table(pa.table(rows), tmp_path / "x.parquet")
    store = Store.open(str(tmp_path))
    first, second = read(store, "huggingface").utterances
    assert read_audio_bytes(store, first.path) == recording()
    with pytest.raises(CorpusError, match="the row has no audio"):
        read_audio_bytes(store, second.path)


def test_rows_of_a_large_row_group_are_read_in_any_order(tmp_path: Path) -> None:
    audio = [f"audio {i}".encode() for i in range(100)]
    rows = {"audio": audio, "speaker": ["s"] * 100, "emotion": ["sad"] * 100}
    pq.write_table(pa.table(rows), tmp_path / "x.parquet", row_group_size=60)
    store = Store.open(str(tmp_path))
    paths = [u.path for u in read(store, "huggingface").utterances]
    recordings = AudioBytes(store)
    for row in (59, 0, 31, 17, 16, 60, 99, 3, 75, 74):
        assert recordings.read(paths[row]) == audio[row]


def test_columns_that_are_missing_are_named_with_those_that_are_there(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    pq.write_table(pa.table({"audio": [b"x"], "who": ["s"]}), tmp_path / "x.parquet")
    with pytest.raises(ConfigError, match=r"lacks the columns speaker, emotion; it has audio, who"):
        read(store, "huggingface", columns={})
    with pytest.raises(ConfigError, match=r"the column 'who' has type string; name the column"):
        read(store, "huggingface", columns={"audio": "who"})
    with pytest.raises(ConfigError, match=r"corpus\.columns\.sound: is not a known column"):
        read(store, "huggingface", columns={"sound": "who"})
    (tmp_path / "x.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(CorpusError, match=r"x\.parquet: cannot be read"):
        read(store, "huggingface", columns={})


# Lhotse


def write_cuts(folder: Path, *cuts: object) -> Store:
    store = Store.open(str(folder))
    put_cuts(store)
    store.put("cuts.jsonl.gz", jsonl_gz(cuts))
    return store


def test_segments_of_cuts_with_several_supervisions(tmp_path: Path) -> None:
    cut = cut_of(SAMPLES[11], start=0.05, duration=0.3)
    supervision = cut["supervisions"][0]  # pyright: ignore[reportIndexIssue]
    cut["supervisions"] = [
        supervision | {"id": "one", "start": 0.0, "duration": 0.1},
        supervision | {"id": "two", "start": 0.1, "duration": 0.9},
    ]
    store = write_cuts(tmp_path, cut)
    listing = read(store, "lhotse", max_bad_fraction=0.0)
    rows = {u.utterance_id: (u.start_s, u.end_s) for u in listing.utterances}
    assert rows == {"one": (0.05, 0.15), "two": (0.15, 0.35)}, "never beyond the cut"
    assert {u.path for u in listing.utterances} == {f"wav/{SAMPLES[11].id}.flac"}


def source(**changes: object) -> dict[str, object]:
    first = {"type": "file", "channels": [0], "source": f"wav/{SAMPLES[0].id}.flac"}
    return {"recording": {"id": "r", "duration": 0.2, "sources": [first | changes]}}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"type": "MixedCut"}, "is a MixedCut; known are MonoCut, MultiCut"),
        ({"supervisions": []}, "has no supervision"),
        ({"recording": None}, "lacks recording"),
        ({"start": "0"}, "its start is '0' and no number of seconds"),
        (source(type="command", source="cat x | sh"), "one source of type file, and has command"),
        (source(type="url"), "one source of type file, and has url"),
        (source(channels=[0, 1]), "takes channel 0 of [0, 1]"),
        (source(source="../x.flac"), "leaves the corpus"),
        (source(source="/etc/passwd"), "leaves the corpus"),
        (source(source="wav/none.flac"), "is missing"),
    ],
)
def test_cuts_that_cannot_be_read_are_named(
    tmp_path: Path, changes: dict[str, object], reason: str
) -> None:
    store = write_cuts(tmp_path, cut_of(SAMPLES[1]), cut_of(SAMPLES[0], **changes))
    listing = read(store, "lhotse")
    assert [u.utterance_id for u in listing.utterances] == [SAMPLES[1].id]
    (told,) = problems_of(listing).values()
    assert reason in told


def test_transforms_and_damaged_manifests_are_told(tmp_path: Path) -> None:
    changed = source()
    changed["recording"] |= {"transforms": [{"name": "Speed"}]}  # pyright: ignore
    store = write_cuts(tmp_path, cut_of(SAMPLES[1]), cut_of(SAMPLES[0], **changed), ["no object"])
    told = problems_of(read(store, "lhotse"))
    assert "has transforms" in told[f"cuts.jsonl.gz: line 2 (id {SAMPLES[0].id!r})"]
    assert "is no JSON object" in told["cuts.jsonl.gz: line 3"]
    whole = (tmp_path / "cuts.jsonl.gz").read_bytes()
    (tmp_path / "cuts.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CorpusError, match=r"cuts\.jsonl\.gz: is damaged"):
        read(store, "lhotse")
    (tmp_path / "cuts.jsonl.gz").unlink()
    with pytest.raises(CorpusError, match="holds no manifest such as"):
        read(store, "lhotse")


# Video


def test_a_video_without_ffmpeg_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="FFmpeg is not installed here; install ffmpeg on every"):
        read_audio_bytes(Store.open(str(tmp_path)), "a.mp4")


@pytest.mark.usefixtures("in_process")
def test_ingest_stops_where_clips_need_ffmpeg(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "corpus").mkdir()
    for name in ("happy", "sad"):
        (tmp_path / "corpus" / f"f-s_{name}.mp4").write_bytes(b"x")
    context = context_of(tmp_path / "root", tmp_path / "corpus")
    monkeypatch.setenv("PATH", str(tmp_path))
    options = {"pattern": "{gender}-{speaker}_{emotion}.mp4"}
    # Not a thousand bad items, of which some fraction would be allowed.
    with pytest.raises(ConfigError, match="FFmpeg is not installed here"):
        ingest(context, adapter="folder", options=options, max_bad_fraction=1.0)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="FFmpeg is not installed")
def test_ffmpeg_decodes_what_is_in_a_container(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(recording(seconds=0.5))
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-i",
        tmp_path / "a.wav",
        "-c:a",
        "alac",
        tmp_path / "a.m4a",
    ]
    subprocess.run(command, check=True)
    store = Store.open(str(tmp_path))
    found = decode_pcm16(read_audio_bytes(store, "a.m4a"))
    assert found.tolist() == decode_pcm16(recording(seconds=0.5)).tolist(), "ALAC loses nothing"
    (tmp_path / "b.mp4").write_bytes(b"no video at all")
    with pytest.raises(CorpusError, match="FFmpeg cannot decode it"):
        read_audio_bytes(store, "b.mp4")
