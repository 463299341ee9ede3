"""Stage ``report``: scores with intervals, figures, protocol, configuration, fingerprints.

Everything is computed from the artefacts, so a report can be made again at any time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, ClassVar

from gmp_atl_dist import __version__
from gmp_atl_dist.config import EvaluateConfig, Json, RunConfig
from gmp_atl_dist.records import StoredUtterance, source_of
from gmp_atl_dist.report.calibration import Calibration
from gmp_atl_dist.report.content import (
    LARGEST_CLUSTER_SHARE,
    FoldContent,
    Outcome,
    Point,
    PooledContent,
    ReportContent,
    Selection,
)
from gmp_atl_dist.report.groups import GroupsContent
from gmp_atl_dist.report.tables import PredictionRow, predictions_csv
from gmp_atl_dist.stages.base import Context, Handle, Seal, Stage, sealed
from gmp_atl_dist.stages.evaluate import Prediction, read_predictions
from gmp_atl_dist.stages.finetune import selection_side
from gmp_atl_dist.stages.fold_artifacts import FoldArtifacts
from gmp_atl_dist.stages.pretrain import LARGEST_CLUSTER_NOTE
from gmp_atl_dist.stages.report_audio import audio_content
from gmp_atl_dist.stages.report_codebooks import codebook_contents, timelines
from gmp_atl_dist.stages.report_corpus import corpus_content, counts_by_name, per_gender
from gmp_atl_dist.stages.report_errors import (
    FoldPredictions,
    error_contents,
    predictions_content,
    predictions_of,
)
from gmp_atl_dist.stages.report_genders import genders_content
from gmp_atl_dist.stages.report_protocol import method_name, protocol_of, rule_of
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.codebooks import read_codebooks
from gmp_atl_dist.store.readers import read_curves, read_emotions, read_utterances
from gmp_atl_dist.store.writer import ArtifactWriter
from gmp_atl_dist.wording import counted

HTML_NAME = "report.html"
JSON_NAME = "report.json"
PREDICTIONS_NAME = "predictions.csv"
_VERSIONS_OF = ("torch", "transformers", "ray", "deepspeed", "pyarrow", "numpy")


@dataclass(frozen=True)
class Report(Stage):
    """Scores with intervals and verdict, figures, protocol, errors: one HTML page, and JSON."""

    config: RunConfig
    corpus: Artifact
    backbone: Artifact
    folds: tuple[FoldArtifacts, ...]

    kind: ClassVar[str] = "report"
    version: ClassVar[int] = 4

    def science(self) -> dict[str, Json]:
        return {"configuration": self.config.science(), "folds": [f.fold.name for f in self.folds]}

    def inputs(self) -> Mapping[str, Handle]:
        handles: dict[str, Handle] = {self.corpus.kind: self.corpus, "backbone": self.backbone}
        for fold in self.folds:
            for name, handle in fold.handles.items():
                handles[f"{fold.fold.name}/{name}"] = handle
        return handles

    def run(self, context: Context, out: ArtifactWriter) -> Seal:
        from gmp_atl_dist.report.html import render_html, render_json

        content = self.content()
        out.put_file(JSON_NAME, render_json(content))
        out.put_file(HTML_NAME, render_html(content).encode())
        found = predictions_of(self.folds)
        out.put_file(PREDICTIONS_NAME, predictions_csv(_csv_rows(found), content.classes))
        return Seal()

    def content(self) -> ReportContent:
        """Everything that the report shows, from the sealed artefacts."""
        config = self.config
        utterances = read_utterances(self.corpus)
        classes = read_emotions(self.corpus)
        folds = [self._fold(f, utterances) for f in self.folds]
        found = predictions_of(self.folds)
        predictions = [p for _, p in found]
        corpus = corpus_content(config, self.corpus)
        # Labels of test utterances exist only where clustering was allowed to use test audio.
        leaky = config.folds.trains_on_test_audio and config.makes_labels
        return ReportContent(
            # The corpus has no name here: a name is no science, and the same run gives the same bytes.
            title=f"{method_name(config)} on a corpus of {len(classes)} classes and "
            f"{counted(corpus.num_speakers, 'speaker')}",
            protocol=protocol_of(config, self.backbone),
            classes=classes,
            folds=tuple(folds),
            pooled=PooledContent.of(
                self._outcome(predictions), [f.outcome for f in folds], classes
            ),
            calibration=_calibration(predictions, classes),
            groups=_groups(predictions, classes, config.evaluate, by_corpus=bool(config.corpora)),
            errors=error_contents(
                found, classes, self.corpus, {f.fold.name: f for f in self.folds} if leaky else {}
            ),
            num_errors=sum(p.predicted != p.emotion for p in predictions),
            predictions=predictions_content(found, classes),
            corpus=corpus,
            audio=audio_content(self.corpus, config.audit),
            configuration=config.model_dump(mode="json", exclude=config.not_science),
            seeds={
                name: section.seed
                for name, section in config
                if hasattr(section, "seed") and name not in config.not_science
            },
            versions={"gmp_atl_dist": __version__} | {name: version(name) for name in _VERSIONS_OF},
            stages=(self.corpus.kind, "backbone", *(self.folds[0].handles if self.folds else ())),
            artefacts={
                self.corpus.kind: self.corpus.identity,
                "backbone": self.backbone.identity,
            },
        )

    def _fold(
        self, artifacts: FoldArtifacts, utterances: tuple[StoredUtterance, ...]
    ) -> FoldContent:
        fold = artifacts.fold
        predictions = read_predictions(artifacts.artifact("evaluate"))
        train = fold.select(utterances, "train")
        return FoldContent(
            name=fold.name,
            train_speakers=fold.train_speakers,
            valid_speakers=fold.valid_speakers,
            test_speakers=fold.test_speakers,
            num_train=len(train),
            num_valid=len(fold.select(utterances, "valid")),
            num_test=len(predictions),
            outcome=self._outcome(predictions),
            selection=self._selection(artifacts.artifact("finetune")),
            train_per_class=counts_by_name(read_emotions(self.corpus), [u.emotion for u in train]),
            train_per_gender=per_gender(train),
            curves={name: _curves(model) for name, model in artifacts.trained().items()},
            **self._pseudo_labels(artifacts),
            artefacts={n: sealed(h).key.fingerprint for n, h in artifacts.handles.items()},
            shared_speakers=tuple(
                sorted(
                    {*fold.shared_speakers("train", "test"), *fold.shared_speakers("valid", "test")}
                )
            ),
            notes=fold.notes,
            predicted_genders=genders_content(artifacts),
        )

    def _pseudo_labels(self, artifacts: FoldArtifacts) -> dict[str, Any]:
        """The codebooks and example labels; nothing for an arm that makes none."""
        if not self.config.makes_labels:
            return {}
        labels, books = artifacts.artifact("label"), read_codebooks(artifacts.artifact("cluster"))
        return {
            "codebooks": codebook_contents(self.corpus, labels, books),
            "timelines": timelines(self.corpus, labels, books),
        }

    def _outcome(self, predictions: list[Prediction] | tuple[Prediction, ...]) -> Outcome:
        return outcome_of(predictions, read_emotions(self.corpus), self.config.evaluate)

    def _selection(self, finetuned: Artifact) -> Selection:
        summary = json.loads(finetuned.read_file("training.json"))
        side = selection_side(self.config.finetune, self.config.folds)
        points = read_curves(finetuned).get("selection_uar", [])
        num_epochs = summary["epochs"]
        best = summary["best_epoch"]
        return Selection(
            rule=rule_of(side),
            epoch=best or num_epochs,
            num_epochs=num_epochs,
            measure="UAR" if points else None,
            value=points[best - 1][1] if points and best else None,
        )


def outcome_of(
    predictions: Sequence[Prediction], classes: Sequence[str], config: EvaluateConfig
) -> Outcome:
    """Scores of predictions over the fixed class list ``classes``."""
    return Outcome.of(
        [classes.index(p.emotion) for p in predictions],
        [classes.index(p.predicted) for p in predictions],
        len(classes),
        speakers=[p.speaker for p in predictions],
        samples=config.bootstrap_samples,
        confidence=config.confidence,
        seed=config.seed,
    )


def _calibration(predictions: Sequence[Prediction], classes: Sequence[str]) -> Calibration:
    return Calibration.of(
        [p.predicted == p.emotion for p in predictions],
        [p.probabilities[classes.index(p.predicted)] for p in predictions],
    )


def _groups(
    predictions: Sequence[Prediction],
    classes: Sequence[str],
    config: EvaluateConfig,
    *,
    by_corpus: bool,
) -> GroupsContent:
    return GroupsContent.of(
        [classes.index(p.emotion) for p in predictions],
        [classes.index(p.predicted) for p in predictions],
        [p.speaker for p in predictions],
        [p.gender for p in predictions],
        len(classes),
        samples=config.bootstrap_samples,
        confidence=config.confidence,
        seed=config.seed,
        corpora=[source_of(p.speaker) for p in predictions] if by_corpus else (),
    )


def _csv_rows(found: FoldPredictions) -> Iterator[PredictionRow]:
    for fold, p in found:
        yield PredictionRow(
            p.utterance_id, fold, p.speaker, p.gender, p.emotion, p.predicted, p.probabilities
        )


def _curves(trained: Artifact) -> dict[str, tuple[Point, ...]]:
    """Learning curves. Pretraining also has the share of the commonest label, a lower bound for the
    accuracy: at every point of the accuracy, the score of always predicting that label."""
    curves = {name: tuple(points) for name, points in read_curves(trained).items()}
    share = trained.manifest.notes.get(LARGEST_CLUSTER_NOTE)
    if share is None:
        return curves
    chance = tuple((step, float(share)) for step, _ in curves["accuracy_scale0"])
    return {**curves, LARGEST_CLUSTER_SHARE: chance}
