"""Features written, streamed and read at random come back bit for bit."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.records import FEATURE_SCHEMA
from gmp_atl_dist.store import features as module
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.features import (
    FeatureReader,
    UtteranceFrames,
    feature_part_name,
    feature_receipts,
    feature_source_parts,
    put_features,
    read_features,
    stream_batches,
)
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.frontend import frontend_part_name
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.writer import ArtifactWriter

KEY = ArtifactKey("extract", "0" * 64)
LAYER = 9

Parts = Sequence[Sequence[UtteranceFrames]]


def frames(count: int, dim: int, dtype: str = "<f2", seed: int = 0) -> np.ndarray:
    """Any bits at all, NaN and infinity among them."""
    raw = np.random.default_rng([seed, count, dim]).bytes(count * dim * np.dtype(dtype).itemsize)
    return np.frombuffer(raw, dtype).reshape(count, dim)


def utterances(*counts: int, dim: int = 4, dtype: str = "<f2") -> list[UtteranceFrames]:
    return [UtteranceFrames(f"u{i:03d}", frames(n, dim, dtype, i)) for i, n in enumerate(counts)]


def write(uri: str, parts: Parts, compression: str = "none", layer: int = LAYER) -> Artifact:
    out = ArtifactWriter(Store.open(uri), KEY)
    for number, rows in enumerate(parts):
        # Numbered from the back: the order of names is not what finds an utterance.
        part = f"part-{len(parts) - number:05d}"
        put_features(out, part, layer, rows, audio_s=1.5, compression=compression)
    return out.seal(version=1, science={}, inputs={})


@contextmanager
def root() -> Iterator[str]:
    """A new folder; what is put there is not waited for, which is most of the time."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield folder


@contextmanager
def row_groups_of(size: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_ROW_GROUP_BYTES", size)
        yield


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return (a.shape, a.dtype.str, a.tobytes()) == (b.shape, b.dtype.str, b.tobytes())


ids = st.lists(st.text(min_size=1, max_size=4), unique=True, max_size=12).map(sorted)
dtypes = st.sampled_from(["<f2", "<f4"])
compressions = st.sampled_from(["none", "zstd"])
group_bytes = st.sampled_from([1, 50, 200, 4 << 20])


@st.composite
def layers(draw: st.DrawFn) -> list[list[UtteranceFrames]]:
    """Parts of utterances in order, of one dim, each of fp16 or fp32; nothing is of neither."""
    names = draw(ids)
    dim = draw(st.integers(1, 5))
    rows = [
        UtteranceFrames(name, frames(count, dim, draw(dtypes) if count else "<f2", seed))
        for seed, name in enumerate(names)
        for count in [draw(st.integers(0, 9))]
    ]
    cuts = sorted(draw(st.lists(st.integers(0, len(rows)), max_size=3)))
    edges = [0, *cuts, len(rows)]
    return [rows[a:b] for a, b in pairwise(edges)]


@given(layers(), compressions, group_bytes)
def test_what_is_written_is_streamed_back(parts: Parts, compression: str, size: int) -> None:
    with root() as uri, row_groups_of(size):
        artifact = write(uri, parts, compression)
        for number, rows in enumerate(parts):
            name = f"part-{len(parts) - number:05d}"
            found = list(read_features(artifact, name, LAYER))
            assert [u.utterance_id for u in found] == [u.utterance_id for u in rows]
            assert all(same(a.frames_TD, b.frames_TD) for a, b in zip(found, rows, strict=True))
            receipt = artifact.receipts[f"parts/{feature_part_name(name, LAYER)}.parquet"]
            assert receipt.frames == sum(len(u.frames_TD) for u in rows)
            assert receipt.rows == len(rows)
            ends = (rows[0].utterance_id, rows[-1].utterance_id) if rows else ("", "")
            assert (receipt.first, receipt.last) == ends
            assert receipt.audio_s == 1.5
        assert artifact.verify() == []


@given(layers(), compressions, group_bytes, st.randoms(use_true_random=False))
def test_any_utterance_is_found_in_any_order(
    parts: Parts, compression: str, size: int, random
) -> None:
    rows = [u for part in parts for u in part]
    with root() as uri, row_groups_of(size):
        artifact = write(uri, parts, compression)
        if not rows:
            with pytest.raises(ArtifactError, match="holds no features of layer 9"):
                FeatureReader(artifact, LAYER)
            return
        reader = FeatureReader(artifact, LAYER)
        known = {u.utterance_id for u in rows}
        wanted = [*rows, *rows]
        random.shuffle(wanted)
        for u in wanted:
            assert same(reader.frames(u.utterance_id), u.frames_TD)
            for absent in {u.utterance_id + "\0", u.utterance_id[:-1]} - known:
                with pytest.raises(ArtifactError) as e:
                    reader.frames(absent)
                assert repr(absent) in str(e.value)


@given(layers(), st.integers(1, 30), group_bytes)
def test_batches_hold_whole_utterances_in_order(parts: Parts, limit: int, size: int) -> None:
    rows = {u.utterance_id: u.frames_TD for part in parts for u in part}
    with root() as uri, row_groups_of(size):
        artifact = write(uri, parts)
        names = [f"part-{len(parts) - i:05d}" for i in range(len(parts))]
        batches = list(stream_batches(artifact, LAYER, limit, parts=names))
        backwards = stream_batches(artifact, LAYER, limit)
        by_name = [i for name in sorted(names) for i in map_ids(artifact, name)]
        assert [i for b in backwards for i in b.utterance_ids] == by_name
    assert [i for b in batches for i in b.utterance_ids] == list(rows)
    for i, batch in enumerate(batches):
        total = sum(batch.num_frames)
        assert total <= limit or len(batch.utterance_ids) == 1
        assert batch.x_MD.dtype == np.float32
        assert batch.x_MD.flags.c_contiguous
        expected = [rows[u].astype(np.float32) for u in batch.utterance_ids]
        assert batch.num_frames == tuple(map(len, expected))
        np.testing.assert_array_equal(batch.x_MD, np.concatenate(expected))
        if i + 1 < len(batches):
            assert total + batches[i + 1].num_frames[0] > limit


def map_ids(artifact: Artifact, part: str) -> list[str]:
    return [u.utterance_id for u in read_features(artifact, part, LAYER)]


def test_on_every_kind_of_store(store_uri: str) -> None:
    rows = utterances(3, 1, 5, 2, 4)
    with row_groups_of(3 * 4 * 2):
        artifact = write(store_uri, [rows[:2], rows[2:]])
    reader = FeatureReader(artifact, LAYER)
    for u in reversed(rows):
        assert same(reader.frames(u.utterance_id), u.frames_TD)
    assert [b.utterance_ids for b in stream_batches(artifact, LAYER, 5)] == [
        ("u002",), ("u003",), ("u004",), ("u000", "u001"),
    ]  # fmt: skip


def test_a_row_group_is_about_four_mebibytes(tmp_path: Path) -> None:
    rows = utterances(*[683] * 11, dim=768)  # 1 MiB each
    artifact = write(str(tmp_path), [rows])
    with artifact.open_part(feature_part_name("part-00001", LAYER), FEATURE_SCHEMA) as part:
        sizes = [part.metadata.row_group(i).num_rows for i in range(part.num_row_groups)]
    assert sizes == [3, 3, 3, 2]


def test_an_utterance_larger_than_a_row_group_has_its_own(tmp_path: Path) -> None:
    with row_groups_of(1):
        artifact = write(str(tmp_path), [utterances(3, 4, 5)])
    with artifact.open_part(feature_part_name("part-00001", LAYER), FEATURE_SCHEMA) as part:
        assert part.num_row_groups == 3


def test_the_bytes_do_not_follow_the_layout_in_memory(tmp_path: Path) -> None:
    whole = frames(20, 6)
    views = [whole[2:5], whole[2:5].copy(), np.asfortranarray(whole[2:5])]
    receipts = []
    for view in views:
        out = ArtifactWriter(Store.open(str(tmp_path)), KEY)
        receipts.append(put_features(out, "p", 1, [UtteranceFrames("u", view)], audio_s=0.0))
    assert receipts[0] == receipts[1] == receipts[2]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (list(reversed(utterances(1, 1))), "'u000' follows 'u001'"),
        (utterances(1) * 2, "'u000' follows 'u000'"),
        (utterances(1, dtype="<f8"), "are float64 of shape"),
        (utterances(1, dtype=">f2"), "are >f2 of shape"),
        ([UtteranceFrames("u", np.zeros(3, np.float16))], r"of shape \(3,\)"),
    ],
)
def test_rows_that_only_a_defect_of_ours_could_give(
    tmp_path: Path, rows: list[UtteranceFrames], message: str
) -> None:
    out = ArtifactWriter(Store.open(str(tmp_path)), KEY)
    with pytest.raises(ValueError, match=message):
        put_features(out, "p", LAYER, rows, audio_s=0.0)
    assert out.done() == {}


def test_layers_lie_side_by_side(tmp_path: Path) -> None:
    out = ArtifactWriter(Store.open(str(tmp_path)), KEY)
    rows = {layer: utterances(2, 3, dim=layer) for layer in (2, 12)}
    for layer, mine in rows.items():
        put_features(out, "part", layer, mine, audio_s=0.0)
    artifact = out.seal(version=1, science={}, inputs={})
    for layer, mine in rows.items():
        assert feature_source_parts(artifact, layer) == ("part",)
        assert same(FeatureReader(artifact, layer).frames("u001"), mine[1].frames_TD)
    with pytest.raises(ArtifactError, match="holds no features of layer 3"):
        feature_receipts(artifact, 3)


def test_utterances_asked_for_in_order_cost_one_read_a_row_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = utterances(*[2] * 12)
    with row_groups_of(4 * 2 * 4 * 2):
        artifact = write(str(tmp_path), [rows[:6], rows[6:]])
    reads: list[tuple[int, object]] = []
    real = pq.ParquetFile.read_row_group

    def counted(self: pq.ParquetFile, i: int, columns: list[str], **options: bool) -> pa.Table:
        reads.append((i, columns))
        return real(self, i, columns=columns, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    reader = FeatureReader(artifact, LAYER)
    for u in rows:
        reader.frames(u.utterance_id)
    assert reads == [(0, ["frames"]), (1, ["frames"])] * 2


def test_few_indexes_in_memory_find_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_INDEXES", 1)
    rows = utterances(1, 2, 3)
    reader = FeatureReader(write(str(tmp_path), [[u] for u in rows]), LAYER)
    for u in [*rows, *rows]:
        assert same(reader.frames(u.utterance_id), u.frames_TD)
    assert len(reader._indexes) == 1


def test_what_the_reader_gives_is_not_written_to(tmp_path: Path) -> None:
    reader = FeatureReader(write(str(tmp_path), [utterances(2)]), LAYER)
    with pytest.raises(ValueError, match="read-only"):
        reader.frames("u000")[0, 0] = 1


def test_batches_do_not_share_memory(tmp_path: Path) -> None:
    artifact = write(str(tmp_path), [utterances(2, 2)])
    first, second = stream_batches(artifact, LAYER, 2)
    assert not np.shares_memory(first.x_MD, second.x_MD)


def test_another_dim_stops_a_stream(tmp_path: Path) -> None:
    rows = [UtteranceFrames("a", frames(2, 3)), UtteranceFrames("b", frames(2, 4))]
    artifact = write(str(tmp_path), [rows])
    for limit in (1, 9):
        with pytest.raises(ArtifactError, match=r"different dim: \{3: 'a', 4: 'b'\}"):
            list(stream_batches(artifact, LAYER, limit))


@pytest.mark.parametrize(
    "row",
    [
        {"layer": 2, "num_frames": 3, "dim": 4, "frames": bytes(2 * 11)},
        {"layer": 3, "num_frames": 3, "dim": 4, "frames": bytes(2 * 12)},
        {"layer": 2, "num_frames": -3, "dim": -4, "frames": bytes(2 * 12)},
    ],
)
def test_a_row_that_is_not_what_it_says(tmp_path: Path, row: dict[str, object]) -> None:
    out = ArtifactWriter(Store.open(str(tmp_path)), KEY)
    table = pa.Table.from_pylist([{"utterance_id": "u", **row}], schema=FEATURE_SCHEMA)
    out.put_part(feature_part_name("part", 2), table, first="u", last="u")
    artifact = out.seal(version=1, science={}, inputs={})
    for read in (
        lambda: list(read_features(artifact, "part", 2)),
        lambda: FeatureReader(artifact, 2).frames("u"),
    ):
        with pytest.raises(ArtifactError, match=r"utterance 'u' in part 'part-layer02' .* verify"):
            read()


@pytest.mark.parametrize("second", [("b", "c"), ("", "")])
def test_parts_that_are_not_ranges_of_ids(tmp_path: Path, second: tuple[str, str]) -> None:
    out = ArtifactWriter(Store.open(str(tmp_path)), KEY)
    table = module._feature_table(LAYER, utterances(1), 1)
    out.put_part(feature_part_name("p1", LAYER), table, first="a", last="b")
    out.put_part(feature_part_name("p2", LAYER), table, first=second[0], last=second[1])
    artifact = out.seal(version=1, science={}, inputs={})
    with pytest.raises(ArtifactError, match="another version wrote it: extract again"):
        FeatureReader(artifact, LAYER)


@pytest.mark.parametrize("damage", ["gone", "cut", "empty", "flipped"])
def test_a_damaged_part_is_named(tmp_path: Path, damage: str) -> None:
    artifact = write(str(tmp_path), [utterances(*[40] * 30, dim=16)])
    reader = FeatureReader(artifact, LAYER)
    reader.frames("u000")
    path = next(tmp_path.rglob("*.parquet"))
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        kept = {"cut": data[: len(data) // 2], "empty": b"", "flipped": b"\xff" * len(data)}
        path.write_bytes(kept[damage])
    for read in (
        lambda: list(read_features(artifact, "part-00001", LAYER)),
        lambda: FeatureReader(artifact, LAYER).frames("u000"),
    ):
        with pytest.raises(ArtifactError, match=r"part-00001-layer09\.parquet"):
            read()
    # The footer is known already; the row group is not there any more.
    reader._held = None
    with pytest.raises(ArtifactError, match=r"part-00001-layer09\.parquet"):
        reader.frames("u001")


def test_a_folder_is_mapped_and_s3_is_asked_once(store_uri: str) -> None:
    store = Store.open(store_uri)
    store.put("a", b"words")
    with store.open_input("a", whole=True) as whole, store.open_input("a") as partial:
        assert whole.read() == partial.read() == b"words"
        kinds = (type(whole), type(partial))
    if store.uri.startswith("s3://"):
        assert kinds[0] is pa.BufferReader
    else:
        assert kinds == (pa.MemoryMappedFile, pa.MemoryMappedFile)


def test_names_of_parts_are_those_of_roots_that_exist() -> None:
    """They are stored: another name would lose what earlier versions computed."""
    assert feature_part_name("part-00001", 7) == "part-00001-layer07"
    assert frontend_part_name("part-00001") == "part-00001-layer00"
