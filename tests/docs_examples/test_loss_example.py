"""The worked examples of a loss and a pooling: found through entry points, in a whole run, and exact."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from support.one_process import context_of, no_ray, tiny_experiment
from support.plugins import install_example

from gmp_atl_dist import execution, stage_survey
from gmp_atl_dist.config import FinetuneConfig
from gmp_atl_dist.errors import ConfigError, ModelError
from gmp_atl_dist.exchange.models import export_model
from gmp_atl_dist.models.head_registry import build_loss, build_pooling, check_head
from gmp_atl_dist.models.heads import LossTerms
from gmp_atl_dist.models.stored import emotion_model_from_files
from gmp_atl_dist.stages.evaluate import read_predictions
from gmp_atl_dist.stages.report import JSON_NAME
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.filesystem import Store

pytest_plugins = ["support.one_process"]

torch.set_num_threads(1)

CHOSEN = {
    "pooling": "moments",
    "loss": "arcface",
    "loss_options": {"margin_rad": 0.3},
}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder in which the two examples are installed."""
    folder = tmp_path_factory.mktemp("site-packages")
    install_example(folder, "loss_example", "gmp_atl_dist.losses", "arcface", "ArcFace")
    install_example(folder, "pooling_example", "gmp_atl_dist.poolings", "moments", "MomentsPooling")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield folder
    for module in ("loss_example", "pooling_example"):
        sys.modules.pop(module, None)


def reference(
    x_BE: torch.Tensor, w_KE: torch.Tensor, target: list[int], s: float, m: float
) -> torch.Tensor:
    """Equation 3 in float64, with angles."""
    losses: list[torch.Tensor] = []
    for x_E, y in zip(x_BE, target, strict=True):
        cosine_K = w_KE @ x_E / (w_KE.norm(dim=1) * x_E.norm())
        theta = cosine_K[y].acos()
        inside = bool(theta + m < math.pi)
        of_target = (theta + m).cos() if inside else cosine_K[y] - m * math.sin(m)
        others = [(s * c).exp() for k, c in enumerate(cosine_K) if k != y]
        losses.append(-((s * of_target).exp() / ((s * of_target).exp() + sum(others))).log())
    return torch.stack(losses)


@pytest.mark.parametrize("margin_rad", [0.0, 0.3, 1.2])
def test_the_loss_and_its_gradients_are_equation_3(packages: Path, margin_rad: float) -> None:
    torch.manual_seed(0)
    head = build_loss("arcface", 5, 3, {"scale": 8.0, "margin_rad": margin_rad})
    weight = head.get_parameter("weight")
    x_BE = torch.randn(6, 5)
    target = [0, 1, 2, 0, 1, 2]
    x_BE[3] = -weight[0].detach() + 0.05 * torch.randn(5)  # an angle beyond pi - m
    x_BE.requires_grad_()
    terms = head(x_BE, torch.tensor(target))
    assert isinstance(terms, LossTerms)
    terms.loss_B.sum().backward()

    x64, w64 = (t.detach().double().requires_grad_() for t in (x_BE, weight))
    expected_B = reference(x64, w64, target, 8.0, margin_rad)
    expected_B.sum().backward()
    torch.testing.assert_close(terms.loss_B.double(), expected_B, rtol=1e-5, atol=1e-5)
    for ours, theirs in ((x_BE.grad, x64.grad), (weight.grad, w64.grad)):
        assert ours is not None
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-4)

    cosine_BK = torch.nn.functional.cosine_similarity(x64[:, None], w64[None], dim=-1)
    torch.testing.assert_close(head(x_BE).double(), 8.0 * cosine_BK, rtol=1e-5, atol=1e-5)


def test_the_loss_has_a_finite_gradient_on_the_target_itself(packages: Path) -> None:
    head = build_loss("arcface", 5, 3, {})
    x_BE = head.get_parameter("weight").detach().clone().requires_grad_()
    head(x_BE, torch.arange(3)).loss_B.sum().backward()
    assert x_BE.grad is not None
    assert torch.isfinite(x_BE.grad).all()


def test_the_pooling_is_mean_and_deviation_of_the_valid_frames(packages: Path) -> None:
    pooling = build_pooling("moments", 4, {})
    x_BTD = torch.randn(2, 5, 4)
    valid_BT = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    x_BTD[1, 3:] = float("inf")
    pooled = pooling(x_BTD, valid_BT)
    assert pooled.shape == (2, pooling.output_dim)
    for row, length in enumerate((5, 3)):
        frames = x_BTD[row, :length].double()
        expected = torch.cat([frames.mean(0), frames.std(0, correction=0)])
        torch.testing.assert_close(pooled[row].double(), expected)


@dataclass(frozen=True)
class Ran:
    """A whole run with both examples."""

    execution_root: Path
    report: Artifact
    fold: stage_survey.FoundFold

    @property
    def finetuned(self) -> Artifact:
        return self.fold.artifacts.artifact("finetune")


@pytest.fixture(scope="module")
def ran(packages: Path, tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    root = tmp_path_factory.mktemp("plugins") / "root"
    config = tiny_experiment(tiny_corpus, root, finetune={**CHOSEN, "select": "valid"})
    context = context_of(root, tiny_corpus, config)
    with no_ray():
        report = execution.run_pipeline(config, context)
    fold = stage_survey.find_fold(config, context.store, context.source, 1)
    return Ran(root, report, fold)


def test_a_whole_run_uses_them(ran: Ran) -> None:
    science = ran.finetuned.manifest.science["finetune"]
    assert isinstance(science, dict)
    assert {key: science[key] for key in CHOSEN} == CHOSEN
    assert "pooling_options" not in science, "at its default, the key is not hashed"

    config = json.loads(ran.finetuned.read_file("config.json"))
    assert (config["pooling"], config["loss"]) == ("moments", "arcface")
    assert config["loss_options"] == {"scale": 30.0, "margin_rad": 0.3}, "defaults are kept as well"

    model = emotion_model_from_files(ran.finetuned.read_files())
    assert type(model.classifier).__name__ == "ArcFace"
    assert model.embedding.in_features == 2 * model.config.hidden_size

    content = json.loads(ran.report.read_file(JSON_NAME))
    assert content["configuration"]["finetune"]["loss"] == "arcface"
    assert {"loss", "training_accuracy"} <= set(content["folds"][0]["curves"]["finetune"])
    predictions = read_predictions(ran.fold.artifacts.artifact("evaluate"))
    assert len(predictions) == 8
    assert all(sum(p.probabilities) == pytest.approx(1) for p in predictions)


def test_the_classifier_is_not_exported(ran: Ran, tmp_path: Path) -> None:
    config = tiny_experiment(tmp_path, ran.execution_root, finetune=CHOSEN)
    found = ran.fold
    with pytest.raises(ModelError, match="cannot be exported") as error:
        export_model(
            config,
            found.corpus,
            found.backbone,
            found.artifacts,
            tmp_path / "out",
            what="classifier",
        )
    assert "finetune.pooling = 'moments' is not built in" in str(error.value)
    assert "finetune.loss = 'arcface' is not built in" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_machine_without_the_package_says_so(
    ran: Ran, packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = ran.finetuned.read_files()
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(packages)])
    with pytest.raises(
        ModelError, match=r"finetune.pooling: 'moments' is not known; known are att"
    ):
        emotion_model_from_files(files, "the model")


def test_another_process_finds_them_by_itself(packages: Path) -> None:
    """As a worker does, whose environment has the package."""
    script = (
        "from gmp_atl_dist.models.head_registry import build_loss, build_pooling\n"
        "print(build_loss('arcface', 4, 3, {}).classes, build_pooling('moments', 4, {}).output_dim)"
    )
    paths = [str(packages), str(Path(__file__).resolve().parents[2])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    out = subprocess.check_output([sys.executable, "-c", script], env=environment, text=True)
    assert out.split() == ["3", "8"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"loss": "arcfase"},
            r"finetune.loss: 'arcfase' is not known; known are aam_softmax, am_softmax, arcface, ",
        ),
        (
            {"pooling": "sum"},
            "finetune.pooling: 'sum' is not known; known are attentive, mean, moments",
        ),
        (
            {"loss": "arcface", "loss_options": {"margin": 1}},
            r"'arcface' does not take these options; known: margin_rad, scale:\n"
            r"  - finetune.loss_options.margin: Extra inputs",
        ),
        (
            {"loss_options": {"scale": 15}},
            r"'am_softmax' does not take these options; known: none \(its keys are finetune.am_scale",
        ),
        ({"loss": "arcface", "loss_options": {"scale": -1.0}}, "greater than 0"),
    ],
)
def test_what_cannot_be_built_is_refused_before_anything_starts(
    packages: Path, tiny_corpus: Path, tmp_path: Path, keys: dict[str, object], message: str
) -> None:
    config = tiny_experiment(tiny_corpus, tmp_path / "root", finetune=keys)
    context = context_of(tmp_path / "root", tiny_corpus, config)
    for start in (
        lambda: execution.run_pipeline(config, context),
        lambda: execution.run_stage(config, context, "ingest"),
    ):
        with pytest.raises(ConfigError, match=message):
            start()
    assert Store.open(str(tmp_path / "root")).list() == []


def test_an_entry_point_of_another_kind_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_example(tmp_path, "pooling_example", "gmp_atl_dist.losses", "odd", "MomentsPooling")
    install_example(tmp_path, "loss_example", "gmp_atl_dist.losses", "gone", "NotThere")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"'odd' is .*MomentsPooling.* not a subclass of .*Class"):
        check_head(FinetuneConfig(loss="odd"))
    with pytest.raises(ConfigError, match=r"'gone' cannot be loaded .AttributeError.*NotThere"):
        check_head(FinetuneConfig(loss="gone"))
    with pytest.raises(ConfigError, match=r"(?s)cannot be built:.*'sum'.*'gone'"):
        check_head(FinetuneConfig(pooling="sum", loss="gone"))
