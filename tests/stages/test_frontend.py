"""Outputs of a frozen convolutional encoder: training with and without them, and when they are kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.kernels import KernelCounter
from support.lanes import LateLane
from support.one_process import FOLD, OneRank, Tiny, finish, train_here
from transformers import HubertConfig

from gmp_atl_dist.audio import num_frames, pcm16_to_float
from gmp_atl_dist.config import (
    FinetuneConfig,
    Json,
    RetrainConfig,
    RuntimeConfig,
    TrainWorkersConfig,
    WarmupConfig,
)
from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.fold import Fold
from gmp_atl_dist.inference.frontend import FrontendArgument, FrontendWorker
from gmp_atl_dist.models.flops import frame_flops
from gmp_atl_dist.models.hubert import Hubert
from gmp_atl_dist.models.sizes import NAMED_SIZES
from gmp_atl_dist.models.slot_conv import SlotConv
from gmp_atl_dist.models.source import backbone_from_files
from gmp_atl_dist.recipes.warmup import WarmupRecipe
from gmp_atl_dist.records import StoredUtterance
from gmp_atl_dist.stages.base import Context, find_or_run
from gmp_atl_dist.stages.finetune import Finetune
from gmp_atl_dist.stages.frontend import Frontend, encoder_digest
from gmp_atl_dist.stages.retrain import Retrain
from gmp_atl_dist.stages.warmup import Warmup
from gmp_atl_dist.store import frontend as store_frontend
from gmp_atl_dist.store.artifact import Artifact, list_artifacts
from gmp_atl_dist.store.codebooks import Codebook, put_codebooks
from gmp_atl_dist.store.frontend import FrontendReader
from gmp_atl_dist.store.labels import UtteranceLabels, put_labels
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.readers import AudioReader, read_curves, read_utterances
from gmp_atl_dist.store.training_set import TrainingSet
from gmp_atl_dist.store.writer import ArtifactWriter
from gmp_atl_dist.training.loop import TrainJob

pytest_plugins = ["support.one_process"]
pytestmark = pytest.mark.usefixtures("in_process")

SHORT: dict[str, Json] = {"batch_s": 3.0, "lr": 1e-3, "dropout": 0.1, "freeze_conv": True}
OTHER_FOLD = Fold(
    name="fold2",
    test_speakers=FOLD.valid_speakers,
    valid_speakers=FOLD.train_speakers[:2],
    train_speakers=(*FOLD.test_speakers, *FOLD.train_speakers[2:]),
)
BOOKS = tuple(
    Codebook(i, 2, "all", 0, np.arange(k, dtype=np.float32)[:, None]) for i, k in enumerate((40, 3))
)


class Lines:
    """A reporter's lines."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, context: Context) -> None:
        self.said: list[str] = []
        monkeypatch.setattr(context.reporter, "line", self.said.append)

    def of(self, label: str) -> str:
        (line,) = [line for line in self.said if line.startswith(f"{label}: the frozen")]
        return line


@dataclass(frozen=True)
class Bench:
    """The tiny corpus and a store of its own, in which front ends are kept or not."""

    tiny: Tiny
    context: Context

    def warmup(self, fold: Fold = FOLD, **keys: Json) -> Artifact:
        config = WarmupConfig.model_validate({**SHORT, "epochs": 2, **keys})
        return finish(Warmup(config, self.tiny.corpus, self.tiny.backbone, fold), self.context)

    def retrain(self, **keys: Json) -> Artifact:
        config = RetrainConfig.model_validate({**SHORT, "steps": 4, "projection_dim": 16, **keys})
        codebooks = ArtifactWriter(self.context.store, ArtifactKey("cluster", "c" * 64))
        put_codebooks(codebooks, BOOKS)
        labels = ArtifactWriter(self.context.store, ArtifactKey("label", "1" * 64))
        put_labels(labels, "part", [_labels(u.utterance_id, u.num_samples) for u in self.learnt])
        stage = Retrain(
            config,
            self.tiny.backbone,
            codebooks.seal(version=1, science={}, inputs={}),
            labels.seal(version=1, science={}, inputs={}),
            TrainingSet(self.tiny.corpus, FOLD.training_speakers()),
        )
        return finish(stage, self.context)

    def finetune(self, retrained: Artifact, **keys: Json) -> Artifact:
        config = FinetuneConfig.model_validate(
            {**SHORT, "epochs": 2, "embedding_dim": 16, "select": "valid", **keys}
        )
        return finish(Finetune(config, self.tiny.corpus, retrained, FOLD, "valid"), self.context)

    @property
    def learnt(self) -> tuple[StoredUtterance, ...]:
        return FOLD.select(read_utterances(self.tiny.corpus), "train")

    @property
    def frontends(self) -> list[ArtifactKey]:
        return [key for key in list_artifacts(self.context.store) if key.kind == "frontend"]


def _labels(utterance_id: str, num_samples: int) -> UtteranceLabels:
    frames = np.arange(num_frames(num_samples), dtype="<i2")
    names = tuple(book.fingerprint for book in BOOKS)
    return UtteranceLabels(utterance_id, names, (frames % 40, frames % 3))


def bench(tiny: Tiny, root: Path, *, keep: bool) -> Bench:
    settings = RuntimeConfig(train=TrainWorkersConfig(frontend_cache=keep))
    return Bench(tiny, replace(tiny.with_root(root), settings=settings))


@pytest.fixture
def keeping(tiny: Tiny, tmp_path: Path) -> Bench:
    return bench(tiny, tmp_path / "kept", keep=True)


def same_result(a: Artifact, b: Artifact) -> bool:
    return a.manifest.receipts == b.manifest.receipts


def test_with_and_without_it_the_result_is_the_same_bytes(
    tiny: Tiny, keeping: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In all three stages, with dropout, masks and the choice of an epoch; and audio is never read."""
    plain = bench(tiny, tmp_path / "plain", keep=False)
    expected = [plain.warmup(), plain.retrain()]
    expected.append(plain.finetune(expected[1]))
    assert plain.frontends == []

    def no_audio(*_: object) -> np.ndarray:
        raise AssertionError("audio is read")

    monkeypatch.setattr(AudioReader, "samples", no_audio)
    found = [keeping.warmup(), keeping.retrain()]
    found.append(keeping.finetune(found[1]))

    for mine, theirs in zip(found, expected, strict=True):
        assert mine.key == theirs.key, "it is no science"
        assert read_curves(mine) == read_curves(theirs)
        assert same_result(mine, theirs), mine.key.kind
    assert len(keeping.frontends) == 1, "the encoder is the stock one's in all of them"


def test_folds_share_it(keeping: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = Lines(monkeypatch, keeping.context)
    keeping.warmup()
    keeping.warmup(OTHER_FOLD)

    (key,) = keeping.frontends
    assert f"frontend: running, {key.fingerprint[:12]}" in lines.said
    assert f"frontend: done before, {key.fingerprint[:12]}" in lines.said
    assert lines.of("warmup fold2").endswith("; they are stored")


def test_another_encoder_has_another(keeping: Bench) -> None:
    """Whatever the name of the stage: what was trained is not what was frozen."""
    frozen, trained = keeping.retrain(), keeping.retrain(freeze_conv=False)
    assert encoder_digest(frozen) == encoder_digest(keeping.tiny.backbone)
    assert encoder_digest(trained) != encoder_digest(frozen)
    (before,) = keeping.frontends
    keeping.finetune(trained, epochs=1)
    assert len(keeping.frontends) == 2
    keeping.finetune(frozen, epochs=1)
    assert len(keeping.frontends) == 2
    assert before in keeping.frontends


def test_where_something_is_cropped_it_is_not_used(
    keeping: Bench, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = Lines(monkeypatch, keeping.context)
    artifact = keeping.warmup(max_utterance_s=0.45)

    assert keeping.frontends == []
    assert "they are not stored, because warmup.max_utterance_s = 0.45 crops" in lines.of(
        "warmup fold1"
    )
    plain = bench(tiny, tmp_path / "plain", keep=False)
    assert same_result(artifact, plain.warmup(max_utterance_s=0.45))


def test_an_encoder_that_is_trained_is_not_kept(
    keeping: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = Lines(monkeypatch, keeping.context)
    keeping.warmup(freeze_conv=False, epochs=1)
    assert keeping.frontends == []
    assert lines.said == []


def test_what_it_takes_and_saves_is_said_either_way(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = bench(tiny, tmp_path, keep=False)
    lines = Lines(monkeypatch, plain.context)
    plain.warmup()
    samples = sum(u.num_samples for u in read_utterances(tiny.corpus))
    heard = sum(u.num_samples for u in plain.learnt)
    line = lines.of("warmup fold1")

    assert f"reads {heard / 16000 / 3600:.3g} h in each of 2 epochs" in line
    assert f"outputs take {4 * 32 * samples / 320 / 1e9:.3g} GB and one pass over" in line
    assert line.endswith(
        "once for all folds; they are not stored: runtime.train.frontend_cache = false"
    )


def test_a_job_reads_it_wherever_it_comes_from(keeping: Bench, tiny: Tiny, tmp_path: Path) -> None:
    """What a benchmark does: the same recipe with and without."""
    config = WarmupConfig.model_validate({**SHORT, "epochs": 1})
    recipe = WarmupRecipe(config, tiny.corpus, tiny.backbone, FOLD.training_speakers())
    kept = find_or_run(Frontend(tiny.corpus, tiny.backbone), keeping.context)
    done: list[bytes] = []
    for name, frontend in (("with", kept), ("without", None)):
        store = tiny.with_root(tmp_path / name).store
        key = ArtifactKey("warmup", "f" * 64)
        train_here(TrainJob(recipe, store, key, TrainWorkersConfig(), frontend), OneRank())
        done.append(store.read(f"{key.prefix}/files/model.safetensors"))
    assert done[0] == done[1]


def test_rows_are_those_of_the_corpus_from_any_budget(
    keeping: Bench, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Several row groups a part, so that there is something to let go of.
    monkeypatch.setattr("gmp_atl_dist.store.features._ROW_GROUP_BYTES", 10_000)
    kept = find_or_run(Frontend(tiny.corpus, tiny.backbone), keeping.context)
    assert kept.verify() == []
    hubert = backbone_from_files(tiny.backbone.read_files())
    audio, wide, narrow = AudioReader(tiny.corpus), FrontendReader(kept), FrontendReader(kept, 1)
    utterances = read_utterances(tiny.corpus)
    for i in np.random.default_rng(0).permutation(len(utterances)):
        u = utterances[int(i)]
        wave_BN = torch.from_numpy(pcm16_to_float(audio.samples(u)))[None]
        with torch.no_grad():
            frames = hubert.forward_frames(wave_BN, torch.tensor([u.num_samples]), want=[0])
        torch.testing.assert_close(
            torch.from_numpy(wide.frames(u).copy())[None],
            frames.conv_features_BTC,
            rtol=0,
            atol=1e-5,
        )
        assert np.array_equal(narrow.frames(u), wide.frames(u))
    assert len(narrow._groups) == 1
    assert len(wide._groups) > len(kept.part_names)

    with pytest.raises(ArtifactError, match=r"is not of utterance 'other'; run gmp-atl verify"):
        wide.frames(replace(utterances[0], utterance_id="other"))
    with pytest.raises(ArtifactError, match=r"row 999 of part"):
        wide.frames(replace(utterances[0], row=999))


def test_a_part_of_a_gpu_is_few_kernels_and_copies(
    tiny: Tiny, keeping: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The branch of a GPU on a CPU. It took two kernels per recording before the encoder."""
    lane = LateLane()
    monkeypatch.setattr("gmp_atl_dist.inference.frontend.current_lane", lambda: lane)
    key = ArtifactKey("frontend", "9" * 64)
    worker = FrontendWorker(FrontendArgument(tiny.corpus, tiny.backbone, tiny.context.store, key))
    rng = np.random.default_rng(0)
    clips = [(3000 * rng.standard_normal(n)).astype("<i2") for n in (400, 16_000, 719, 5000)]
    expected = worker._features(clips)
    hubert = backbone_from_files(tiny.backbone.read_files())
    assert isinstance(hubert, Hubert)
    worker._front_end = SlotConv(hubert, torch.float32)
    lane.sent = lane.fetched = 0
    found = worker._features(clips)
    assert (lane.sent, lane.fetched) == (2, 1)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)

    def kernels(clips: list[np.ndarray]) -> int:
        with KernelCounter() as counter:
            worker._features(clips)
        return counter.kernels

    assert kernels(clips * 5) == kernels(clips)


def test_the_budget_holds_a_window_of_the_plan() -> None:
    window_bytes = (3 * 3600 + 600) * 50 * 512 * 4
    assert window_bytes < store_frontend._CACHE_BYTES


def test_products_of_hubert_base() -> None:
    """By hand, for 5 s: a layer is 4 products with D x D, 2 with D x 4 D, and two of attention."""
    flops = frame_flops(HubertConfig.from_dict(dict(NAMED_SIZES["base"])), 250)
    conv = 2 * 512 * (64 * 10 + 512 * 3 * (32 + 16 + 8 + 4) + 512 * 2 * (2 + 1))
    layers = 12 * 2 * (12 * 768**2 + 2 * 250 * 768)
    assert flops.conv == conv
    assert flops.rest == layers + 2 * 512 * 768 + 2 * 128 * 48 * 768
    assert flops.forward_share == pytest.approx(0.346, abs=0.01)
    assert flops.update_share == pytest.approx(0.15, abs=0.01)
