"""fairseq's files in, fairseq's files out; the sample of real HuBERT features byte for byte."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.handed import handed_case

from gmp_atl_dist.audio import decode_pcm16, num_frames
from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.exchange import importing
from gmp_atl_dist.exchange.exporting import export_features, export_labels
from gmp_atl_dist.exchange.importing import Imported, import_features
from gmp_atl_dist.exchange.layout import FairseqFiles, fewest_samples, npy_header
from gmp_atl_dist.store import features as features_module
from gmp_atl_dist.store.artifact import Artifact, list_artifacts
from gmp_atl_dist.store.features import (
    FeatureReader,
    UtteranceFrames,
    feature_source_parts,
    put_features,
    read_features,
)
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.labels import UtteranceLabels, put_labels, read_labels
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.writer import ArtifactWriter

LAYER = 9
IDS = ("b/2.wav", "a/1.wav", "a/0.wav")
COUNTS = (2, 3, 1)
X_MD = np.arange(24, dtype="<f4").reshape(6, 4) / 7
LABELS = "5 0\n1 2 3\n499\n"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "root"))


@pytest.fixture
def files(tmp_path: Path) -> FairseqFiles:
    """Three utterances, not in the order of their ids."""
    npy = tmp_path / "train_0_1.npy"
    np.save(npy, X_MD)
    npy.with_suffix(".len").write_text("".join(f"{n}\n" for n in COUNTS))
    lines = [f"{i}\t{fewest_samples(n) + 7}\n" for i, n in zip(IDS, COUNTS, strict=True)]
    (tmp_path / "train.tsv").write_text("/corpus\n" + "".join(lines))
    npy.with_suffix(".km").write_text(LABELS)
    return FairseqFiles.beside(npy)


def sample_files(data_root: Path) -> FairseqFiles:
    folder = data_root / "hubert_features"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    stem = folder / "sample.base.L9"
    return FairseqFiles.beside(stem.with_name("sample.base.L9.npy"),
                               km=stem.with_name("sample.base.L9.km500.km"))  # fmt: skip


def all_of(imported: Imported) -> tuple[Artifact, Artifact]:
    assert imported.labels is not None
    return imported.features, imported.labels


def stored(features: Artifact) -> dict[str, np.ndarray]:
    return {
        u.utterance_id: u.frames_TD
        for part in feature_source_parts(features, LAYER)
        for u in read_features(features, part, LAYER)
    }


def test_the_sample_has_the_frames_of_its_recording(data_root: Path) -> None:
    files = sample_files(data_root)
    flac = next(files.npy.parent.glob("*.flac")).read_bytes()
    assert num_frames(len(decode_pcm16(flac))) == 596 == int(files.lengths.read_text())


def test_the_sample_comes_out_as_the_same_bytes(
    data_root: Path, store: Store, tmp_path: Path
) -> None:
    files = sample_files(data_root)
    features, labels = all_of(import_features(store, files, LAYER))
    listing = export_features(features, LAYER, tmp_path / "out", "sample_0_1")
    assert listing == [("sample.base.L9-000000", 596)]
    assert export_labels(labels, 0, tmp_path / "out", "sample_0_1", listing) == listing
    assert files.km is not None
    for suffix, original in {".npy": files.npy, ".len": files.lengths, ".km": files.km}.items():
        assert (tmp_path / "out" / f"sample_0_1{suffix}").read_bytes() == original.read_bytes()
    assert (tmp_path / "out" / "sample.tsv").read_text() == ".\nsample.base.L9-000000\t190800\n"
    assert num_frames(190_800) == 596


def test_labels_of_the_sample_by_centroids_fitted_on_it(
    data_root: Path, store: Store, tmp_path: Path
) -> None:
    from gmp_atl_dist.clustering.assignment import FaissAssigner, nearest_ids
    from gmp_atl_dist.clustering.assignment_step import fit_in_memory
    from gmp_atl_dist.clustering.state import Fit

    features = import_features(store, sample_files(data_root), LAYER).features
    x_TD = FeatureReader(features, LAYER).frames("sample.base.L9-000000")
    k = 50
    fits = [Fit("the sample", k, seed=0, iterations=10)]
    centroids_KD = fit_in_memory(fits, {"all": x_TD})[0].centroids_KD
    ids = nearest_ids(FaissAssigner(centroids_KD), x_TD)
    wide = x_TD.astype(np.float64)[:, None] - centroids_KD.astype(np.float64)
    np.testing.assert_array_equal(ids, (wide**2).sum(axis=2).argmin(axis=1))
    again = fit_in_memory(fits, {"all": x_TD})[0].centroids_KD
    np.testing.assert_array_equal(ids, nearest_ids(FaissAssigner(again), x_TD))
    assert set(ids) <= set(range(k))
    assert len(set(ids)) > k // 2

    km = tmp_path / "own.km"
    km.write_text(" ".join(map(str, ids)) + "\n")
    sample = sample_files(data_root)
    own = FairseqFiles(sample.npy, sample.lengths, km=km)
    same, labels = all_of(import_features(store, own, LAYER))
    assert same.key == features.key
    export_labels(labels, 0, tmp_path / "out", "own", export_features(same, LAYER, tmp_path, "own"))
    assert (tmp_path / "out" / "own.km").read_bytes() == km.read_bytes()


def test_an_import_keeps_every_bit_and_sorts_by_id(store: Store, files: FairseqFiles) -> None:
    features, labels = all_of(import_features(store, files, LAYER))
    found = stored(features)
    assert list(found) == sorted(IDS)
    starts = {"b/2.wav": 0, "a/1.wav": 2, "a/0.wav": 5}
    for (name, start), count in zip(starts.items(), COUNTS, strict=True):
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], X_MD[start : start + count])
    by_id = {name: ids.tolist() for name, (ids,) in read_labels(labels).items()}
    assert by_id == {"b/2.wav": [5, 0], "a/1.wav": [1, 2, 3], "a/0.wav": [499]}
    assert features.key.kind == "extract"
    assert labels.key.kind == "label"
    assert labels.manifest.inputs == {"features": features.identity}
    assert features.verify() == labels.verify() == []
    receipt = features.manifest.receipts[0]
    assert (receipt.frames, receipt.first, receipt.last) == (6, "a/0.wav", "b/2.wav")
    assert receipt.audio_s == pytest.approx((3 * 400 + 3 * 320) / 16_000)


def test_an_import_is_known_by_its_content(store: Store, files: FairseqFiles) -> None:
    first = all_of(import_features(store, files, LAYER))
    times = {e.path: e.mtime_ns for e in store.list()}
    moved = files.npy.parent / "elsewhere"
    moved.mkdir()
    for path in (files.npy, files.lengths, files.tsv, files.km):
        assert path is not None
        path.rename(moved / path.name)
    there = FairseqFiles.beside(moved / files.npy.name)
    again = all_of(import_features(store, there, LAYER))
    assert [a.key for a in again] == [a.key for a in first]
    assert {e.path: e.mtime_ns for e in store.list()} == times
    others = [
        import_features(store, there, LAYER + 1),
        import_features(store, FairseqFiles(there.npy, there.lengths), LAYER),
    ]
    assert len({first[0].key, *(o.features.key for o in others)}) == 3
    # Without a .tsv ids follow the name of the file, so that is content.
    renamed = there.npy.rename(moved / "valid_0_1.npy")
    valid = import_features(store, FairseqFiles(renamed, there.lengths), LAYER).features
    assert valid.key != others[1].features.key
    assert list(stored(valid)) == [f"valid_0_1-{i:06d}" for i in range(3)]


def test_parts_are_planned_from_frames(
    store: Store, files: FairseqFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "_PART_FRAMES", 3)
    features, labels = all_of(import_features(store, files, LAYER))
    assert labels.part_names == ("import-00000", "import-00001", "import-00002")
    assert feature_source_parts(features, LAYER) == labels.part_names
    assert [r.frames for r in features.manifest.receipts] == [1, 3, 2]
    assert np.array_equal(FeatureReader(features, LAYER).frames("a/1.wav"), X_MD[2:5])


def test_files_beside_are_found_by_name(tmp_path: Path, files: FairseqFiles) -> None:
    names = {p.name for p in (files.npy, files.lengths, files.tsv, files.km) if p is not None}
    assert names == {"train_0_1.npy", "train_0_1.len", "train.tsv", "train_0_1.km"}
    (tmp_path / "train_0_1.tsv").write_text("")
    assert FairseqFiles.beside(files.npy).tsv == tmp_path / "train_0_1.tsv"
    shard = FairseqFiles.beside(tmp_path / "train_1_2.npy")
    assert (shard.tsv, shard.km) == (None, None)
    assert FairseqFiles.beside(files.npy, km=Path("other.km")).km == Path("other.km")


def test_half_precision_stays_and_goes_out_as_single(
    store: Store, files: FairseqFiles, tmp_path: Path
) -> None:
    np.save(files.npy, X_MD.astype("<f2"))
    features = import_features(store, files, LAYER).features
    assert {x.dtype.str for x in stored(features).values()} == {"<f2"}
    export_features(features, LAYER, tmp_path / "out", "t")
    exported = np.load(tmp_path / "out" / "t.npy")
    assert exported.dtype == np.float32
    order = [5, 2, 3, 4, 0, 1]
    np.testing.assert_array_equal(exported, X_MD.astype("<f2")[order].astype("<f4"))
    assert (tmp_path / "out" / "t.len").read_text() == "1\n3\n2\n"
    assert (tmp_path / "out" / "t.tsv").read_text() == (
        ".\na/0.wav\t400\na/1.wav\t1040\nb/2.wav\t720\n"
    )


def test_fortran_order_is_read_as_well(store: Store, files: FairseqFiles) -> None:
    np.save(files.npy, np.asfortranarray(X_MD))
    np.testing.assert_array_equal(
        stored(import_features(store, files, LAYER).features)["b/2.wav"], X_MD[:2]
    )


@given(
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(any),
    dim=st.integers(1, 6),
    part_frames=st.integers(1, 20),
    row_group=st.sampled_from([1, 100, 4 << 20]),
    seed=st.integers(0, 99),
)
def test_any_features_in_order_come_out_as_the_same_bytes(
    counts: list[int], dim: int, part_frames: int, row_group: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x_MD = rng.normal(size=(sum(counts), dim)).astype("<f4")
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        patch.setattr(importing, "_PART_FRAMES", part_frames)
        patch.setattr(features_module, "_ROW_GROUP_BYTES", row_group)
        npy = Path(folder, "x.npy")
        npy.write_bytes(npy_header(*x_MD.shape) + x_MD.tobytes())
        np.testing.assert_array_equal(np.load(npy), x_MD)
        npy.with_suffix(".len").write_text("".join(f"{n}\n" for n in counts))
        lines = [" ".join(map(str, rng.integers(0, 500, n))) + "\n" for n in counts]
        npy.with_suffix(".km").write_text("".join(lines))
        features, labels = all_of(
            import_features(Store.open(f"{folder}/root"), FairseqFiles.beside(npy), LAYER)
        )
        out = Path(folder, "out")
        export_labels(labels, 0, out, "x", export_features(features, LAYER, out, "x"))
        for suffix in (".npy", ".len", ".km"):
            name = f"x{suffix}"
            assert (out / name).read_bytes() == Path(folder, name).read_bytes(), suffix


# What an import refuses ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2\n3\n2\n", r"train_0_1\.len: 3 lines add up to 7 frames, but .*npy has 6 rows"),
        ("2\n3\n", r"2 lines add up to 5 frames"),
        ("2\nthree\n1\n", "line 2: 'three' is not a number of frames"),
        ("2\n\n3\n1\n", "line 2: '' is not a number of frames"),
        ("2\n-3\n7\n", "line 2: '-3' is not"),
        ("2\n3.0\n1\n", r"line 2: '3\.0' is not"),
        ("2\n1_0\n1\n", "line 2: '1_0' is not"),
        (f"2\n{2**31}\n1\n", f"line 2: '{2**31}' is not"),
        ("", "the file has no line"),
    ],
)
def test_lengths_that_do_not_fit(
    store: Store, files: FairseqFiles, text: str, message: str
) -> None:
    files.lengths.write_text(text)
    with pytest.raises(ArtifactError, match=message):
        import_features(store, files, LAYER)
    assert list_artifacts(store) == []


@pytest.mark.parametrize(
    ("x_MD", "message"),
    [
        (X_MD.astype("<f8"), r"is <f8 of shape \(6, 4\)"),
        (X_MD.astype(">f4"), "is >f4 of shape"),
        (X_MD.astype("<i4"), "is <i4 of shape"),
        (X_MD[:, 0], r"is <f4 of shape \(6,\)"),
        (X_MD[None], r"is <f4 of shape \(1, 6, 4\)"),
        (np.array([[{}] * 4] * 6, dtype=object), "cannot be read as an array of numbers"),
    ],
)
def test_arrays_that_are_not_features(
    store: Store, files: FairseqFiles, x_MD: np.ndarray, message: str
) -> None:
    np.save(files.npy, x_MD, allow_pickle=True)
    with pytest.raises(ArtifactError, match=rf"train_0_1\.npy: {message}"):
        import_features(store, files, LAYER)


def test_an_archive_is_not_an_array(store: Store, files: FairseqFiles) -> None:
    with files.npy.open("wb") as f:
        np.savez(f, x=X_MD)
    with pytest.raises(ArtifactError, match=r"train_0_1\.npy: cannot be read as an array"):
        import_features(store, files, LAYER)


@pytest.mark.parametrize("size", [0, 5, 100, 150])
def test_an_array_that_was_cut_short(store: Store, files: FairseqFiles, size: int) -> None:
    files.npy.write_bytes(files.npy.read_bytes()[:size])
    with pytest.raises(ArtifactError, match=r"train_0_1\.npy: cannot be read .* complete \.npy"):
        import_features(store, files, LAYER)


def test_a_pickle_is_not_run(store: Store, files: FairseqFiles, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (os.mkdir, (str(tmp_path / "sprung"),))

    np.save(files.npy, np.array([[Trap()]], dtype=object), allow_pickle=True)
    with pytest.raises(ArtifactError, match="cannot be read as an array"):
        import_features(store, files, LAYER)
    files.npy.write_bytes(files.npy.read_bytes()[128:])
    with pytest.raises(ArtifactError, match="cannot be read as an array"):
        import_features(store, files, LAYER)
    assert not (tmp_path / "sprung").exists()


def test_values_that_are_not_finite_are_all_named(
    store: Store, files: FairseqFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "_PART_FRAMES", 3)
    x_MD = X_MD.copy()
    x_MD[3, 2], x_MD[4, 0], x_MD[0, 1] = np.inf, np.nan, np.nan
    np.save(files.npy, x_MD)
    with pytest.raises(ArtifactError) as e:
        import_features(store, files, LAYER)
    assert f"{files.npy}: features must be finite" in str(e.value)
    assert "row 3, column 2 is inf: frame 1 of utterance 'a/1.wav'" in str(e.value)
    assert "row 0, column 1 is nan: frame 0 of utterance 'b/2.wav'" in str(e.value)
    assert list_artifacts(store) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5 0\n1 2 3\n", r"has 2 lines, but .*train_0_1\.len has 3"),
        ("5 0\n1 2 3\n4\n5\n", "has 4 lines, but"),
        ("5 0\n1 2\n4\n", r"line 2: 2 labels, but .*train_0_1\.len says 3"),
        ("5 0\n1 2 3 4\n4\n", "line 2: 4 labels, but"),
        ("5 0\n1 -2 3\n4\n", "line 2: '-2' is not a label"),
        ("5 0\n1 2.0 3\n4\n", r"line 2: '2\.0' is not a label"),
        ("5 0\n1 x 3\n4\n", "line 2: 'x' is not a label"),
        (f"5 0\n1 {2**31} 3\n4\n", f"line 2: '{2**31}' is not a label"),
        ("5 0\n1 " + "9" * 5000 + " 3\n4\n", "is not a label"),
    ],
)
def test_labels_that_do_not_fit(store: Store, files: FairseqFiles, text: str, message: str) -> None:
    assert files.km is not None
    files.km.write_text(text)
    with pytest.raises(ArtifactError, match=message) as e:
        import_features(store, files, LAYER)
    assert str(files.km) in str(e.value)
    # Nothing is written of features whose labels are wrong.
    assert store.list() == []


def test_all_bad_lines_are_named_at_once(store: Store, files: FairseqFiles) -> None:
    assert files.km is not None
    files.km.write_text("5\nx 2 3\n\n")
    with pytest.raises(ArtifactError) as e:
        import_features(store, files, LAYER)
    assert all(f"line {i}: " in str(e.value) for i in (1, 2, 3))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("/c\na\t400\nb\t400\n", r"2 utterances, but .*train_0_1\.len has 3; give the lines of"),
        ("/c\na\t400\nb\t400\na\t400\n", "line 4: 'a' occurs in line 2 as well"),
        ("/c\na\t400\nb 400\nc\t400\n", r"line 3: \['b 400'\] is not a path, a tab and a number"),
        ("/c\na\t400\n\t400\nc\t400\n", r"line 3: \['', '400'\] is not"),
        ("/c\na\t400\nb\tlong\nc\t400\n", r"line 3: \['b', 'long'\] is not"),
        ("", "0 utterances, but"),
    ],
)
def test_names_that_do_not_fit(store: Store, files: FairseqFiles, text: str, message: str) -> None:
    assert files.tsv is not None
    files.tsv.write_text(text)
    with pytest.raises(ArtifactError, match=message) as e:
        import_features(store, files, LAYER)
    assert str(files.tsv) in str(e.value)


@pytest.mark.parametrize("which", ["npy", "lengths", "tsv", "km"])
def test_a_file_that_is_not_there(store: Store, files: FairseqFiles, which: str) -> None:
    path: Path = getattr(files, which)
    path.unlink()
    with pytest.raises(ArtifactError, match=f"{path}: cannot be read .*No such file"):
        import_features(store, files, LAYER)


@pytest.mark.parametrize("which", ["lengths", "tsv", "km"])
def test_text_that_is_not_text(store: Store, files: FairseqFiles, which: str) -> None:
    path: Path = getattr(files, which)
    path.write_bytes(b"\xff\xfe2\n")
    with pytest.raises(ArtifactError, match=f"{path}: cannot be read .not UTF-8"):
        import_features(store, files, LAYER)


# What an export refuses ------------------------------------------------------------------


def put(store: Store, *names: str, frames: int | None = None) -> Artifact:
    """Features of one frame an utterance; ``frames`` is what the receipt says instead."""
    out = ArtifactWriter(store, ArtifactKey("extract", "e" * 64))
    rows = [UtteranceFrames(name, np.ones((1, 2), "<f2")) for name in names]
    receipt = put_features(out, "part", LAYER, rows, audio_s=0.0)
    if frames is not None:
        text = receipt.model_copy(update={"frames": frames}).model_dump_json()
        store.put(f"{out.key.prefix}/receipts/{receipt.name}.json", text.encode())
    return out.seal(version=1, science={}, inputs={})


def put_label_rows(store: Store, *rows: tuple[str, list[list[int]]]) -> Artifact:
    out = ArtifactWriter(store, ArtifactKey("label", "1" * 64))
    found = [
        UtteranceLabels(name, ("x",) * len(scales), tuple(np.array(ids, "<i2") for ids in scales))
        for name, scales in rows
    ]
    put_labels(out, "part", found)
    return out.seal(version=1, science={}, inputs={})


def test_a_layer_that_is_not_there(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="holds no features of layer 3"):
        export_features(put(store, "u"), 3, tmp_path / "out", "t")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["a\tb", "a\nb", "a\rb"])
def test_a_name_that_a_table_cannot_hold(store: Store, tmp_path: Path, name: str) -> None:
    with pytest.raises(ArtifactError, match=r"cannot contain a tab or a line break") as e:
        export_features(put(store, name), LAYER, tmp_path / "out", "t")
    assert repr(name) in str(e.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_names_of_utterances_are_not_names_of_files(store: Store, tmp_path: Path) -> None:
    export_features(put(store, "../../evil", "/etc/passwd"), LAYER, tmp_path / "out", "t")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"t.npy", "t.len", "t.tsv"}
    assert {p.name for p in tmp_path.iterdir()} == {"out", "root"}
    assert "../../evil\t400\n" in (tmp_path / "out" / "t.tsv").read_text()


@pytest.mark.parametrize("name", ["../t", "a/t", "/t"])
def test_a_name_that_leaves_the_folder(store: Store, tmp_path: Path, name: str) -> None:
    with pytest.raises(ArtifactError, match="is not a file name"):
        export_features(put(store, "u"), LAYER, tmp_path / "out", name)


def test_receipts_that_count_otherwise(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="holds 2 frames of layer 9, but its receipts say 3"):
        export_features(put(store, "u", "v", frames=3), LAYER, tmp_path / "out", "t")
    assert list((tmp_path / "out").iterdir()) == []


def test_an_export_that_stops_leaves_the_files_of_the_one_before(
    store: Store, files: FairseqFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "_PART_FRAMES", 3)
    features = import_features(store, files, LAYER).features
    export_features(features, LAYER, tmp_path / "out", "t")
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    parts = sorted((tmp_path / "root" / "artifacts" / "extract").rglob("*.parquet"))
    parts[-1].unlink()
    with pytest.raises(ArtifactError, match="it is not there"):
        export_features(features, LAYER, tmp_path / "out", "t")
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == before


def test_a_folder_that_cannot_be_written(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match=r"file: cannot be written \(File exists\)"):
        export_features(put(store, "u"), LAYER, tmp_path / "file", "t")


def test_every_scale_on_its_own(store: Store, tmp_path: Path) -> None:
    labels = put_label_rows(store, ("a", [[1, 2], [7, 8]]), ("b", [[3], [9]]))
    assert export_labels(labels, 1, tmp_path, "t") == [("a", 2), ("b", 1)]
    assert (tmp_path / "t.km").read_text() == "7 8\n9\n"
    with pytest.raises(ArtifactError, match=r"has no labels of scale 2; it has \[0, 1\]"):
        export_labels(labels, 2, tmp_path, "u")
    assert not (tmp_path / "u.km").exists()


@pytest.mark.parametrize(
    ("listing", "message"),
    [
        ([("a", 2)], r"labels have \('b', 1\), features have None"),
        ([("a", 2), ("b", 2)], r"labels have \('b', 1\), features have \('b', 2\)"),
        ([("a", 2), ("b", 1), ("c", 1)], r"labels have None, features have \('c', 1\)"),
        ([("b", 1), ("a", 2)], r"labels have \('a', 2\), features have \('b', 1\)"),
    ],
)
def test_labels_of_other_utterances(
    store: Store, tmp_path: Path, listing: list[tuple[str, int]], message: str
) -> None:
    labels = put_label_rows(store, ("a", [[1, 2]]), ("b", [[3]]))
    with pytest.raises(ArtifactError, match=message):
        export_labels(labels, 0, tmp_path / "out", "t", listing)
    assert list((tmp_path / "out").iterdir()) == []


def test_labels_out_of_order(store: Store, tmp_path: Path) -> None:
    labels = put_label_rows(store, ("b", [[3]]), ("a", [[1, 2]]))
    with pytest.raises(ArtifactError, match="utterance 'a' follows 'b'"):
        export_labels(labels, 0, tmp_path / "out", "t")


@pytest.mark.parametrize("frames", [1, 2, 596, 4999])
def test_the_fewest_samples_for_so_many_frames(frames: int) -> None:
    assert num_frames(fewest_samples(frames)) == frames
    assert num_frames(fewest_samples(frames) - 1) == frames - 1
    assert fewest_samples(0) == 0


def test_a_listing_in_another_order_is_refused(store: Store, files: FairseqFiles) -> None:
    assert files.tsv is not None
    root, *lines = files.tsv.read_text().splitlines()
    files.tsv.write_text("\n".join([root, *sorted(lines)]) + "\n")
    with pytest.raises(ArtifactError) as caught:
        import_features(store, files, LAYER)
    assert "train.tsv: lists the utterances in another order than" in caught.value.message
    assert "line 4: 'b/2.wav' has 727 samples, so 1 to 2 frames" not in caught.value.message
    assert "line 2: 'a/0.wav' has 407 samples, so 0 to 1 frames, but 2 are given" in (
        caught.value.message
    )
    assert list_artifacts(store) == []


def test_a_listing_of_other_utterances_is_refused(store: Store, files: FairseqFiles) -> None:
    assert files.tsv is not None
    files.tsv.write_text("/corpus\na.wav\t720\nb.wav\t160000\nc.wav\t400\n")
    with pytest.raises(ArtifactError, match="lists other utterances than") as caught:
        import_features(store, files, LAYER)
    assert "line 3: 'b.wav' has 160000 samples, so 497 to 499 frames, but 3" in caught.value.message


def test_frames_that_are_lost_where_long_audio_is_cut_are_no_other_order(
    store: Store, files: FairseqFiles
) -> None:
    """fairseq extracts 250 s in chunks of 100 s: two frames fewer."""
    samples = 250 * 16_000
    frames = sum(num_frames(n) for n in (1_600_000, 1_600_000, 800_000))
    assert frames == num_frames(samples) - 2
    np.save(files.npy, np.zeros((frames, 2), "<f4"))
    files.lengths.write_text(f"{frames}\n")
    assert files.tsv is not None
    files.tsv.write_text(f"/corpus\na.wav\t{samples}\n")
    one = FairseqFiles(files.npy, files.lengths, files.tsv)
    assert list(stored(import_features(store, one, LAYER).features)) == ["a.wav"]


def test_the_handed_listing_in_another_order(store: Store, tmp_path: Path) -> None:
    folder = handed_case("features-tsv-in-another-order", tmp_path)
    with pytest.raises(ArtifactError, match="in another order") as caught:
        import_features(store, FairseqFiles.beside(folder / "train_0_1.npy"), 6)
    assert "'b.wav' has 13200 samples, so 39 to 41 frames" not in caught.value.message
    assert "'b.wav' has 13200 samples, so 40 to 41 frames, but 60 are given" in caught.value.message
