"""Codebooks to and from fairseq's joblib k-means and .npy; nothing in a file is ever run."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.linear_model import LinearRegression

from gmp_atl_dist.cli.main import main
from gmp_atl_dist.clustering.assignment import FaissAssigner, nearest_ids
from gmp_atl_dist.clustering.frame_arrays import unit_rows
from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.exchange.codebooks import (
    all_codebooks,
    export_codebook,
    find_codebooks,
    import_codebook,
)
from gmp_atl_dist.exchange.kmeans_files import read_centroids, write_centroids
from gmp_atl_dist.store.codebooks import Codebook, FitRecord, put_codebooks, read_codebooks
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.layout import claim_layout
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.writer import ArtifactWriter

RNG = np.random.default_rng(0)
X_MD = RNG.normal(size=(300, 5)).astype(np.float32)
ONCE: dict[str, Any] = {"n_init": 1}
CENTROIDS_KD = RNG.normal(size=(7, 5)).astype(np.float32)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "root"))


@pytest.mark.parametrize(
    "model",
    [
        MiniBatchKMeans(7, batch_size=100, **ONCE, compute_labels=False, random_state=0),
        MiniBatchKMeans(7, **ONCE, random_state=np.random.RandomState(3)),
        KMeans(7, **ONCE),
        KMeans(7, **ONCE, random_state=np.random.RandomState(3)),
    ],
)
def test_a_kmeans_as_fairseq_dumps_it_is_read(tmp_path: Path, model: Any) -> None:
    model.fit(X_MD)
    joblib.dump(model, tmp_path / "km.bin")
    found = read_centroids(tmp_path / "km.bin")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, model.cluster_centers_.astype(np.float32))


@pytest.mark.parametrize("name", ["km.bin", "km.npy"])
def test_what_is_written_is_read_bit_for_bit(tmp_path: Path, name: str) -> None:
    write_centroids(tmp_path / "new" / name, CENTROIDS_KD)
    assert read_centroids(tmp_path / "new" / name).tobytes() == CENTROIDS_KD.tobytes()
    assert [p.name for p in (tmp_path / "new").iterdir()] == [name]


def test_what_fairseq_does_with_our_file_gives_our_labels(tmp_path: Path) -> None:
    """``ApplyKmeans`` of dump_km_label.py, and scikit-learn's own predict()."""
    write_centroids(tmp_path / "km.bin", CENTROIDS_KD)
    model = joblib.load(tmp_path / "km.bin")
    c_DK = model.cluster_centers_.transpose()
    distances = (X_MD**2).sum(1, keepdims=True) - 2 * X_MD @ c_DK + (c_DK**2).sum(0)
    ours = nearest_ids(FaissAssigner(CENTROIDS_KD), X_MD)
    np.testing.assert_array_equal(distances.argmin(axis=1), ours)
    np.testing.assert_array_equal(model.predict(X_MD), ours)


class Bomb:
    """A pickle that runs something when it is loaded."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (self._path, "w")


@pytest.mark.parametrize("inside", [False, True])
def test_nothing_in_a_file_is_run(tmp_path: Path, inside: bool) -> None:
    bomb: Any = Bomb(str(tmp_path / "exploded"))
    model: Any = MiniBatchKMeans(7, **ONCE).fit(X_MD)
    if inside:
        model.cluster_centers_ = np.array([bomb], dtype=object)
    joblib.dump(model if inside else bomb, tmp_path / "km.bin")
    with pytest.raises(ArtifactError, match=r"km\.bin: is not a k-means.* it names _?io\.open"):
        read_centroids(tmp_path / "km.bin")
    assert not (tmp_path / "exploded").exists()


def as_is(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("km.bin", as_is(b""), "is not a k-means"),
        ("km.bin", as_is(b"not a pickle"), "is not a k-means"),
        (
            "km.bin",
            as_is(pickle.dumps({"cluster_centers_": [1]})),
            "contains a dict, expected a fitted",
        ),
        (
            "km.bin",
            lambda p: joblib.dump(MiniBatchKMeans(3), p),
            "contains a MiniBatchKMeans, expected",
        ),
        ("km.bin", lambda p: joblib.dump(LinearRegression(), p), r"it names sklearn\.linear_model"),
        ("km.bin", lambda p: joblib.dump(X_MD, p), "contains a ndarray, expected a fitted"),
        (
            "km.bin",
            lambda p: joblib.dump(KMeans(3, **ONCE).fit(X_MD), p, compress=3),
            "uncompressed",
        ),
        ("km.npy", as_is(b"\x93NUMPY"), "cannot be read as an array of numbers"),
        ("km.npy", lambda p: np.save(p, np.array([object()])), "cannot be read as an array"),
        ("km.npy", lambda p: np.save(p, X_MD[0]), r"centroids are \(5,\), expected"),
        ("km.npy", lambda p: np.save(p, np.zeros((0, 5), np.float32)), r"are \(0, 5\), expected"),
        ("km.npy", lambda p: np.save(p, np.ones((2, 5), np.int64)), "expected floating-point"),
        ("km.npy", lambda p: np.save(p, np.array([[1.0], [1e300]])), "centroid 1 is not finite"),
        ("gone.npy", lambda p: None, "cannot be read"),
        ("gone.bin", lambda p: None, "cannot be read"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_files_that_hold_no_centroids_are_named(
    tmp_path: Path, name: str, write: Callable[[Path], object], message: str
) -> None:
    write(tmp_path / name)
    with pytest.raises(ArtifactError, match=message) as e:
        read_centroids(tmp_path / name)
    assert name in e.value.message


def test_a_cut_file_is_named(tmp_path: Path) -> None:
    write_centroids(tmp_path / "km.bin", CENTROIDS_KD)
    data = (tmp_path / "km.bin").read_bytes()
    for size in range(0, len(data), 37):
        (tmp_path / "cut.bin").write_bytes(data[:size])
        with pytest.raises(ArtifactError, match=r"cut\.bin"):
            read_centroids(tmp_path / "cut.bin")


def test_import_and_export_keep_every_bit(store: Store, tmp_path: Path) -> None:
    np.save(tmp_path / "theirs.npy", CENTROIDS_KD)
    imported = import_codebook(store, tmp_path / "theirs.npy", 9)
    assert import_codebook(store, tmp_path / "theirs.npy", 9).key == imported.key
    assert import_codebook(store, tmp_path / "theirs.npy", 6).key != imported.key
    assert len(all_codebooks(store)) == 2
    (book,) = read_codebooks(imported)
    assert (book.layer, book.group, book.offset, book.fit) == (9, "all", 0, None)
    export_codebook(imported, tmp_path / "ours.npy", 0)
    assert (tmp_path / "ours.npy").read_bytes() == (tmp_path / "theirs.npy").read_bytes()
    with pytest.raises(
        ArtifactError, match=r"no codebook of scale 1 and group 'all'; it has scale 0"
    ):
        export_codebook(imported, tmp_path / "ours.npy", 1)


def test_a_cosine_codebook_has_unit_length(store: Store, tmp_path: Path) -> None:
    np.save(tmp_path / "c.npy", CENTROIDS_KD)
    with pytest.raises(
        ArtifactError, match=r"centroid \d has length [\d.]+, expected 1 for the cosine"
    ):
        import_codebook(store, tmp_path / "c.npy", 9, "cosine")
    np.save(tmp_path / "c.npy", unit_rows(CENTROIDS_KD))
    (book,) = read_codebooks(import_codebook(store, tmp_path / "c.npy", 9, "cosine"))
    assert book.metric == "cosine"


def test_a_codebook_whose_centroids_were_changed_is_refused(store: Store) -> None:
    out = ArtifactWriter(store, ArtifactKey("codebook", "a" * 64))
    book = Codebook(0, 9, "all", 0, CENTROIDS_KD)
    vars(book)["fingerprint"] = "0" * 64
    put_codebooks(out, [book])
    with pytest.raises(ArtifactError, match=r"layer 9 is \w{12}, its row says 000000000000"):
        read_codebooks(out.seal(version=1, science={}, inputs={}))


def test_an_ambiguous_fingerprint_lists_what_there_is(store: Store) -> None:
    for name in ("ab" * 32, "ac" * 32):
        out = ArtifactWriter(store, ArtifactKey("codebook", name))
        put_codebooks(out, [Codebook(0, 9, "all", 0, CENTROIDS_KD)])
        out.seal(version=1, science={}, inputs={})
    assert find_codebooks(store, "ab").key.fingerprint == "ab" * 32
    with pytest.raises(ArtifactError, match=r"begins the fingerprint of 2 .*abababababab, acac"):
        find_codebooks(store, "a")


def test_the_commands(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = store.uri
    claim_layout(store)
    out = ArtifactWriter(store, ArtifactKey("codebook", "d" * 64))
    record = FitRecord(3, 1234, (9.0, 4.5), 1, 0.75)
    put_codebooks(
        out,
        [
            Codebook(0, 6, "female", 0, CENTROIDS_KD, fit=record),
            Codebook(0, 6, "male", 7, CENTROIDS_KD + 1, fit=record),
        ],
    )
    out.seal(version=1, science={}, inputs={})
    assert main(["codebook", "show", "--root", root]) == 0
    shown = capsys.readouterr().out
    for word in ("dddddddddddd", "female", "7-13", "1234", "4.5", "0.750", "7 x 5"):
        assert word in shown
    target = tmp_path / "male.bin"
    command = ["codebook", "export", "dddddd", "--group", "male", "--out", str(target)]
    assert main([*command, "--root", root]) == 0
    np.testing.assert_array_equal(read_centroids(target), CENTROIDS_KD + 1)
    capsys.readouterr()
    assert main(["codebook", "import", str(target), "--layer", "6", "--root", root]) == 0
    said = capsys.readouterr().out
    assert "7 x 5 of layer 6" in said
    fingerprint = said.split()[1].rstrip(":")
    assert main(["codebook", "show", fingerprint[:9], "--root", root]) == 0
    assert "imported from male.bin" in capsys.readouterr().out
    assert main(["codebook", "show", "eeeeee", "--root", root]) == ArtifactError.exit_code
    wrong = ["codebook", "import", str(target), "--layer", "6", "--root", root, "--metric", "l1"]
    assert main(wrong) == 2
    assert "'l1' is neither euclidean nor cosine" in capsys.readouterr().err
