"""What is read is compared with its receipt: files at each reading, parts when they are opened first."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pytest

from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.records import AUDIO_SCHEMA, CURVE_SCHEMA
from gmp_atl_dist.store import artifact as artifact_module
from gmp_atl_dist.store import checked
from gmp_atl_dist.store.artifact import Artifact, find_artifact
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.readers import pcm16_sha256, read_audio_rows
from gmp_atl_dist.store.writer import ArtifactWriter

KEY = ArtifactKey("warmup", "c" * 64)
COLUMNS = [None, ["value"]]


@pytest.fixture
def store(store_uri: str) -> Store:
    return Store.open(store_uri)


@pytest.fixture
def parts_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact_module, "FETCHED_WHOLE_BYTES", 0)


def curve(value: float) -> pa.Table:
    rows = [{"step": step, "name": "loss", "value": value} for step in range(100)]
    return pa.Table.from_pylist(rows, schema=CURVE_SCHEMA)


def made(store: Store) -> Artifact:
    writer = ArtifactWriter(store, KEY)
    writer.put_file("model.safetensors", bytes(range(256)) * 8)
    writer.put_part("a", curve(0.5))
    writer.put_part("b", curve(0.25))
    writer.seal(version=1, science={}, inputs={})
    found = find_artifact(store, KEY)
    assert found is not None
    return found


def flip(store: Store, path: str, *offsets: int) -> None:
    data = bytearray(store.read(path))
    for offset in offsets:
        data[offset] ^= 0x10
    store.put(path, bytes(data))


def test_three_flipped_bytes_in_a_file_are_named_with_both_digests(store: Store) -> None:
    artifact = made(store)
    flip(store, f"{KEY.prefix}/files/model.safetensors", 700, 900, 1100)
    place = re.escape(f"{store.uri}/{KEY.prefix}/files/model.safetensors")
    expected = artifact.receipts["files/model.safetensors"].sha256[:12]
    for read in (lambda: artifact.read_file("model.safetensors"), artifact.read_files):
        with pytest.raises(
            ArtifactError,
            match=rf"{place} is damaged: its 2048 bytes have sha256 \w{{12}}, its receipt states 2048 "
            rf"bytes with {expected}; run gmp-atl repair --root {re.escape(store.uri)}, ",
        ):
            read()


def test_a_file_without_a_receipt_is_no_file_of_the_artefact(store: Store) -> None:
    artifact = made(store)
    store.put(f"{KEY.prefix}/files/planted", b"x")
    with pytest.raises(ArtifactError, match=r"has no file 'planted'; it has \['model.safetensors'"):
        artifact.read_file("planted")


@pytest.mark.parametrize("columns", COLUMNS)
def test_a_flipped_value_in_a_part_is_found(store: Store, columns: list[str] | None) -> None:
    """Parquet itself does not notice: the part has no checksums of its own."""
    artifact = made(store)
    path = f"{KEY.prefix}/parts/a.parquet"
    value = store.read(path).index(b"\x00\x00\x00\x00\x00\x00\xe0?") + 3
    flip(store, path, value)
    with pytest.raises(ArtifactError, match=r"parts/a\.parquet is damaged: its \d+ bytes have"):
        artifact.read_part("a", CURVE_SCHEMA, columns)
    assert artifact.read_part("b", CURVE_SCHEMA, columns).num_rows == 100


@pytest.mark.parametrize("columns", COLUMNS)
def test_a_part_in_the_place_of_another_is_found(store: Store, columns: list[str] | None) -> None:
    artifact = made(store)
    store.put(f"{KEY.prefix}/parts/a.parquet", store.read(f"{KEY.prefix}/parts/b.parquet"))
    with pytest.raises(ArtifactError, match=r"parts/a\.parquet is damaged: "):
        artifact.read_part("a", CURVE_SCHEMA, columns)


@pytest.mark.usefixtures("parts_are_large")
def test_the_size_of_a_large_part_is_compared_where_some_of_it_is_read(store: Store) -> None:
    artifact = made(store)
    path = f"{KEY.prefix}/parts/a.parquet"
    store.put(path, store.read(path) + store.read(path))
    with pytest.raises(
        ArtifactError, match=r"parts/a\.parquet is damaged: .*its receipt states \d+"
    ):
        artifact.read_part("a", CURVE_SCHEMA, ["value"])


def test_a_part_is_hashed_once_per_process(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = made(store)
    monkeypatch.setattr(artifact_module, "checked_parts", checked.CheckedParts())
    hashed: list[str] = []
    check = artifact_module.check_bytes

    def counted(uri: str, prefix: str, data: checked.Bytes, stated: checked.Stated) -> None:
        hashed.append(stated.name)
        check(uri, prefix, data, stated)

    monkeypatch.setattr(artifact_module, "check_bytes", counted)
    for columns in (*COLUMNS, *COLUMNS):
        artifact.read_part("a", CURVE_SCHEMA, columns)
    assert hashed == ["parts/a.parquet"]


@pytest.mark.usefixtures("parts_are_large")
@pytest.mark.parametrize("columns", [["pcm16"], ["num_samples", "pcm16"]])
def test_changed_samples_of_a_large_part_are_found(
    store: Store, columns: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = [bytes([number]) * 64 for number in range(3)]
    rows = [
        {
            **dict.fromkeys(AUDIO_SCHEMA.names, "x"),
            **{"utterance_id": f"u{number}", "num_samples": 32, "row": number, "pcm16": samples},
            "audio_sha256": pcm16_sha256(np.frombuffer(samples, "<i2")),
        }
        for number, samples in enumerate(sound)
    ]
    writer = ArtifactWriter(store, KEY)
    writer.put_part("part-00000", pa.Table.from_pylist(rows, schema=AUDIO_SCHEMA))
    artifact = writer.seal(version=1, science={}, inputs={})

    def read() -> pa.Table:
        return read_audio_rows(artifact, "part-00000", 1, 3, columns=columns)

    assert read().column_names == columns
    assert read()["pcm16"].to_pylist() == sound[1:]
    path = f"{KEY.prefix}/parts/part-00000.parquet"
    flip(store, path, store.read(path).index(sound[2]) + 5)
    monkeypatch.setattr(artifact_module, "checked_parts", checked.CheckedParts())
    with pytest.raises(ArtifactError, match=r"part-00000\.parquet is damaged: "):
        read()
