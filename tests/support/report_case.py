"""Realistic reports of seeded noise, and a record of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gmp_atl_dist.audio_measures import AudioTable
from gmp_atl_dist.config import AuditConfig, RunConfig
from gmp_atl_dist.metrics import cluster_quality_from_joint, joint_counts
from gmp_atl_dist.report.audio_content import AudioContent, audit_of
from gmp_atl_dist.report.calibration import Calibration
from gmp_atl_dist.report.codebook_content import (
    CentroidMap,
    CodebookContent,
    FitContent,
    TimelineContent,
    TimelineScale,
)
from gmp_atl_dist.report.content import (
    FoldContent,
    Outcome,
    PooledContent,
    ReportContent,
    Selection,
)
from gmp_atl_dist.report.corpus_content import CorpusContent, DroppedItem
from gmp_atl_dist.report.groups import GroupsContent
from gmp_atl_dist.report.predictions import ErrorContent, PredictionsContent
from gmp_atl_dist.report.protocol import Protocol, ProtocolName
from gmp_atl_dist.report.spectrogram import Spectrogram
from gmp_atl_dist.store.runs import Attempt, Machine, RunRecord, StageRun

CLASSES = ("angry", "happy", "neutral", "sad")
MANY_CLASSES = (
    "愤怒",
    "غاضب",
    "खुश",
    "неутрально",
    "very-long-name-of-an-emotion-without-any-space",
    "sad",
    "bored",
    "fearful",
)
"""Eight classes in five scripts."""
TEST_SIZES = (1085, 1023, 1151, 1031, 1241)
HOSTILE = "Ses01/<script>alert('x')</script>&\"quoted\".wav"
BOOTSTRAP: dict[str, Any] = {"samples": 200, "confidence": 0.95, "seed": 0}


def codebooks(rng: np.random.Generator, num_classes: int = 4) -> tuple[CodebookContent, ...]:
    books = []
    for scale, (layer, k) in enumerate(((6, 50), (9, 50), (12, 50), (9, 512))):
        share = rng.dirichlet(np.full(k, 0.6))
        labels = rng.choice(k, size=20_000, p=share)
        truth = (labels + rng.integers(0, 3, labels.size)) % num_classes
        books.append(
            CodebookContent.of(
                layer,
                np.bincount(labels, minlength=k).tolist(),
                scale=scale,
                emotion=cluster_quality_from_joint(joint_counts(truth, labels, num_classes, k)),
                gender=cluster_quality_from_joint(joint_counts(truth % 2, labels, 2, k)),
                speaker=cluster_quality_from_joint(joint_counts(truth % 3, labels, 3, k)),
                fit=FitContent(
                    seed=0,
                    frames=20_000,
                    mean_squared_distance=271.25 + k,
                    iterations=9,
                    relocated=1,
                    stability=0.625,
                ),
                map=CentroidMap(
                    points=tuple(map(tuple, rng.normal(size=(k, 2)).round(4).tolist())),  # pyright: ignore
                    emotions=(None, *rng.integers(num_classes, size=k - 1).tolist()),
                    genders=(None, *rng.integers(2, size=k - 1).tolist()),
                ),
            )
        )
    return tuple(books)


def noise(rng: np.random.Generator, frames: int) -> Spectrogram:
    loud = np.linspace(100, 9000, frames * 320)
    return Spectrogram.of((loud * rng.normal(size=loud.size)).astype(np.int16), frames)


def timelines(rng: np.random.Generator) -> tuple[TimelineContent, ...]:
    return tuple(
        TimelineContent(
            utterance_id=HOSTILE,
            emotion=emotion,
            gender="female",
            spectrogram=noise(rng, 120),
            scales=tuple(
                TimelineScale(layer=9, k=k, labels=tuple(rng.integers(k, size=120).tolist()))
                for k in (50, 512)
            ),
        )
        for emotion in CLASSES[:2]
    )


def curves(rng: np.random.Generator) -> dict[str, dict[str, tuple[tuple[int, float], ...]]]:
    def falling(start: float, stop: float, steps: int, every: int) -> tuple[tuple[int, float], ...]:
        at = np.arange(0, steps, every)
        values = stop + (start - stop) * np.exp(-4 * at / steps) + rng.normal(0, 0.03, at.size)
        return tuple(zip(at.tolist(), values.tolist(), strict=True))

    return {
        "warmup": {
            "loss": falling(1.4, 0.3, 700, 10),
            "gender_accuracy": falling(0.5, 0.98, 700, 70),
        },
        "retrain": {
            "loss": falling(6.2, 2.1, 20_000, 10),
            "accuracy_scale0": falling(0.02, 0.55, 20_000, 200),
            "accuracy_scale3": falling(0.02, 0.35, 20_000, 200),
            "loss_scale0": falling(4.0, 2.1, 20_000, 200),
            "learning_rate": ((0, 1e-7), (2000, 1e-4), (20_000, 1e-7)),
            "gradient_norm": falling(9.0, 1.2, 20_000, 100),
        },
        "finetune": {
            "loss": falling(9.0, 0.6, 2800, 10),
            "accuracy_with_margin": falling(0.25, 0.93, 2800, 70),
        },
    }


def build(
    protocol: ProtocolName = "clean", num_folds: int = 5, classes: tuple[str, ...] = CLASSES
) -> ReportContent:
    """A report like IEMOCAP's, from seeded noise."""
    rng = np.random.default_rng(11)
    num_classes = len(classes)
    weights = np.array([0.2, 0.3, 0.3, 0.2]) if num_classes == 4 else np.ones(num_classes)
    folds: list[FoldContent] = []
    everyone: list[tuple[np.ndarray, np.ndarray, list[str]]] = []
    rule = "test" if protocol == "peek" else "last"
    speakers = [f"Ses{s:02d}{g}" for s in range(1, num_folds + 1) for g in "FM"]
    for i in range(num_folds):
        size = TEST_SIZES[i % len(TEST_SIZES)]
        true = rng.choice(num_classes, size=size, p=weights / weights.sum())
        predicted = np.where(rng.random(size) < 0.72, true, rng.integers(0, num_classes, size))
        mine = speakers[2 * i : 2 * i + 2]
        said_by = rng.choice(mine, size=size).tolist()
        everyone.append((true, predicted, said_by))
        folds.append(
            FoldContent(
                name=str(i + 1),
                train_speakers=tuple(s for s in speakers if s not in mine),
                test_speakers=tuple(mine),
                num_train=sum(TEST_SIZES) - size,
                num_test=size,
                outcome=Outcome.of(true, predicted, num_classes, speakers=said_by, **BOOTSTRAP),
                selection=Selection(rule=rule, epoch=40, num_epochs=40, measure="uar", value=0.81),
                curves=curves(rng),
                train_per_class={name: 40 + 10 * i for i, name in enumerate(classes)},
                train_per_gender={"female": 90, "male": 110},
                codebooks=codebooks(rng, num_classes),
                timelines=timelines(rng),
                artefacts={
                    kind: rng.bytes(32).hex()
                    for kind in ("finetune", "warmup", "extract", "cluster", "label", "retrain")
                },
            )
        )
    true = np.concatenate([true for true, _, _ in everyone]).tolist()
    predicted = np.concatenate([predicted for _, predicted, _ in everyone]).tolist()
    said_by = [speaker for *_, said_by in everyone for speaker in said_by]
    genders = ["female" if speaker.endswith("F") else "male" for speaker in said_by]
    pooled = Outcome.of(true, predicted, num_classes, speakers=said_by, **BOOTSTRAP)
    wrong = [i for i, (a, b) in enumerate(zip(true, predicted, strict=True)) if a != b]
    errors = tuple(
        ErrorContent(
            utterance_id=HOSTILE if rank == 0 else f"{said_by[i]}_impro{i:04d}",
            fold="1",
            speaker=said_by[i],
            gender=genders[i],
            true=classes[true[i]],
            predicted=classes[predicted[i]],
            probability=0.99 - rank / 100,
            of_true=0.001,
            seconds=2.4,
            spectrogram=noise(rng, 120),
        )
        for rank, i in enumerate(wrong[:20])
    )
    return ReportContent(
        title=f"GMP-ATL on a corpus of {num_classes} classes & {num_folds} folds",
        protocol=Protocol.of(protocol, rule),
        classes=classes,
        folds=tuple(folds),
        pooled=PooledContent.of(pooled, [fold.outcome for fold in folds], classes),
        calibration=Calibration.of(
            [a == b for a, b in zip(true, predicted, strict=True)], [0.935] * len(true)
        ),
        groups=GroupsContent.of(true, predicted, said_by, genders, num_classes, **BOOTSTRAP),
        errors=errors,
        num_errors=len(wrong),
        predictions=PredictionsContent(
            utterances=tuple(f"{speaker}_{i:05d}" for i, speaker in enumerate(said_by)),
            folds=tuple(str(1 + i % num_folds) for i in range(len(true))),
            speakers=tuple(said_by),
            genders=tuple(genders),
            true=tuple(true),
            predicted=tuple(predicted),
            probabilities=((1 / num_classes,) * num_classes,) * len(true),
        ),
        corpus=CorpusContent(
            adapter="iemocap",
            num_utterances=5531,
            hours=6.98,
            num_speakers=10,
            per_class={name: 1708 - 100 * i for i, name in enumerate(classes)},
            per_gender={"female": 2623, "male": 2908},
            dropped=(
                DroppedItem(item=HOSTILE, reason="0.03 s is shorter than corpus.min_s = 0.1"),
                DroppedItem(item="Ses02/b.wav", reason="not decodable: https://example.org/x"),
            ),
        ),
        audio=audio(classes),
        configuration=RunConfig().science(),
        seeds={"warmup": 0, "cluster": 0, "retrain": 0, "finetune": 0, "evaluate": 0},
        versions={"gmp_atl_dist": "0.1.0", "torch": "2.9.0", "ray": "2.52.0", "numpy": "2.4.6"},
        artefacts={"ingest": rng.bytes(32).hex(), "model": rng.bytes(32).hex()},
    )


def audio(classes: Sequence[str]) -> AudioContent:
    """The audit of seeded noise; some of it is quiet, and one recording has a narrow band."""
    rng = np.random.default_rng(3)
    ids = [HOSTILE, *(f"Ses01F_impro{i:04d}" for i in range(99))]
    rows = [
        {
            "seconds": 4.5,
            "level_dbfs": float(level),
            "clipped_share": 0.0,
            "zero_share": 0.01,
            "dc_share": 0.001,
            "bandwidth_hz": 7_500.0 if i else 3_900.0,
            "rate_hz": 16_000 if i else 8_000,
            "channels": 1,
        }
        for i, level in enumerate(rng.normal(-30, 8, len(ids)).round(2))
    ]
    emotion_of = {name: classes[i % len(classes)] for i, name in enumerate(ids)}
    return audit_of(AudioTable.of(ids, rows), emotion_of, AuditConfig(), [("a", "b")])


def record() -> RunRecord:
    """The record of a run that was stopped once and resumed."""
    machine = Machine(
        host="node<7>", system="Linux x86_64", cpu="A processor", cpus=16, memory_bytes=64 << 30
    )
    first = Attempt(
        started_s=1.7e9,
        seen_s=1.7e9 + 500,
        ended_s=1.7e9 + 500,
        state="stopped",
        message="SIGTERM",
        machine=machine,
        command=("gmp-atl", "run", "--config", "my corpus.toml"),
        git_commit="0123abc+",
        versions={"torch": "2.9.0"},
    )
    stages = [
        ("ingest", "found", None),
        ("finetune fold1", "done", 3725.0),
        ("report", "done", 2.5),
    ]
    return RunRecord(
        name="emodb-0123abcd",
        config_name="emodb",
        fingerprint="f" * 64,
        corpus_name="Berlin EmoDB <b>",
        configuration={},
        attempts=(first, first.model_copy(update={"state": "done", "message": ""})),
        stages=tuple(
            StageRun(
                label=label,
                name=label.split()[0],
                kind=label.split()[0],
                fingerprint="e" * 64,
                state=state,  # pyright: ignore[reportArgumentType]
                attempt=1,
                started_s=1.7e9,
                duration_s=duration,
                peak_memory_bytes=(3 << 30) if duration else None,
            )
            for label, state, duration in stages
        ),
        scores={},
    )
