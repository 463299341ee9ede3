"""The gender of unlabelled speech, where codebooks are grouped by it: predicted, used and reported."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.mixed import mixed_config, mixed_document, write_corpora
from support.one_process import FOLD, Tiny, context_of, finish, no_ray, one_rank

from gmp_atl_dist import execution, pipeline, runtime, stage_order, stage_survey
from gmp_atl_dist.config import ClusterConfig, LabelConfig, RunConfig, WarmupConfig
from gmp_atl_dist.config.file import parse_config
from gmp_atl_dist.corpora.sources import list_sources
from gmp_atl_dist.errors import ConfigError, ModelError
from gmp_atl_dist.models.warmed_up import HEADS_NAME, heads_to_bytes, warmup_model_from_files
from gmp_atl_dist.recipes.warmup import WarmupRecipe
from gmp_atl_dist.records import GENDERS, source_of
from gmp_atl_dist.report.content import ReportContent
from gmp_atl_dist.report.html import render_html
from gmp_atl_dist.runtime import Task, TaskResult
from gmp_atl_dist.scheduling.demands import Held
from gmp_atl_dist.stages.base import Context, Handle, Stage
from gmp_atl_dist.stages.cluster import Cluster
from gmp_atl_dist.stages.extract import Extract
from gmp_atl_dist.stages.gender import PredictGender
from gmp_atl_dist.stages.label import FusedLabel, Label
from gmp_atl_dist.stages.label_plan import plan_labels
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.codebooks import books_by_scale, read_codebooks
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.genders import read_genders, training_index
from gmp_atl_dist.store.index import read_index
from gmp_atl_dist.store.labels import stream_labels
from gmp_atl_dist.store.readers import read_utterances
from gmp_atl_dist.store.training_set import TrainingSet

pytest_plugins = ["support.one_process"]

LEARNS = {"gender_weight": 0.9, "epochs": 2}
BY_GENDER = {"gender": "by_gender"}


class Ran:
    """A finished run of one fold, with ``cluster.gender = "by_gender"``."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder = folder
        self.config = mixed_config(
            folder, root, folds={"run": [1]}, warmup=LEARNS, cluster=BY_GENDER
        )
        self.context = context_of(root, folder, self.config)
        self.stages: dict[str, Stage] = {}
        self.report = execution.run_pipeline(self.config, self.context, [self])

    def stage_found(self, stage: Stage, artifact: Artifact) -> None: ...
    def stage_started(self, stage: Stage, held: Held) -> None: ...
    def stage_done(self, stage: Stage, artifact: Artifact) -> None:
        self.stages[stage.name] = stage

    def artifact(self, name: str) -> Artifact:
        return finish(self.stages[name], self.context)

    @property
    def training(self) -> TrainingSet:
        stage = self.stages["cluster"]
        assert isinstance(stage, Cluster)
        return stage.training

    def predicted(self) -> dict[str, tuple[str, float]]:
        rows = read_genders(self.artifact("gender")).to_pylist()
        return {row["utterance_id"]: (row["gender"], row["probability"]) for row in rows}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("corpora")
    write_corpora(folder)
    with no_ray():
        return Ran(folder, tmp_path_factory.mktemp("run") / "root")


def test_the_gender_of_unlabelled_speech_alone_is_predicted(ran: Ran) -> None:
    predicted = ran.predicted()
    talks = {u.utterance_id for u in read_utterances(ran.training.corpus) if not u.emotion}
    assert set(predicted) == talks
    assert {source_of(name) for name in talks} == {"talks"}
    assert {gender for gender, _ in predicted.values()} == set(GENDERS), "one gender tests nothing"
    assert all(0.5 <= p <= 1 for _, p in predicted.values())


def labels_by_gender(ran: Ran, labels: Artifact, books: Artifact) -> None:
    """Every label is of the codebook of its utterance's gender, told or predicted."""
    told = {u.utterance_id: u.gender for u in read_utterances(ran.training.corpus)}
    told |= {name: gender for name, (gender, _) in ran.predicted().items()}
    scales = books_by_scale(read_codebooks(books))
    groups = Counter()
    for row in stream_labels(labels):
        gender = told[row.utterance_id]
        groups[source_of(row.utterance_id), gender] += 1
        for scale, ids in zip(scales, row.ids, strict=True):
            (book,) = [book for book in scale if book.group == gender]
            assert book.offset <= ids.min()
            assert ids.max() < book.end
    assert {gender for source, gender in groups if source == "talks"} == set(GENDERS)


def test_pseudo_labels_are_of_the_codebook_of_the_predicted_gender(ran: Ran) -> None:
    labels_by_gender(ran, ran.artifact("label"), ran.artifact("cluster"))


def test_codebooks_are_fitted_on_the_frames_of_the_predicted_gender(ran: Ran) -> None:
    """All frames are used here, so a codebook is fitted on as many as are labelled with it."""
    counts: Counter[tuple[int, str]] = Counter()
    scales = books_by_scale(read_codebooks(ran.artifact("cluster")))
    for row in stream_labels(ran.artifact("label")):
        for number, (scale, ids) in enumerate(zip(scales, row.ids, strict=True)):
            group = next(book.group for book in scale if book.offset <= ids[0] < book.end)
            counts[number, group] += len(ids)
    for number, scale in enumerate(scales):
        for book in scale:
            assert book.fit is not None
            assert book.fit.frames == counts[number, book.group] > 0


@pytest.mark.parametrize("balance", ["none", "gender"])
@pytest.mark.usefixtures("in_process")
def test_stored_and_fused_labels_use_the_same_predicted_genders(ran: Ran, balance: str) -> None:
    """With a sample that is balanced by gender too, which the reader of audio draws."""
    document = ran.config.cluster.model_dump() | {"balance": balance}
    document |= {"sample_frames": 300, "sample_spread": 1.5}
    config, extract = ClusterConfig.model_validate(document), ran.config.extract
    model, context = ran.artifact("warmup"), ran.context
    found: list[dict[str, str]] = []
    for fused in (False, True):
        plan = plan_labels(LabelConfig(fused=fused), config, ran.training)
        features = finish(Extract(extract, model, ran.training, plan), context)
        books = finish(Cluster(config, features, ran.training, plan), context)
        label = (
            FusedLabel(extract, model, books, ran.training)
            if fused
            else Label(features, books, ran.training)
        )
        labels = finish(label, context)
        labels_by_gender(ran, labels, books)
        found.append(
            {
                r.utterance_id: b"".join(i.tobytes() for i in r.ids).hex()
                for r in stream_labels(labels)
            }
        )
    assert found[0] == found[1]


def test_any_number_of_workers_gives_the_same_bytes(ran: Ran, tmp_path: Path) -> None:
    def one_worker_a_task(
        tasks: Sequence[Task], worker: Callable, argument: object, **_: object
    ) -> Iterator[TaskResult]:
        assert len(tasks) > 1
        for task in reversed(tasks):
            yield TaskResult(task.name, worker(argument)(task), "elsewhere", 1.0, 1.0)

    def made(name: str) -> dict[str, str]:
        store = Store.open(str(tmp_path / name))
        return contents(finish(ran.stages["gender"], replace(ran.context, store=store)))

    # As a worker does. The process of the run has had more threads.
    with no_ray(), one_rank(), pytest.MonkeyPatch.context() as patch:
        one = made("one")
        patch.setattr(runtime, "map_tasks", one_worker_a_task)
        assert made("many") == one


def test_a_worker_gets_the_training_set_with_its_genders(ran: Ran) -> None:
    sent = pickle.loads(pickle.dumps(ran.training))
    assert sent.predicted_genders.key == ran.artifact("gender").key
    assert training_index(sent).equals(training_index(ran.training))
    unknown = Counter(read_index(sent.corpus)["gender"].to_pylist())["unknown"]
    assert unknown == len(ran.predicted())
    assert "unknown" not in training_index(sent)["gender"].to_pylist()


def contents(artifact: Artifact) -> dict[str, str]:
    return {r.name: r.sha256 for r in artifact.manifest.receipts}


def test_the_report_says_how_sure_the_model_was(ran: Ran) -> None:
    content = ReportContent.model_validate_json(ran.report.read_file("report.json"))
    (row,) = content.folds[0].predicted_genders
    predicted = ran.predicted()
    probabilities = np.array([p for _, p in predicted.values()])
    assert row.source == "talks"
    assert row.per_gender == Counter(gender for gender, _ in predicted.values())
    assert row.mean_probability == pytest.approx(probabilities.mean())
    assert row.unsure_share == pytest.approx((probabilities < 0.75).mean())
    page = render_html(content)
    assert "Some unlabelled speech tells no gender" in page
    assert f"{row.mean_probability:.2f}" in page
    assert "gender" in content.stages


def test_without_predictions_the_report_has_no_word_of_them(ran: Ran) -> None:
    content = ReportContent.model_validate_json(ran.report.read_file("report.json"))
    fold = content.folds[0].model_copy(update={"predicted_genders": ()})
    plain = content.model_copy(update={"folds": (fold,)})
    assert "predicted_genders" not in plain.model_dump_json()
    assert "tells no gender" not in render_html(plain)


def test_a_gender_that_is_told_stays(ran: Ran) -> None:
    """``talks`` is listed by an adapter that tells it, so there is nothing to predict."""
    document = ran.config.model_dump(mode="json")
    document["corpora"][2] |= {"adapter": "iemocap", "speakers_of": "nobody"}
    config = RunConfig.model_validate(document)
    with no_ray():
        corpus = pipeline.ingested(config, ran.context.source, ran_by(ran.context))
        (fold,) = pipeline.configured_folds(config, corpus)
        training = TrainingSet(corpus, fold.pseudo_label_speakers())
        made = finish(PredictGender(ran.artifact("warmup"), training), ran.context)
    assert made.part_names == ()
    assert len(fold.unlabelled_speakers) == 10
    assert set(read_index(corpus)["gender"].to_pylist()) == set(GENDERS)


def ran_by(context: Context) -> Callable[[Stage], Handle]:
    return lambda stage: finish(stage, context)


@pytest.mark.parametrize("cluster", [BY_GENDER, {"balance": "gender"}])
@pytest.mark.parametrize("fused", [False, True])
def test_every_stage_has_a_state_before_gender_is_predicted(
    ran: Ran, cluster: dict[str, object], fused: bool
) -> None:
    config = mixed_config(
        ran.folder,
        ran.context.store.uri,
        warmup={**LEARNS, "seed": 1},
        cluster={**cluster, "sample_frames": 300},
        label={"fused": fused},
    )
    states = stage_survey.survey(config, ran.context)
    of_fold = [s.label.split()[0] for s in states if s.label.endswith("fold2")]
    assert of_fold[:3] == ["warmup", "gender", "extract"]
    assert states[-1].label == "report"
    assert tuple(dict.fromkeys(s.label.split()[0] for s in states)) == stage_order.stage_names(
        config
    )


def test_where_gender_groups_nothing_no_stage_changes(ran: Ran) -> None:
    plain = mixed_config(ran.folder, ran.context.store.uri, folds={"run": [1]}, warmup=LEARNS)
    states = {s.label: s for s in stage_survey.survey(plain, ran.context)}
    assert not any(label.startswith("gender") for label in states)
    assert {label for label, s in states.items() if s.state == "done"} >= {
        "combine",
        "warmup fold1",
        "extract fold1",
    }
    assert states["cluster fold1"].state == "waiting"


def test_heads_are_kept_where_a_source_is_unlabelled(ran: Ran) -> None:
    kept = ran.artifact("warmup").read_files()
    loaded = warmup_model_from_files(kept, "w")
    assert not loaded.training
    assert heads_to_bytes(loaded) == kept[HEADS_NAME]

    del kept[HEADS_NAME]
    with pytest.raises(ModelError, match=f"w has no {HEADS_NAME}.*Delete it, and run again"):
        warmup_model_from_files(kept, "w")


@pytest.mark.usefixtures("in_process")
def test_without_unlabelled_speech_warmup_keeps_the_same_files_as_before(tiny: Tiny) -> None:
    recipe = WarmupRecipe(WarmupConfig(), tiny.corpus, tiny.backbone, FOLD.training_speakers())
    assert set(recipe.export(recipe.build())) == {"config.json", "model.safetensors"}


@pytest.mark.parametrize(
    "cluster", [BY_GENDER, {"balance": "gender", "gender": "none"}], ids=["by_gender", "balance"]
)
def test_without_a_gender_head_the_configuration_is_refused(
    tmp_path: Path, cluster: dict[str, object]
) -> None:
    document = mixed_document(tmp_path, tmp_path / "root")
    document["warmup"]["gender_weight"] = 0
    document["cluster"] |= cluster
    with pytest.raises(ConfigError) as error:
        parse_config(document, "x.toml")
    assert "warmup.gender_weight: 0 leaves the gender of talks unknown" in error.value.message
    assert "raise it, so that the warmed-up model predicts it" in error.value.message


def test_without_a_gender_head_a_table_must_tell_gender(ran: Ran, tmp_path: Path) -> None:
    """Whether it does is known once it is listed."""
    (wav,) = list((ran.folder / "talks").rglob("*.wav"))[:1]
    (tmp_path / "a.wav").write_bytes(wav.read_bytes())
    (tmp_path / "manifest.csv").write_text("id,path,speaker\ntalk1,a.wav,Anna\n")
    document = mixed_document(ran.folder, tmp_path / "root")
    talks: dict[str, object] = document["corpora"][2]  # pyright: ignore[reportArgumentType, reportAssignmentType]
    talks["adapter"] = "table"
    places = {name: str(ran.folder / name) for name in ("acted", "read")}
    document["runtime"]["corpora"] = {**places, "talks": str(tmp_path)}
    document["cluster"] |= BY_GENDER
    assert len(list_sources(parse_config(document, "x.toml"))) == 3
    document["warmup"]["gender_weight"] = 0
    with pytest.raises(ConfigError) as error:
        list_sources(parse_config(document, "x.toml"))
    assert "the gender of 1 of 1 unlabelled utterances is not known" in error.value.message
    assert "raise warmup.gender_weight" in error.value.message


def test_the_stage_is_refused_by_name_where_it_has_nothing_to_do(ran: Ran) -> None:
    plain = mixed_config(ran.folder, ran.context.store.uri)
    with pytest.raises(ConfigError, match="it predicts the gender of unlabelled speech"):
        execution.run_stage(plain, ran.context, "gender")
