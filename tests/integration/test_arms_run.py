"""Every shipped arm from recordings to the report, on a tiny model and synthetic voices.

In one process, and at night on one real Ray, where starting the gangs takes most of an hour.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from support.local_ray import local_ray
from support.one_process import no_ray

from gmp_atl_dist import execution, stage_order, stage_survey
from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.config.file import load_config
from gmp_atl_dist.console import Reporter
from gmp_atl_dist.corpora.synth import write_synthetic_corpus
from gmp_atl_dist.exchange.models import export_model
from gmp_atl_dist.inference.classifier import Classifier
from gmp_atl_dist.scheduling.demands import Held
from gmp_atl_dist.shipped import shipped_configs
from gmp_atl_dist.stages.base import Stage
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.filesystem import Store

pytest_plugins = ["support.one_process"]
pytestmark = [pytest.mark.timeout(1800), pytest.mark.slow, pytest.mark.integration]

ARMS = sorted(name for name in shipped_configs() if name.startswith("nemo/"))
SHORT = ["batch_s=20", "micro_batches=1", "max_utterance_s=3"]


@dataclass
class Bench:
    """The corpus and the root that all arms share, and the stages that ran in them, in order."""

    folder: Path
    around_a_run: Callable[[], AbstractContextManager[None]]
    ran: dict[str, list[str]] = field(default_factory=dict)

    def config(self, arm: str) -> RunConfig:
        """The shipped file with a tiny model and as little training as can be."""
        shipped = load_config(arm)
        layers = sorted({layer // 2 for layer in shipped.extract.layers})
        scales = ", ".join(
            f"{{layer={s.layer // 2}, k={max(4, s.k // 64)}}}" for s in shipped.cluster.scales
        )
        given = [
            *("corpus.adapter=iemocap", "corpus.part_audio_s=20", "corpus.columns={}"),
            *('folds.by="session"', "folds.held_out=[]", "folds.run=[1]"),
            *("model.source=random:tiny", f"extract.layers={layers}", f"cluster.scales=[{scales}]"),
            *("cluster.iterations=3", "cluster.stability_frames=0", "finetune.embedding_dim=16"),
            *(f"{s}.{key}" for s in ("warmup", "retrain", "finetune") for key in SHORT),
            *("warmup.epochs=1", "retrain.steps=2", "evaluate.bootstrap_samples=20"),
            *(f"runtime.corpus={self.folder / 'corpus'}", f"runtime.root={self.folder / 'root'}"),
            *("runtime.train.workers=1", "runtime.extract.workers=1"),
        ]
        # Longer trainings of a control stay longer, so that it is another training.
        length = "finetune.steps=3" if shipped.finetune.steps else "finetune.epochs=1"
        if not shipped.finetune.embedding_dim:
            given.remove("finetune.embedding_dim=16")
        return load_config(arm, [*given, length])

    def run(self, arm: str) -> Artifact:
        config, ran = self.config(arm), self.ran.setdefault(arm, [])
        reporter = Reporter(terminal=False)
        with self.around_a_run(), execution.open_context(config, reporter) as context:
            return execution.run_pipeline(config, context, (Counted(ran),))


@dataclass
class Counted:
    ran: list[str]

    def stage_found(self, stage: Stage, artifact: Artifact) -> None: ...

    def stage_started(self, stage: Stage, held: Held) -> None:
        self.ran.append(stage.name)

    def stage_done(self, stage: Stage, artifact: Artifact) -> None: ...


@pytest.fixture(
    scope="module", params=["one process", pytest.param("one Ray", marks=pytest.mark.nightly)]
)
def bench(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("arms")
    write_synthetic_corpus(folder / "corpus", seed=0, utterances_per_speaker_and_emotion=1)
    if request.param == "one process":
        yield Bench(folder, no_ray)
        return
    with local_ray(num_cpus=2, object_store_memory=200 << 20):
        yield Bench(folder, nullcontext)


@pytest.mark.parametrize("arm", ARMS)
def test_an_arm_runs_to_its_report_and_its_model_predicts(
    bench: Bench, arm: str, tmp_path: Path
) -> None:
    report = bench.run(arm)
    config = bench.config(arm)
    stages = stage_order.stage_names(config)
    assert set(bench.ran[arm]) <= set(stages)
    assert {"finetune", "report"} & set(bench.ran[arm]), "its own part was not there before"
    content = json.loads(report.read_file("report.json"))
    assert tuple(content["stages"]) == stages[:-1]
    said = content["protocol"]["statement"]
    assert ("retraining" in said.lower()) == config.makes_labels
    assert ("warm-up" in said.lower()) == config.warms_up
    assert ("GMP-ATL" in content["title"]) == config.makes_labels
    assert bool(content["folds"][0]["codebooks"]) == config.makes_labels
    assert sorted(content["folds"][0]["curves"]) == sorted(config.trained_sections)

    store, source = Store.open(config.runtime.root), Store.open(config.runtime.corpus)
    corpus, backbone, made = stage_survey.find_fold(config, store, source, 1)
    finetuned = made.artifact("finetune")
    wave = np.sin(np.arange(9000) / 9).astype(np.float32)
    (ours,) = Classifier.load(f"{store.uri}/{finetuned.key.prefix}/files")([wave])
    assert sum(ours) == pytest.approx(1)
    folder = tmp_path / "exported"
    export_model(config, corpus, backbone, made, folder, what="classifier")
    assert ("retrained" in (folder / "README.md").read_text()) == config.makes_labels
    np.testing.assert_allclose(_theirs(folder, wave), ours, atol=2e-4)


def test_what_arms_share_was_computed_once(bench: Bench) -> None:
    """Runs after the arms. Two warm-ups: with gender, and without."""
    if sorted(bench.ran) != ARMS:
        pytest.skip("needs all arms of this module")
    counts = Counter(name for ran in bench.ran.values() for name in ran)
    assert (counts["ingest"], counts["backbone"], counts["warmup"]) == (1, 1, 2)
    assert counts["report"] == counts["finetune"] == len(ARMS)


def _theirs(folder: Path, wave: np.ndarray) -> list[float]:
    """The probabilities of the exported folder, which transformers loads without this package's classes."""
    import torch
    from transformers import AutoModelForAudioClassification

    model = AutoModelForAudioClassification.from_pretrained(folder, trust_remote_code=True).eval()
    with torch.inference_mode():
        return model(torch.from_numpy(wave)[None]).logits[0].softmax(-1).tolist()
