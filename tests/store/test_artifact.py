from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.records import FEATURE_SCHEMA, PREDICTION_SCHEMA, Problem
from gmp_atl_dist.store.artifact import (
    Artifact,
    artifact_of,
    find_artifact,
    list_artifacts,
)
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.writer import ArtifactWriter

SCIENCE = {"layers": [6, 9]}
INPUTS = {"ingest": "ab" * 32}
KEY = ArtifactKey.of("extract", 1, {"layers": [6, 9]}, INPUTS)


@pytest.fixture
def store(any_store_uri: str) -> Store:
    return Store.open(any_store_uri)


def features(*ids: str) -> pa.Table:
    rows = [
        {"utterance_id": i, "layer": 6, "num_frames": 2, "dim": 1, "frames": i.encode() * 4}
        for i in ids
    ]
    return pa.Table.from_pylist(rows, schema=FEATURE_SCHEMA)


def write(store: Store, key: ArtifactKey = KEY) -> Artifact:
    writer = ArtifactWriter(store, key)
    writer.put_part("00001", features("c"), frames=2, audio_s=0.04)
    writer.put_part("00000", features("a", "b"), problems=[Problem(item="x", reason="too short")])
    writer.put_file("notes.json", b"{}")
    return writer.seal(version=1, science={"layers": [6, 9]}, inputs=INPUTS)


def damage(store: Store, name: str, data: bytes) -> None:
    store.put(f"{KEY.prefix}/{name}", data)


def test_an_artefact_comes_back(store: Store) -> None:
    write(store)

    found = find_artifact(store, KEY)

    assert found is not None
    assert found.identity == KEY.fingerprint
    assert found.manifest.science == SCIENCE
    assert found.manifest.inputs == INPUTS
    assert found.part_names == ("00000", "00001")
    assert found.read_part("00000", FEATURE_SCHEMA).equals(features("a", "b"))
    ids = found.read_part("00001", FEATURE_SCHEMA, ["utterance_id"])
    assert ids.to_pylist() == [{"utterance_id": "c"}]
    assert found.read_files() == {"notes.json": b"{}"}
    assert found.receipts["parts/00001.parquet"].frames == 2
    assert found.receipts["parts/00000.parquet"].rows == 2
    assert found.receipts["parts/00000.parquet"].problems[0].item == "x"
    assert found.verify() == []
    assert list_artifacts(store) == [KEY]


def test_lists_inside_rows_keep_their_schema(store: Store) -> None:
    row = dict.fromkeys(("utterance_id", "speaker", "gender", "emotion", "predicted"), "x")
    table = pa.Table.from_pylist([row | {"probabilities": [0.25, 0.75]}], schema=PREDICTION_SCHEMA)
    writer = ArtifactWriter(store, KEY)
    writer.put_part("0", table)
    found = writer.seal(version=1, science={}, inputs={})

    assert found.read_part("0", PREDICTION_SCHEMA).to_pylist() == table.to_pylist()


def test_without_its_manifest_there_is_none(store: Store) -> None:
    writer = ArtifactWriter(store, KEY)
    writer.put_part("00000", features("a"))

    assert find_artifact(store, KEY) is None
    assert list_artifacts(store) == []
    assert set(writer.done()) == {"parts/00000.parquet"}


def test_an_identity_of_its_own(store: Store) -> None:
    sealed = ArtifactWriter(store, KEY).seal(version=1, science={}, inputs={}, identity="ff")

    found = find_artifact(store, KEY)

    assert found is not None
    assert found.identity == sealed.identity == "ff"


def test_done_ignores_an_object_without_receipt(store: Store) -> None:
    writer = ArtifactWriter(store, KEY)
    writer.put_part("00000", features("a"))
    damage(store, "parts/00001.parquet", b"killed before its receipt")

    assert set(writer.done()) == {"parts/00000.parquet"}
    assert writer.seal(version=1, science={}, inputs={}).part_names == ("00000",)


@pytest.mark.parametrize("what", ["gone", "truncated", "receipt is not JSON", "receipt is cut"])
def test_done_does_not_believe_a_receipt_that_proves_nothing(store: Store, what: str) -> None:
    writer = ArtifactWriter(store, KEY)
    writer.put_part("00000", features("a"))
    writer.put_part("00001", features("b"))
    part, receipt = "parts/00001.parquet", "receipts/parts/00001.parquet.json"
    match what:
        case "gone":
            store.delete(f"{KEY.prefix}/parts")
            writer.put_part("00000", features("a"))
        case "truncated":
            damage(store, part, store.read(f"{KEY.prefix}/{part}")[:-1])
        case "receipt is not JSON":
            damage(store, receipt, b"\xff")
        case _:
            damage(store, receipt, store.read(f"{KEY.prefix}/{receipt}")[:20])

    assert set(writer.done()) == {"parts/00000.parquet"}

    writer.put_part("00001", features("b"))
    assert len(writer.done()) == 2


def test_verify_finds_a_flipped_byte_and_a_missing_part(store: Store) -> None:
    artifact = write(store)
    data = bytearray(store.read(f"{KEY.prefix}/parts/00000.parquet"))
    data[len(data) // 2] ^= 1
    damage(store, "parts/00000.parquet", bytes(data))
    store.delete(f"{KEY.prefix}/files")

    missing, flipped = sorted(artifact.verify(), key=lambda line: "sha256" in line)

    assert missing == (
        f"cannot read '{KEY.prefix}/files/notes.json' in {store.uri}: it is not there"
    )
    assert re.search(
        rf"{KEY.prefix}/parts/00000.parquet is damaged: its (\d+) bytes have sha256 \w{{12}}, its receipt "
        rf"states \1 bytes with \w{{12}}$",
        flipped,
    )


@pytest.mark.parametrize("columns", [None, ["utterance_id"]])
@pytest.mark.parametrize("what", ["gone", "damaged"])
def test_reading_a_lost_part_says_so(store: Store, columns: list[str] | None, what: str) -> None:
    artifact = write(store)
    if what == "gone":
        store.delete(f"{KEY.prefix}/parts")
    else:
        damage(store, "parts/00000.parquet", b"not Parquet at all")

    with pytest.raises(ArtifactError, match=r"parts/00000\.parquet"):
        artifact.read_part("00000", FEATURE_SCHEMA, columns)


def test_a_part_that_never_was_is_named(store: Store) -> None:
    with pytest.raises(ArtifactError, match=r"has no part '7'; it has \('00000', '00001'\)"):
        write(store).read_part("7", FEATURE_SCHEMA)


def test_another_schema_is_refused(store: Store) -> None:
    with pytest.raises(ArtifactError, match="was written by another version"):
        write(store).read_part("00000", PREDICTION_SCHEMA)


def test_row_groups_are_cut_where_told_and_read_one_by_one(store: Store) -> None:
    writer = ArtifactWriter(store, KEY)
    table = features("a", "b", "c")
    receipt = writer.put_part("0", table, row_group_rows=2, first="a", last="c")
    assert (receipt.first, receipt.last) == ("a", "c")
    artifact = writer.seal(version=1, science={}, inputs={})
    assert artifact.receipts["parts/0.parquet"] == receipt
    for whole in (True, False):
        with artifact.open_part("0", FEATURE_SCHEMA, whole=whole) as part:
            assert part.read_row_group(1).equals(table.slice(2))
            footer = part.metadata
        with artifact.open_part("0", FEATURE_SCHEMA, metadata=footer) as part:
            assert part.read_row_group(0, columns=["utterance_id"]).num_rows == 2


def test_an_artefact_is_found_by_how_its_fingerprint_begins(store: Store) -> None:
    with pytest.raises(ArtifactError, match=r"'' begins .* of 0 extract artefacts .*: none"):
        artifact_of(store, "extract", "")
    keys = [ArtifactKey("extract", c * 64) for c in ("ab", "ac")]
    for key in [*keys, ArtifactKey("label", "a" * 64)]:
        write(store, key)
    assert artifact_of(store, "extract", "ab").key == keys[0]
    assert artifact_of(store, "label", "").key.kind == "label"
    with pytest.raises(ArtifactError, match=r"'a' begins .* of 2 .*: abababababab, acacacacacac"):
        artifact_of(store, "extract", "a")
    with pytest.raises(ArtifactError, match=r"'f' begins .* of 0 .*: abababababab, acacacacacac"):
        artifact_of(store, "extract", "f")


@pytest.mark.parametrize("text", [b"", b"{}", b"{", b"\xff", b'{"kind": 1}'])
def test_a_damaged_manifest_is_an_error(store: Store, text: bytes) -> None:
    write(store)
    damage(store, "_manifest.json", text)

    with pytest.raises(ArtifactError, match=r"is not a manifest .* run gmp-atl repair --root "):
        find_artifact(store, KEY)


def test_a_manifest_in_a_wrong_place_is_an_error(store: Store) -> None:
    other = ArtifactKey("label", "0" * 64)
    write(store, other)
    store.put(KEY.manifest_path, store.read(other.manifest_path))

    with pytest.raises(ArtifactError, match="belongs to label/0000"):
        find_artifact(store, KEY)


def test_the_same_table_gives_the_same_bytes(store: Store) -> None:
    writer = ArtifactWriter(store, KEY)
    in_one_chunk = features("a", "b")
    in_two_chunks = pa.concat_tables([features("a"), features("b")])

    first = writer.put_part("0", in_one_chunk)
    second = writer.put_part("0", in_two_chunks)

    assert first == second


def test_two_writers_at_once_seal_the_same(store: Store) -> None:
    with ThreadPoolExecutor(2) as pool:
        artifacts = list(pool.map(lambda _: write(Store.open(store.uri)), range(2)))

    found = find_artifact(store, KEY)

    assert found is not None
    assert found.verify() == []
    assert [a.manifest for a in artifacts] == [found.manifest] * 2


names = st.text("abc", min_size=1, max_size=3)
values = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
)
values |= st.text(max_size=4)
# A few leaves in a few levels; large ones take hypothesis seconds and show no more.
sciences = st.dictionaries(
    names,
    st.recursive(
        values,
        lambda s: st.lists(s, max_size=3) | st.dictionaries(names, s, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)
inputs = st.dictionaries(names, st.text("0123456789abcdef", min_size=4, max_size=4), max_size=4)


def reverse(value: Any) -> Any:
    """The same value with the keys of every mapping in the other order."""
    if isinstance(value, dict):
        return {k: reverse(value[k]) for k in reversed(list(value))}
    return [reverse(v) for v in value] if isinstance(value, list) else value


@given(sciences, inputs, st.integers(0, 9))
def test_a_fingerprint_does_not_follow_the_order_of_keys(science, inputs, version) -> None:
    key = ArtifactKey.of("label", version, science, inputs)

    assert ArtifactKey.of("label", version, reverse(science), reverse(inputs)) == key
    assert re.fullmatch(r"[0-9a-f]{64}", key.fingerprint)


@given(sciences, inputs, st.integers(0, 9), names, values)
def test_a_fingerprint_follows_all_that_determines_the_bytes(
    science, inputs, version, name, value
) -> None:
    key = ArtifactKey.of("label", version, science, inputs)
    others = [
        ArtifactKey.of("retrain", version, science, inputs),
        ArtifactKey.of("label", version + 1, science, inputs),
        ArtifactKey.of("label", version, science | {name: [science.get(name), value]}, inputs),
        ArtifactKey.of("label", version, science, inputs | {name: inputs.get(name, "") + "0"}),
        ArtifactKey.of("label", version, {"science": science}, inputs),
    ]

    assert key.fingerprint not in {other.fingerprint for other in others}
    assert len({other.fingerprint for other in others}) == len(others)
