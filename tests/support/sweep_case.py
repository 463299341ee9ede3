"""Reports of a sweep of seeded noise: several arms and seeds over the same small test set."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.report.codebook_content import CodebookContent, TimelineScale
from gmp_atl_dist.report.content import (
    FoldContent,
    Outcome,
    PooledContent,
    ReportContent,
    Selection,
)
from gmp_atl_dist.report.corpus_content import CorpusContent
from gmp_atl_dist.report.groups import GroupsContent
from gmp_atl_dist.report.predictions import ErrorContent, PredictionsContent
from gmp_atl_dist.report.protocol import Protocol, ProtocolName
from gmp_atl_dist.report.spectrogram import Spectrogram
from gmp_atl_dist.report.sweep_input import ArmReports, CellReport, SeedReports, StageCost
from support.report_case import audio, codebooks, curves, noise

CLASSES = ("angry", "happy", "neutral", "sad")
PEOPLE = ("Łucja Żółć", "Ελένη", "王小明", "أحمد", "Ses01F", "Ses01M", "Zażółć <b>", "Δημήτρης")
"""Eight speakers in five scripts."""
BOOTSTRAP: dict[str, Any] = {"samples": 50, "confidence": 0.95, "seed": 0}
KINDS = ("warmup", "extract", "cluster", "label", "retrain", "finetune")


@cache
def picture() -> Spectrogram:
    """One picture is enough for all errors, and costs a tenth of a second."""
    return noise(np.random.default_rng(2), 120)


@cache
def books(num_classes: int) -> tuple[CodebookContent, ...]:
    return codebooks(np.random.default_rng(3), num_classes)[:2]


def utterances(folds: int, per_speaker: int, classes: Sequence[str]) -> list[dict[str, Any]]:
    """The same utterances for every arm; some are hard for all of them."""
    rng = np.random.default_rng(5)
    rows = []
    for n, speaker in enumerate(PEOPLE):
        for i in range(per_speaker):
            true = int(rng.integers(len(classes)))
            rows.append(
                {
                    "id": f"{speaker}/{classes[true]}_{i:03d}.wav",
                    "speaker": speaker,
                    "gender": "female" if n % 2 == 0 else "male",
                    "fold": str(1 + n % folds),
                    "true": true,
                    "hard": bool(rng.random() < 0.1),
                    "other": int((true + 1 + rng.integers(len(classes) - 1)) % len(classes)),
                }
            )
    return rows


def report(
    skill: float,
    seed: int,
    *,
    folds: int = 2,
    only: Sequence[str] = (),
    per_speaker: int = 30,
    classes: tuple[str, ...] = CLASSES,
    protocol: ProtocolName = "clean",
    retrained: bool = True,
    changes: dict[str, dict[str, Any]] | None = None,
    labels: bool = False,
    adapter: str = "iemocap",
) -> ReportContent:
    """The report of one arm with one seed.

    Args:
        skill: share of the utterances that the model knows.
        only: the folds of the report; empty: all.
        retrained: whether the arm has the stages before fine-tuning.
        changes: keys of the configuration by section.
        labels: whether shown errors have frame labels.
    """
    rng = np.random.default_rng([seed, round(1000 * skill)])
    k = len(classes)
    rows = [r for r in utterances(folds, per_speaker, classes) if not only or r["fold"] in only]
    true = np.array([row["true"] for row in rows])
    known = rng.random(len(rows)) < skill
    hard = np.array([row["hard"] for row in rows])
    predicted = np.where(known, true, rng.integers(0, k, len(rows)))
    predicted = np.where(hard, [row["other"] for row in rows], predicted)
    speakers = [row["speaker"] for row in rows]
    genders = [row["gender"] for row in rows]
    of_fold = [row["fold"] for row in rows]
    probabilities = np.full((len(rows), k), 0.2 / (k - 1))
    probabilities[np.arange(len(rows)), predicted] = 0.8
    stages = KINDS if retrained else ("finetune",)
    all_curves = curves(rng)
    parts = []
    for name in sorted(set(of_fold)):
        at = [i for i, fold in enumerate(of_fold) if fold == name]
        mine = sorted({speakers[i] for i in at})
        parts.append(
            FoldContent(
                name=name,
                train_speakers=tuple(s for s in PEOPLE if s not in mine),
                test_speakers=tuple(mine),
                num_train=300,
                num_test=len(at),
                outcome=Outcome.of(
                    true[at], predicted[at], k, speakers=[speakers[i] for i in at], **BOOTSTRAP
                ),
                selection=Selection(
                    rule="test" if protocol == "peek" else "last", epoch=40, num_epochs=40
                ),
                train_per_class=dict.fromkeys(classes, 75),
                train_per_gender={"female": 150, "male": 150},
                curves={s: all_curves[s] for s in all_curves if retrained or s == "finetune"},
                codebooks=books(k) if retrained else (),
                artefacts={kind: fingerprint(kind, name, skill, seed) for kind in stages},
            )
        )
    pooled = Outcome.of(true, predicted, k, speakers=speakers, **BOOTSTRAP)
    wrong = np.flatnonzero(true != predicted).tolist()
    wrong.sort(key=lambda i: not rows[i]["hard"])
    configuration = RunConfig().science()
    for section, values in (changes or {}).items():
        configuration = {**configuration, section: {**configuration[section], **values}}  # pyright: ignore
    return ReportContent(
        title="a corpus",
        protocol=Protocol.of(protocol, "test" if protocol == "peek" else "last"),
        classes=classes,
        folds=tuple(parts),
        pooled=PooledContent.of(pooled, [fold.outcome for fold in parts], classes),
        groups=GroupsContent.of(
            true.tolist(), predicted.tolist(), speakers, genders, k, **BOOTSTRAP
        ),
        errors=tuple(
            ErrorContent(
                utterance_id=rows[i]["id"],
                fold=of_fold[i],
                speaker=speakers[i],
                gender=genders[i],
                true=classes[true[i]],
                predicted=classes[predicted[i]],
                probability=0.8,
                of_true=0.1,
                seconds=2.4,
                spectrogram=picture(),
                scales=(
                    (
                        TimelineScale(
                            layer=9, k=50, labels=tuple(rng.integers(50, size=120).tolist())
                        ),
                    )
                    if labels
                    else ()
                ),
            )
            for i in wrong[:20]
        ),
        num_errors=len(wrong),
        predictions=PredictionsContent(
            utterances=tuple(row["id"] for row in rows),
            folds=tuple(of_fold),
            speakers=tuple(speakers),
            genders=tuple(genders),
            true=tuple(true.tolist()),
            predicted=tuple(predicted.tolist()),
            probabilities=tuple(tuple(row) for row in probabilities.round(4).tolist()),
        ),
        corpus=CorpusContent(
            adapter=adapter,
            num_utterances=len(rows),
            hours=0.2,
            num_speakers=len(PEOPLE),
            per_class=dict.fromkeys(classes, 60),
            per_gender={"female": 120, "male": 120},
        ),
        audio=audio(classes),
        configuration=configuration,
        seeds={"finetune": seed},
        versions={"gmp_atl_dist": "0.5.0"},
        stages=("ingest", "backbone", *stages),
        artefacts={"ingest": "a1" * 32, "backbone": "b2" * 32},
    )


def fingerprint(kind: str, fold: str, skill: float, seed: int) -> str:
    """Warm-up and extraction of a seed are shared by all arms."""
    shared = kind in ("warmup", "extract")
    rng = np.random.default_rng(
        [len(kind), int(fold), seed, 0 if shared else round(1000 * skill), sum(map(ord, kind))]
    )
    return rng.bytes(32).hex()


def costs(content: ReportContent) -> tuple[StageCost, ...]:
    """A minute on two GPUs, and 1 MiB, for each artefact; the corpus is read on the CPU."""
    return (
        StageCost("c" * 64, "ingest", 30.0, {"CPU": 4}, 5 << 20),
        *(
            StageCost(fingerprint, kind, 60.0, {"GPU": 2}, 1 << 20)
            for fold in content.folds
            for kind, fingerprint in fold.artefacts.items()
        ),
    )


def arm(
    name: str, title: str, skill: float, seeds: Sequence[int] = (0, 1, 2), **options: Any
) -> ArmReports:
    """An arm with one report of all folds per seed."""
    found = []
    for seed in seeds:
        content = report(skill, seed, **options)
        link = f"../../runs/{name}-{seed}/report.html"
        found.append(SeedReports(str(seed), (CellReport(content, link, costs(content)),)))
    return ArmReports(name, title, tuple(found))


def arms(**options: Any) -> list[ArmReports]:
    """A baseline, two arms that help, one that uses test audio, and one that does not help."""
    return [
        arm("plain", "plain fine-tuning", 0.45, retrained=False, **options),
        arm("ptapt", "P-TAPT: 64/512/4096, last layer", 0.55, **options),
        arm("gmp_atl", "GMP-ATL, mit „Umlauten“ & Größe", 0.7, **options),
        arm("transductive", "", 0.72, protocol="transductive", labels=True, **options),
        arm("mean_pooling", "среднее вместо внимания", 0.44, **options),
    ]
