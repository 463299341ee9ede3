"""Codebooks and pseudo-labels: whose frames, which ids, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from support.labels import check_labels, label_counts
from support.one_process import FOLD, Tiny, finish
from support.plans import EVERYTHING, plan_of
from support.stored_features import DIM, put_features_of, spoken

from gmp_atl_dist.audio import frame_levels_db
from gmp_atl_dist.clustering.assignment import FaissAssigner, nearest_ids
from gmp_atl_dist.clustering.assignment_step import fit_in_memory
from gmp_atl_dist.clustering.sample import FrameSample, plan_sample
from gmp_atl_dist.clustering.state import Fit
from gmp_atl_dist.config import ClusterConfig, ClusterWorkersConfig, RuntimeConfig
from gmp_atl_dist.console import Reporter
from gmp_atl_dist.errors import ArtifactError, ConfigError, CorpusError, GmpAtlError, ModelError
from gmp_atl_dist.exchange.codebooks import import_codebook
from gmp_atl_dist.fold import Fold
from gmp_atl_dist.inference.stored_frames import FrameSelection, SelectedFrameReader
from gmp_atl_dist.stages.base import Context
from gmp_atl_dist.stages.cluster import Cluster, FitSize, pieces
from gmp_atl_dist.stages.frame_index import frame_index
from gmp_atl_dist.stages.label import HISTOGRAM_NAME, Label
from gmp_atl_dist.stages.layer_fit import LayerFit
from gmp_atl_dist.store.artifact import Artifact, find_artifact, list_artifacts
from gmp_atl_dist.store.codebooks import Codebook, FitRecord, read_codebooks
from gmp_atl_dist.store.labels import (
    UtteranceLabels,
    narrow,
    put_labels,
    read_labels,
    stream_labels,
)
from gmp_atl_dist.store.layout import claim_layout
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.readers import AudioReader, read_utterances
from gmp_atl_dist.store.training_set import TrainingSet
from gmp_atl_dist.store.writer import ArtifactWriter

pytest_plugins = ["support.one_process"]


@dataclass(frozen=True)
class Bench:
    tiny: Tiny
    context: Context

    @property
    def training(self) -> list[str]:
        return [u.utterance_id for u in FOLD.select(read_utterances(self.tiny.corpus), "train")]

    def features(
        self,
        ids: Sequence[str] | None = None,
        *,
        parts: int = 2,
        layers: Sequence[int] = (2, 3),
        change: Callable[[dict[str, np.ndarray]], object] = lambda _: None,
    ) -> Artifact:
        """Features of the training speakers, or of others; ``change`` does to them what it likes."""
        heard = self.training if ids is None else ids
        frames = {layer: spoken(self.tiny, heard, layer) for layer in layers}
        for of_layer in frames.values():
            change(of_layer)
        number = len(list_artifacts(self.context.store))
        return put_features_of(self.context, f"{number}", frames, parts)

    def cluster(
        self,
        features: Artifact,
        scales: Sequence[tuple[int, int] | Mapping[str, object]] = ((2, 4), (3, 5), (2, 7)),
        *,
        fold: Fold = FOLD,
        transductive: bool = False,
        sample: FrameSample = EVERYTHING,
        **keys: object,
    ) -> Artifact:
        asked = [dict(s) if isinstance(s, Mapping) else {"layer": s[0], "k": s[1]} for s in scales]
        config = ClusterConfig.model_validate({"scales": asked, **keys})
        training = TrainingSet(
            self.tiny.corpus,
            fold.transductive_speakers() if transductive else fold.training_speakers(),
        )
        return finish(Cluster(config, features, training, plan_of(sample)), self.context)

    def label(self, features: Artifact, codebooks: Artifact, fold: Fold = FOLD) -> Artifact:
        training = TrainingSet(self.tiny.corpus, fold.training_speakers())
        return finish(Label(features, codebooks, training), self.context)


@pytest.fixture
def bench(tiny: Tiny, tmp_path: Path, in_process: None) -> Bench:
    return Bench(tiny, tiny.with_root(tmp_path / "root"))


def test_every_scale_has_its_codebook(bench: Bench) -> None:
    codebooks = bench.cluster(bench.features())
    found = [
        (b.scale, b.layer, b.group, b.offset, b.centroids_KD.shape)
        for b in read_codebooks(codebooks)
    ]

    assert found == [
        (0, 2, "all", 0, (4, DIM)),
        (1, 3, "all", 0, (5, DIM)),
        (2, 2, "all", 0, (7, DIM)),
    ]
    assert label_counts(codebooks) == (4, 5, 7)


def heard(bench: Bench, features: Artifact, layer: int, **keys: object) -> dict[str, np.ndarray]:
    """What a fit hears of each group, in order."""
    selection = FrameSelection(
        TrainingSet(bench.tiny.corpus, FOLD.training_speakers()),
        features,
        **{"sample": EVERYTHING, "by_gender": False, "silence_db": None, **keys},  # pyright: ignore[reportArgumentType]
    )
    reader = SelectedFrameReader(selection, 1 << 34)
    found: dict[str, list[np.ndarray]] = {}
    for piece in pieces(features, layer, 256):
        names = json.loads(piece.payload)["parts"]
        for part in reader.parts(layer, names, 0):
            for group, x_MD in part.frames.items():
                found.setdefault(group, []).append(x_MD)
    return {group: np.concatenate(x) for group, x in found.items()}


@pytest.mark.parametrize("sample_frames", [10**6, 150])
def test_the_sample_does_not_depend_on_parts(bench: Bench, sample_frames: int) -> None:
    index = frame_index(TrainingSet(bench.tiny.corpus, FOLD.training_speakers()))
    config = ClusterConfig(sample_frames=sample_frames, sample_spread=2.0)
    ids, frames = index["utterance_id"].to_pylist(), index["num_frames"].to_numpy()
    sample = plan_sample(config, ids, [], frames)
    one, three = (
        heard(bench, bench.features(parts=parts), 2, sample=sample)["all"] for parts in (1, 3)
    )
    np.testing.assert_array_equal(one, three)
    assert 100 < len(one) <= sample_frames + 20


def test_the_same_twice_has_the_same_bytes(tiny: Tiny, tmp_path: Path, in_process: None) -> None:
    receipts = []
    for name in ("a", "b"):
        bench = Bench(tiny, tiny.with_root(tmp_path / name))
        receipts.append(bench.cluster(bench.features()).manifest.receipts)
    assert receipts[0] == receipts[1]


def test_the_size_of_parts_changes_no_label(bench: Bench) -> None:
    made = [bench.features(parts=parts) for parts in (1, 2, 7)]
    books = [read_codebooks(bench.cluster(features)) for features in made]
    for other in books[1:]:
        for a, b in zip(books[0], other, strict=True):
            # ClusterStatistics of fp16 are exact in fp64, so not even the last bit depends on parts.
            assert a.fingerprint == b.fingerprint


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_a_fit_over_stored_parts_is_the_fit_in_memory(bench: Bench, metric: str) -> None:
    """From the same start: centroids to 1e-4, labels to 99.99 %."""
    features = bench.features(parts=5)
    books = read_codebooks(bench.cluster(features, ((2, 4), (2, 9)), metric=metric))
    x_MD = heard(bench, features, 2)["all"]
    fits = [Fit("x", len(b.centroids_KD), 0, metric=metric) for b in books]  # pyright: ignore
    for book, state in zip(books, fit_in_memory(fits, {"all": x_MD}), strict=True):
        np.testing.assert_allclose(book.centroids_KD, state.centroids_KD, rtol=1e-4, atol=1e-5)
        stored, memory = (
            nearest_ids(FaissAssigner(c, metric), x_MD)  # pyright: ignore[reportArgumentType]
            for c in (book.centroids_KD, state.centroids_KD)
        )
        assert (stored == memory).mean() >= 0.9999


def test_memory_changes_no_byte(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    features = bench.features(parts=5)
    kept = bench.cluster(features).manifest.receipts
    monkeypatch.setattr(SelectedFrameReader, "_has_room", lambda *_: False)
    roots = replace(bench.context, store=type(bench.context.store)(bench.context.store.uri + "-2"))
    again = Bench(bench.tiny, roots)
    moved = put_features_of(
        roots,
        features.key.fingerprint,
        {n: spoken(bench.tiny, bench.training, n) for n in (2, 3)},
        5,
    )
    assert again.cluster(moved).manifest.receipts == kept


def test_the_torch_engine_fits_and_labels_what_faiss_does(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the same first centroids: the same assignments, and sums of fp16 are exact."""
    bench = replace(bench, context=replace(bench.context, reporter=Reporter(terminal=False)))
    features = bench.features(parts=5)
    by_faiss = bench.cluster(features)
    root = replace(bench.context, store=type(bench.context.store)(bench.context.store.uri + "-2"))
    other = by_torch(Bench(bench.tiny, root))
    moved = put_features_of(
        other.context,
        features.key.fingerprint,
        {n: spoken(bench.tiny, bench.training, n) for n in (2, 3)},
        5,
    )
    found = other.cluster(moved)
    for a, b in zip(read_codebooks(by_faiss), read_codebooks(found), strict=True):
        assert a.fingerprint == b.fingerprint
    labels = bench.label(features, by_faiss), other.label(moved, found)
    assert labels[0].manifest.receipts == labels[1].manifest.receipts
    said = capsys.readouterr().out
    assert said.count("nearest centroids by FAISS on the CPU (auto: FAISS without GPUs)") == 1
    words = 'nearest centroids by PyTorch on the CPU (runtime.cluster.engine = "torch")'
    assert said.count(words) == 1


@pytest.mark.parametrize("frames", [100, 10**9])
def test_pieces_on_gpus_hold_more_frames(bench: Bench, frames: int) -> None:
    features = bench.features(parts=5)
    assert len(pieces(features, 2, 256)) == 5
    found = pieces(features, 2, 256, frames)
    held = [json.loads(piece.payload)["parts"] for piece in found]
    names = [name for names in held for name in names]
    assert names == [json.loads(p.payload)["parts"][0] for p in pieces(features, 2, 256)]
    assert all(piece.cost >= frames / 2 for piece in found) or len(found) == 1


def test_gpus_keep_frames_and_one_process_does_more() -> None:
    size = FitSize(layer=9, frames=1_000_000, dim=768, clusters=500, pieces=40)
    by_cpus, by_gpus = (ClusterWorkersConfig(workers=8, gpus=gpus) for gpus in (0, 1))
    assert (size.processes(by_cpus), size.processes(by_gpus)) == (8, 1)
    assert "on 1 GPUs each, frames kept on the GPUs as far as there is room" in size.describe(
        by_gpus
    )
    assert replace(size, frames=100_000_000).processes(by_gpus) == 8


def test_a_test_speaker_in_the_features_stops_the_fit(bench: Bench) -> None:
    (planted,) = [
        u.utterance_id for u in FOLD.select(read_utterances(bench.tiny.corpus), "test")[:1]
    ]
    features = bench.features([*bench.training, planted])
    with pytest.raises(
        CorpusError, match=rf"utterance '{planted}' .* not of a training speaker of fold 'fold1'"
    ):
        bench.cluster(features)
    # The arm that says so by its name may hear it.
    assert label_counts(bench.cluster(features, transductive=True)) == (4, 5, 7)


def test_a_validation_speaker_stops_it_as_well(bench: Bench) -> None:
    (planted,) = FOLD.select(read_utterances(bench.tiny.corpus), "valid")[:1]
    with pytest.raises(CorpusError, match=planted.utterance_id):
        bench.cluster(bench.features([*bench.training, planted.utterance_id]))


def test_more_clusters_than_frames_name_the_scale(bench: Bench) -> None:
    features = bench.features()
    with pytest.raises(ConfigError, match=r"cluster\.scales\[1\] \(layer 3, all\): k = 5000"):
        bench.cluster(features, ((2, 4), (3, 5000)))


def test_labels_are_the_nearest_centroids(bench: Bench) -> None:
    features = bench.features()
    codebooks = bench.cluster(features)
    labels = bench.label(features, codebooks)
    found = {row.utterance_id: row for row in stream_labels(labels)}
    by_layer = {layer: spoken(bench.tiny, bench.training, layer) for layer in (2, 3)}

    assert list(found) == bench.training
    books = read_codebooks(codebooks)
    for book in books:
        for utterance_id, row in found.items():
            x_TD = by_layer[book.layer][utterance_id].astype(np.float64)
            distances = np.square(x_TD[:, None] - book.centroids_KD[None]).sum(axis=2)
            ids = row.ids[book.scale]
            assert ids.dtype == np.dtype("<i2")
            np.testing.assert_array_equal(ids, distances.argmin(axis=1))
            assert row.codebooks[book.scale] == book.fingerprint
    counts = check_labels(stream_labels(labels), books)
    total = sum(len(x) for x in by_layer[2].values())
    assert [len(c) for c in counts] == [4, 5, 7]
    assert [int(c.sum()) for c in counts] == [total] * 3
    kept = json.loads(labels.read_file(HISTOGRAM_NAME))
    assert kept == {"counts": [c.tolist() for c in counts]}


def test_genders_never_share_a_label(bench: Bench) -> None:
    features = bench.features()
    codebooks = bench.cluster(features, gender="by_gender")
    labels = read_labels(bench.label(features, codebooks))
    gender = {u.utterance_id: u.gender for u in read_utterances(bench.tiny.corpus)}

    assert [(b.scale, b.group, b.offset) for b in read_codebooks(codebooks)] == [
        *((0, "female", 0), (0, "male", 4)),
        *((1, "female", 0), (1, "male", 5)),
        *((2, "female", 0), (2, "male", 7)),
    ]
    assert label_counts(codebooks) == (8, 10, 14)
    for scale, k in enumerate((4, 5, 7)):
        ids = {
            g: np.concatenate([labels[u][scale] for u in labels if gender[u] == g])
            for g in ("female", "male")
        }
        assert ids["female"].max() < k <= ids["male"].min()
        assert ids["male"].max() < 2 * k


def test_a_gender_without_training_speakers_is_named(bench: Bench) -> None:
    women = Fold("women", ("Ses03F", "Ses04F"), ("Ses01F",))
    ids = [u.utterance_id for u in women.select(read_utterances(bench.tiny.corpus), "train")]
    with pytest.raises(
        CorpusError,
        match=r"cluster women: there is no frame of group 'male' in layer 2.*cluster\.gender",
    ):
        bench.cluster(bench.features(ids), fold=women, gender="by_gender")


def lines(k: int, scale: int = 0, **keys: object) -> Codebook:
    """A codebook of the numbers from 0 to k - 1."""
    centroids = np.arange(k, dtype=np.float32)[:, None]
    return Codebook(scale, 2, "all", 0, centroids, **keys)  # pyright: ignore[reportArgumentType]


BOOKS = (lines(2), lines(4, 1))


def rows_of(ids: Mapping[str, Sequence[Sequence[int]]]) -> Iterator[UtteranceLabels]:
    names = tuple(book.fingerprint for book in BOOKS)
    for name, scales in ids.items():
        found = tuple(np.array(values, dtype="<i2") for values in scales)
        yield UtteranceLabels(name, names[: len(found)], found)


def test_labels_are_counted() -> None:
    counts = check_labels(rows_of({"a": [[0, 1, 1], [3, 3, 3]], "b": [[1], [0]]}), BOOKS)
    assert [c.tolist() for c in counts] == [[1, 3], [1, 0, 0, 3]]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ({"a": [[0, 1], [0, 4]]}, r"'a': labels of scale 1 run from 0 to 4, expected 0 to 3"),
        ({"a": [[0, 1], [0, 1]], "b": [[-1], [0]]}, r"'b': labels of scale 0 run from -1 to -1"),
        ({"a": [[0, 1]]}, r"'a' has labels of 1 scales, expected 2"),
        ({"a": [[0, 1], [2]]}, r"'a': 1 labels of scale 1 and 2 of scale 0"),
        ({"a": [[0, 1], [2, 2]]}, r"scale 1: every frame has label 2, so a model can"),
        ({"a": [[], []]}, r"there is no label"),
        ({}, r"there is no label"),
    ],
)
def test_labels_that_teach_nothing_are_refused(
    ids: dict[str, list[list[int]]], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        check_labels(rows_of(ids), BOOKS)


def test_labels_of_another_codebook_are_refused_by_name() -> None:
    other = (BOOKS[0], lines(4, 1, metric="cosine"))
    with pytest.raises(
        ModelError,
        match=rf"'a': labels of scale 1 are of codebook {BOOKS[1].fingerprint[:12]}, expected "
        rf"{other[1].fingerprint[:12]}; label again",
    ):
        check_labels(rows_of({"a": [[0, 1], [2, 3]]}), other)


@pytest.mark.parametrize(("end", "dtype"), [(2, "<i2"), (32_768, "<i2"), (32_769, "<i4")])
def test_ids_take_two_bytes_where_two_are_enough(bench: Bench, end: int, dtype: str) -> None:
    ids = narrow(np.array([0, end - 1, 1], dtype=np.int32), end)
    assert ids.dtype == np.dtype(dtype)
    out = ArtifactWriter(bench.context.store, ArtifactKey("label", str(end)))
    put_labels(out, "part", [UtteranceLabels("a", ("x",), (ids,))])
    labels = out.seal(version=1, science={}, inputs={})
    (found,) = read_labels(labels)["a"]
    assert found.dtype == ids.dtype
    assert found.tolist() == [0, end - 1, 1]


def test_another_scale_fits_that_scale_alone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    features = bench.features()
    before = read_codebooks(bench.cluster(features, ((2, 4), (3, 5))))
    fitted: list[tuple[int, int]] = []
    run = LayerFit.run

    def watched(self: LayerFit, pool: object) -> list[Artifact]:
        fitted.extend((fit.scale.layer, fit.scale.k) for fit in self.scales)
        return run(self, pool)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(LayerFit, "run", watched)
    after = read_codebooks(bench.cluster(features, ((2, 4), (2, 7), (3, 5))))

    assert fitted == [(2, 7)]
    assert [b.fingerprint for b in (after[0], after[2])] == [b.fingerprint for b in before]
    assert [b.fit for b in (after[0], after[2])] == [b.fit for b in before]
    # Beside others it is what it is alone.
    alone = Bench(bench.tiny, bench.tiny.with_root(Path(bench.context.store.uri[7:] + "-alone")))
    (book,) = read_codebooks(alone.cluster(alone.features(), ((2, 7),)))
    assert book.fingerprint == after[1].fingerprint


def test_each_scale_may_have_a_seed_of_its_own(bench: Bench) -> None:
    features = bench.features()
    scales = (
        {"layer": 2, "k": 5},
        {"layer": 2, "k": 5, "seed": 8},
        {"layer": 2, "k": 5, "seed": 0},
    )
    books = read_codebooks(bench.cluster(features, scales))
    assert [b.fit.seed for b in books if b.fit] == [0, 8, 0]
    assert books[0].fingerprint == books[2].fingerprint != books[1].fingerprint


def test_a_fit_tells_of_itself(bench: Bench) -> None:
    features = bench.features()
    total = sum(len(x) for x in spoken(bench.tiny, bench.training, 2).values())
    (book,) = read_codebooks(bench.cluster(features, ((2, 4),), iterations=6))
    assert book.fit is not None
    assert book.fit.frames == total
    assert 1 <= book.fit.iterations <= 6
    assert book.fit.mean_squared_distances[-1] < book.fit.mean_squared_distances[0]
    assert book.fit.stability is not None
    assert -0.1 < book.fit.stability <= 1
    (without,) = read_codebooks(
        bench.cluster(features, ((2, 4),), iterations=6, stability_frames=0)
    )
    assert without.fit is not None
    assert without.fit.stability is None
    assert without.fingerprint == book.fingerprint


def test_quiet_frames_can_be_left_out(bench: Bench) -> None:
    features = bench.features()
    utterances = {u.utterance_id: u for u in read_utterances(bench.tiny.corpus)}
    audio = AudioReader(bench.tiny.corpus)
    loud = [
        spoken(bench.tiny, [i], 2)[i][frame_levels_db(audio.samples(utterances[i])) >= -20]
        for i in bench.training
    ]
    found = heard(bench, features, 2, silence_db=20.0)["all"]
    np.testing.assert_array_equal(found, np.concatenate(loud))
    everything = heard(bench, features, 2)["all"]
    assert 0 < len(found) < len(everything)
    (book,) = read_codebooks(bench.cluster(features, ((2, 4),), silence="drop", silence_db=20.0))
    assert book.fit is not None
    assert book.fit.frames == len(found)


def by_torch(bench: Bench) -> Bench:
    """The same root; frames are assigned by PyTorch."""
    settings = RuntimeConfig(cluster=ClusterWorkersConfig(engine="torch"))
    return replace(bench, context=replace(bench.context, settings=settings))


@pytest.mark.parametrize("engine", ["faiss", "torch"])
@pytest.mark.parametrize("quiet", ["kept", "dropped"])
def test_frames_that_are_not_finite_are_named(bench: Bench, engine: str, quiet: str) -> None:
    """By their number in the utterance, also where not all of its frames are read."""
    bench = by_torch(bench) if engine == "torch" else bench
    utterances = {u.utterance_id: u for u in read_utterances(bench.tiny.corpus)}
    audio = AudioReader(bench.tiny.corpus)
    levels = {i: frame_levels_db(audio.samples(utterances[i])) for i in bench.training}
    # One with a quiet frame before its last loud one.
    victim, frame = next(
        (i, int(np.flatnonzero(x >= -20)[-1]))
        for i, x in list(levels.items())[1:]
        if np.diff(np.flatnonzero(x >= -20), prepend=-1).max() > 1
    )

    def spoil(frames: dict[str, np.ndarray]) -> None:
        frames[victim][frame, 1] = np.nan

    features = bench.features(change=spoil)
    silence = "drop" if quiet == "dropped" else "keep"
    with pytest.raises(
        ArtifactError,
        match=rf"features of utterance '{victim}', layer 2, .* not finite at frame {frame}; run",
    ):
        # First centroids are chosen among frames that may be the bad ones.
        bench.cluster(
            features, ((2, 4),), init="random", stability_frames=0, silence=silence, silence_db=20.0
        )


def cut_short(frames: dict[str, np.ndarray]) -> None:
    name = sorted(frames)[2]
    frames[name] = frames[name][:-1]


def test_features_that_do_not_fit_the_audio_stop_it(bench: Bench) -> None:
    short = bench.features(change=cut_short)
    with pytest.raises(ArtifactError, match=r"has \d+ frames of layer 2 .*, its audio gives \d+"):
        bench.cluster(short)
    codebooks = bench.cluster(bench.features())
    with pytest.raises(ArtifactError, match=r"has \d+ frames of layer 2 .*, its audio gives \d+"):
        bench.label(short, codebooks)


def test_an_utterance_without_labels_stops_it(bench: Bench) -> None:
    codebooks = bench.cluster(bench.features())
    fewer = bench.features(bench.training[:-1])
    with pytest.raises(ArtifactError, match=rf"(?s)does not fit the corpus.*{bench.training[-1]}"):
        bench.label(fewer, codebooks)
    # What was refused is not there.
    assert not [key for key in list_artifacts(bench.context.store) if key.kind == "label"]


def test_a_test_speaker_is_not_labelled_either(bench: Bench) -> None:
    codebooks = bench.cluster(bench.features())
    (planted,) = FOLD.select(read_utterances(bench.tiny.corpus), "test")[:1]
    features = bench.features([*bench.training, planted.utterance_id])
    with pytest.raises(CorpusError, match=planted.utterance_id):
        bench.label(features, codebooks)


@pytest.mark.parametrize(
    ("layer", "dim", "message"),
    [
        (2, DIM + 1, r"codebook \w{12} has centroids of 7 values, features of utterance .* have 6"),
        (4, DIM, r"holds no features of layer 4"),
    ],
)
def test_a_codebook_of_another_model_is_refused(
    bench: Bench, layer: int, dim: int, message: str
) -> None:
    frames = {layer: spoken(bench.tiny, bench.training, layer, dim)}
    foreign = bench.cluster(put_features_of(bench.context, "foreign", frames, 2), ((layer, 4),))
    with pytest.raises(GmpAtlError, match=message):
        bench.label(bench.features(), foreign)


def test_an_imported_codebook_is_used_as_it_is(bench: Bench, tmp_path: Path) -> None:
    claim_layout(bench.context.store)
    features = bench.features()
    centroids = np.random.default_rng(0).normal(size=(5, DIM)).astype(np.float32)
    np.save(tmp_path / "theirs.npy", centroids)
    imported = import_codebook(
        bench.context.store, tmp_path / "theirs.npy", 3, fitted_on="random numbers"
    )
    name = imported.key.fingerprint[:12]
    scales = ({"layer": 2, "k": 4}, {"layer": 3, "k": 5, "codebook": name})
    books = read_codebooks(bench.cluster(features, scales))

    assert books[1].origin == "imported from theirs.npy"
    assert books[1].fit is None
    np.testing.assert_array_equal(books[1].centroids_KD, centroids)
    labels = bench.label(features, bench.cluster(features, scales))
    assert next(stream_labels(labels)).codebooks[1] == books[1].fingerprint
    for wrong in ({"layer": 2, "k": 5}, {"layer": 3, "k": 6}):
        with pytest.raises(ConfigError, match=rf"cluster\.scales\[0\]: codebook {name} is of"):
            bench.cluster(features, ({**wrong, "codebook": name},))
    with pytest.raises(ArtifactError, match=r"begins the fingerprint of 0 codebook artefacts"):
        bench.cluster(features, ({"layer": 3, "k": 5, "codebook": "f" * 12},))


class Killed(BaseException):
    """A dead driver, from inside."""


def test_a_dead_driver_loses_one_update_at_most(
    tiny: Tiny, tmp_path: Path, in_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kill of a real process is in tests/faults/test_killed_cluster.py."""
    benches = [Bench(tiny, tiny.with_root(tmp_path / name)) for name in ("whole", "killed")]
    keys = {"iterations": 9, "tolerance": 0.0}
    whole = benches[0].cluster(benches[0].features(), **keys)
    save, saved = LayerFit._save, []

    def dying(self: LayerFit, *arguments: object) -> None:
        save(self, *arguments)  # pyright: ignore[reportArgumentType]
        saved.append(arguments)
        if len(saved) == 8:
            raise Killed

    features = benches[1].features()
    with monkeypatch.context() as patch:
        patch.setattr(LayerFit, "_save", dying)
        with pytest.raises(Killed):
            benches[1].cluster(features, **keys)
    folder = tmp_path / "killed" / "artifacts" / "codebook"
    assert len(list(folder.rglob("lloyd/*.safetensors"))) == 2
    # One of the two is damaged, and begins anew.
    next(folder.rglob("lloyd/*.safetensors")).write_bytes(b"cut short")
    assert benches[1].cluster(features, **keys).manifest.receipts == whole.manifest.receipts
    assert not list(folder.rglob("lloyd/*.safetensors"))
    assert find_artifact(benches[1].context.store, whole.key) is not None


def test_the_record_of_a_fit_ends_with_the_final_centroids() -> None:
    fit = FitRecord(seed=0, frames=10, mean_squared_distances=(3.0, 2.0, 1.5), relocated=0)
    assert (fit.mean_squared_distance, fit.iterations) == (1.5, 2)
