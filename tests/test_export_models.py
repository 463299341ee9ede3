"""Exported models in a Python without gmp_atl_dist: the same logits and frames; and the card."""

from __future__ import annotations

import json
import logging
import os
import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import soundfile as sf
import torch
import yaml
from huggingface_hub import ModelCard
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from support.one_process import context_of, finish, no_ray, tiny_experiment
from support.toml_files import toml_of
from transformers import HubertConfig

from gmp_atl_dist import pipeline, stage_survey
from gmp_atl_dist.audio import pcm16_to_float
from gmp_atl_dist.cli.main import main
from gmp_atl_dist.config import ModelConfig, RunConfig
from gmp_atl_dist.corpora.folds import plan_folds
from gmp_atl_dist.errors import ModelError
from gmp_atl_dist.exchange.models import EXPORTED_NAMES, ONNX_NAMES, export_model
from gmp_atl_dist.inference.predictor import probabilities_of
from gmp_atl_dist.models.emotion import EmotionModel
from gmp_atl_dist.models.hubert import Hubert
from gmp_atl_dist.models.padding import pad_waves
from gmp_atl_dist.models.sizes import NAMED_SIZES
from gmp_atl_dist.models.source import backbone_from_files, load_source, model_to_files
from gmp_atl_dist.models.stored import emotion_model_from_files, load_emotion_model
from gmp_atl_dist.predict import Predictor
from gmp_atl_dist.report.protocol import Protocol
from gmp_atl_dist.stages.backbone import Backbone
from gmp_atl_dist.stages.base import Pending, sealed
from gmp_atl_dist.stages.evaluate import Evaluate, read_predictions
from gmp_atl_dist.stages.fold_artifacts import FoldArtifacts
from gmp_atl_dist.stages.ingest import Ingest
from gmp_atl_dist.stages.report import outcome_of
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.layout import claim_layout
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.readers import AudioReader, read_emotions, read_utterances
from gmp_atl_dist.store.writer import ArtifactWriter

pytest_plugins = ["support.one_process"]

TOLERANCE = 1e-4

ALONE = """
import json, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "gmp_atl_dist":
            raise ImportError("gmp_atl_dist is not here")

sys.meta_path.insert(0, Blocker())
try:
    import gmp_atl_dist
    sys.exit("gmp_atl_dist is here")
except ImportError:
    pass

# As on a machine with a CPU build of torch, where our documentation says to remove it.
sys.modules["torchaudio"] = None

import numpy as np, torch
from transformers import (
    AutoFeatureExtractor, AutoModelForAudioClassification, HubertModel, Wav2Vec2FeatureExtractor, pipeline,
)

torch.set_num_threads(1)
job = json.loads(sys.argv[1])
with np.load(job["waves"]) as held:
    waves = [held[name] for name in sorted(held.files)]
found = {}
for name, folder in job["classifiers"].items():
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    assert isinstance(extractor, Wav2Vec2FeatureExtractor)
    model, info = AutoModelForAudioClassification.from_pretrained(
        folder, trust_remote_code=True, output_loading_info=True
    )
    assert not any(info.values()), info
    assert not model.training
    padded = extractor(waves, sampling_rate=16000, padding=True, return_tensors="pt")
    with torch.inference_mode():
        found[name + "/padded"] = model(**padded).logits.numpy()
        singles = [extractor(w, sampling_rate=16000, return_tensors="pt") for w in waves]
        found[name + "/single"] = torch.cat([model(**x).logits for x in singles]).numpy()
        found[name + "/no_mask"] = torch.cat([model(x["input_values"]).logits for x in singles]).numpy()
    labels = torch.arange(len(waves)) % model.config.num_labels
    loss = model(**padded, labels=labels).loss
    loss.backward()
    found[name + "/loss"] = loss.detach().numpy()
    assert model.classifier.weight.grad.abs().sum() > 0
    classify = pipeline("audio-classification", model=folder, trust_remote_code=True)
    answers = classify([{"raw": w, "sampling_rate": 16000} for w in waves], top_k=None)
    order = [model.config.id2label[i] for i in range(model.config.num_labels)]
    found[name + "/pipeline"] = np.array(
        [[next(a["score"] for a in one if a["label"] == label) for label in order] for one in answers]
    )
    found[name + "/labels"] = np.array(order)
    said = []
    exec(job["snippets"][name], {"FOLDER": folder, "print": said.append})
    ((answers,),) = [said]
    found[name + "/snippet"] = np.array(
        [next(a["score"] for a in answers if a["label"] == label) for label in order]
    )
for name, folder in job["backbones"].items():
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    model, info = HubertModel.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    assert model.masked_spec_embed is not None
    model.train()
    hidden = torch.zeros(1, 9, model.config.hidden_size)
    assert model._mask_hidden_states(hidden).eq(0).all(), "SpecAugment is off"
    model.eval()
    for i, wave in enumerate(waves):
        with torch.inference_mode():
            inputs = extractor(wave, sampling_rate=16000, return_tensors="pt")
            found[f"{name}/{i}"] = model(**inputs).last_hidden_state[0].numpy()
assert "gmp_atl_dist" not in sys.modules
np.savez(job["out"], **found)
"""


@dataclass(frozen=True)
class Exports:
    """A finished run, its models in folders, and what transformers alone makes of them."""

    config: RunConfig
    toml: Path
    corpus: Artifact
    backbone: Artifact
    made: FoldArtifacts
    folder: Path
    waves: list[np.ndarray]
    found: dict[str, np.ndarray]
    said: str


def models_of(exports: Exports) -> dict[str, EmotionModel]:
    finetuned = exports.made.artifact("finetune")
    return {
        "classifier": emotion_model_from_files(finetuned.read_files()),
        "stable": other_classifier(),
    }


def other_classifier() -> EmotionModel:
    """HuBERT-large's kind: layer norms, normalised waveforms, the last layer norm at the end.

    With the other built-in pooling and loss.
    """
    values = {**NAMED_SIZES["tiny"], "feat_extract_norm": "layer", "conv_bias": True}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        hubert = Hubert(HubertConfig.from_dict({**values, "do_stable_layer_norm": True}))
        assert hubert.config.normalize_waveform
        return EmotionModel.from_backbone(
            hubert, ["a", "b", "c"], embedding_dim=8, pooling="mean", loss="cross_entropy"
        ).eval()


def sealed_classifier(model: EmotionModel, root: Path) -> Artifact:
    out = ArtifactWriter(Store.open(str(root)), ArtifactKey("finetune", "a" * 64))
    for name, data in model_to_files(model).items():
        out.put_file(name, data)
    return out.seal(version=1, science={}, inputs={})


@pytest.fixture(scope="module")
def ran(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Exports:
    """The run alone."""
    folder = tmp_path_factory.mktemp("exports")
    config = tiny_experiment(tiny_corpus, folder / "root")
    (folder / "x.toml").write_text(toml_of(config))
    context = context_of(folder / "root", tiny_corpus, config)
    claim_layout(context.store)
    with no_ray():
        corpus = finish(Ingest(config.corpus, context.source), context)
        backbone = finish(Backbone(config.model), context)
        (fold,) = plan_folds(read_utterances(corpus), config.folds)
        pipeline.one_fold(config, corpus, backbone, fold, lambda stage: finish(stage, context))
    corpus, backbone, made = stage_survey.find_fold(config, context.store, context.source, 1)
    reader = AudioReader(corpus)
    utterances = sorted(read_utterances(corpus), key=lambda u: u.num_samples)
    chosen = [*utterances[::9], utterances[-1]]
    assert len({u.num_samples for u in chosen}) > 3, "of different lengths"
    waves = [pcm16_to_float(reader.samples(u)) for u in chosen]
    waves.append(waves[0][:401])
    return Exports(config, folder / "x.toml", corpus, backbone, made, folder / "out", waves, {}, "")


def speech_48_khz() -> np.ndarray:
    """Stereo: fp32 (samples, 2)."""
    t = np.arange(2 * 48_000) / 48_000
    left = 0.4 * np.sin(2 * np.pi * (150 + 40 * np.sin(5 * t)) * t) * np.sin(3 * t) ** 2
    return np.stack([left, 0.5 * left], axis=1).astype(np.float32)


def snippet_of(folder: Path) -> str:
    """The code under "Use" of a model card."""
    text = (folder / "README.md").read_text()
    return text.partition("## Use")[2].partition("```python\n")[2].partition("```")[0]


@pytest.fixture(scope="module")
def exports(ran: Exports) -> Exports:
    out = ran.folder
    common = ["model", "export", "-c", str(ran.toml), "--fold", "1", "--to"]
    assert main([*common, str(out / "classifier"), "--what", "classifier"]) == 0
    for stage in ("retrain", "warmup", "backbone"):
        arguments = [str(out / stage), "--what", "backbone", "--stage", stage]
        assert main([*common, *arguments]) == 0
    other = sealed_classifier(other_classifier(), out / "root")
    made = FoldArtifacts(ran.made.fold, {**ran.made.handles, "finetune": other})
    export_model(ran.config, ran.corpus, ran.backbone, made, out / "stable", what="classifier")
    np.savez(out / "waves.npz", *ran.waves)
    sf.write(out / "speech.wav", speech_48_khz(), 48_000, subtype="PCM_16")
    job = {
        "snippets": {name: snippet_of(out / name) for name in ("classifier", "stable")},
        "waves": str(out / "waves.npz"),
        "out": str(out / "found.npz"),
        "classifiers": {name: str(out / name) for name in ("classifier", "stable")},
        "backbones": {name: str(out / name) for name in ("retrain", "warmup", "backbone")},
    }
    environment = {
        "PATH": os.environ["PATH"],
        "HF_HOME": str(out / "hf"),
        "HF_HUB_OFFLINE": "1",
    }
    # -I: neither PYTHONPATH nor the working directory; the blocker: nor an editable install.
    done = subprocess.run(
        [sys.executable, "-I", "-c", ALONE, json.dumps(job)],
        env=environment,
        cwd=out,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with np.load(out / "found.npz") as held:
        found = {name: held[name] for name in held.files}
    return replace(ran, found=found, said=done.stdout + done.stderr)


@pytest.mark.parametrize("name", ["classifier", "stable"])
def test_logits_are_ours(exports: Exports, name: str) -> None:
    model = models_of(exports)[name]
    wave_BN, num_samples_B = pad_waves(exports.waves)
    with torch.inference_mode():
        padded = model(wave_BN, num_samples_B).numpy()
        single = np.concatenate([model(*pad_waves([w])).numpy() for w in exports.waves])
    found = exports.found
    assert np.ptp(single, axis=0).max() > 0.01, "they differ between utterances"
    np.testing.assert_allclose(found[f"{name}/single"], single, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(found[f"{name}/padded"], padded, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(found[f"{name}/no_mask"], single, rtol=0, atol=TOLERANCE)
    assert list(found[f"{name}/labels"]) == model.config.emotions

    probabilities = probabilities_of(model, exports.waves)
    np.testing.assert_allclose(found[f"{name}/pipeline"], probabilities, rtol=0, atol=TOLERANCE)

    labels = torch.arange(len(exports.waves)) % len(model.config.emotions)
    with torch.inference_mode():
        loss = model(wave_BN, num_samples_B, labels).loss_B.mean()
    assert float(found[f"{name}/loss"]) == pytest.approx(float(loss), abs=1e-3)


@pytest.mark.parametrize("stage", ["retrain", "warmup", "backbone"])
def test_frames_are_ours(exports: Exports, stage: str) -> None:
    artifact = {"backbone": exports.backbone, **exports.made.handles}[stage]
    ours = backbone_from_files(sealed(artifact).read_files())
    for i, wave in enumerate(exports.waves):
        with torch.inference_mode():
            output = ours.forward_frames(*pad_waves([wave]))
        expected = output.hidden[ours.config.num_hidden_layers][0]
        np.testing.assert_allclose(exports.found[f"{stage}/{i}"], expected, rtol=0, atol=TOLERANCE)


def test_nothing_is_complained_of(exports: Exports) -> None:
    for word in ("warn", "newly initialized", "not used", "unexpected", "not supported"):
        assert word not in exports.said.lower(), exports.said


@pytest.mark.parametrize("name", ["classifier", "stable"])
def test_the_cards_code_reads_any_rate_without_torchaudio(exports: Exports, name: str) -> None:
    (answer,) = Predictor(exports.folder / name).predict([exports.folder / "speech.wav"])
    np.testing.assert_allclose(exports.found[f"{name}/snippet"], list(answer.values()), atol=2e-3)


def test_predict_on_an_exported_folder_complains_of_nothing(exports: Exports) -> None:
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logger = logging.getLogger("transformers")
    logger.addHandler(handler)
    try:
        for name in ("classifier", "stable"):
            load_emotion_model(str(exports.folder / name))
    finally:
        logger.removeHandler(handler)
    assert said == []


def test_weights_are_the_artefacts_own_bytes(exports: Exports) -> None:
    for name, handle in (
        ("classifier", exports.made.handles["finetune"]),
        ("retrain", exports.made.handles["retrain"]),
    ):
        path = exports.folder / name / "model.safetensors"
        assert path.read_bytes() == sealed(handle).read_file("model.safetensors")
    assert {p.name for p in (exports.folder / "classifier").iterdir()} == EXPORTED_NAMES


def test_the_feature_extractor_normalises_where_the_model_needs_it(exports: Exports) -> None:
    for name, normalize in (("classifier", False), ("stable", True), ("retrain", False)):
        read = json.loads((exports.folder / name / "preprocessor_config.json").read_text())
        assert read["do_normalize"] is normalize
        assert (read["sampling_rate"], read["return_attention_mask"]) == (16000, True)


def test_an_exported_model_comes_back(exports: Exports, tiny_corpus: Path) -> None:
    folder = exports.folder / "retrain"
    again = load_source(ModelConfig(source=str(folder)))
    stored = backbone_from_files(exports.made.artifact("retrain").read_files())
    assert again.state_dict().keys() == stored.state_dict().keys()
    for name, weight in stored.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight)
    assert again.config.normalize_waveform == stored.config.normalize_waveform

    wav = next(tiny_corpus.rglob("*.wav"))
    mine, theirs = (
        Predictor(uri).predict([wav])
        for uri in (
            f"{exports.config.runtime.root}/{exports.made.artifact('finetune').key.prefix}/files",
            str(exports.folder / "classifier"),
        )
    )
    assert mine == theirs
    assert load_emotion_model(str(exports.folder / "stable")).config.emotions == ["a", "b", "c"]


def test_the_card_says_what_there_was(exports: Exports) -> None:
    text = (exports.folder / "classifier" / "README.md").read_text()
    predictions = read_predictions(exports.made.artifact("evaluate"))
    true, predicted = [p.emotion for p in predictions], [p.predicted for p in predictions]
    war, uar = accuracy_score(true, predicted), balanced_accuracy_score(true, predicted)
    outcome = outcome_of(predictions, read_emotions(exports.corpus), exports.config.evaluate)
    header = yaml.safe_load(text.split("---")[1])

    assert header["license"] == "unknown"
    assert header["pipeline_tag"] == "audio-classification"
    assert "base_model" not in header, "random weights have none"
    (result,) = header["model-index"][0]["results"]
    assert [m["value"] for m in result["metrics"]] == pytest.approx([war, uar])
    assert len(vars(ModelCard(text).data)["eval_results"]) == 2, "as the hub reads it"
    for value, (low, high) in ((war, outcome.intervals.war), (uar, outcome.intervals.uar)):
        assert (
            f"| {100 * value:.1f} % | {100 * low:.1f} to {100 * high:.1f} % | 95 % over utterances |"
            in text
        )
    assert "licence of the corpus is not known" in text
    assert Protocol.of("clean", "last").statement in text
    assert "Warning" not in text
    assert "**random weights** of size tiny" in text
    assert "`fold1`" in text
    assert "24 utterances of 6 speakers" in text
    for kind, handle in exports.made.handles.items():
        assert f"| `{kind}` | `{handle.identity}` |" in text
    assert exports.corpus.identity in text
    assert "| artefact | identity |" in text, "not the fingerprint that `runs show` prints"
    utterances = exports.made.fold.select(read_utterances(exports.corpus), "train")
    longest_s = max(u.num_samples for u in utterances) / 16_000
    median_s = statistics.median(u.num_samples for u in utterances) / 16_000
    assert f"median length of {median_s:.1f} s; the longest has {longest_s:.1f} s." in text
    assert "`max_utterance_s`" in text
    assert "transformers 5." in text


def test_a_backbones_card_has_no_score_of_its_own(exports: Exports) -> None:
    cards = {
        name: (exports.folder / name / "README.md").read_text()
        for name in ("retrain", "warmup", "backbone")
    }
    headers = {name: yaml.safe_load(text.split("---")[1]) for name, text in cards.items()}
    assert all("model-index" not in header for header in headers.values())
    assert "not of the backbone itself" in cards["retrain"]
    assert "not evaluated by itself" in cards["warmup"]
    assert "## Protocol" not in cards["backbone"]
    assert exports.made.artifact("finetune").key.fingerprint not in cards["retrain"]
    assert "give clips one at a time" in cards["retrain"], "group norm sees the padding"


def test_a_card_names_no_path_no_host_and_no_speaker(exports: Exports) -> None:
    for name in ("classifier", "retrain", "warmup", "backbone", "stable"):
        text = (exports.folder / name / "README.md").read_text()
        assert str(exports.folder.parent) not in text
        assert not any(u.speaker in text for u in read_utterances(exports.corpus))


def test_a_peeking_run_warns_and_is_in_no_table(exports: Exports, tmp_path: Path) -> None:
    folds = exports.config.folds.model_copy(update={"protocol": "peek"})
    config = exports.config.model_copy(update={"folds": folds})
    export_model(
        config,
        exports.corpus,
        exports.backbone,
        exports.made,
        tmp_path / "peek",
        what="classifier",
    )
    text = (tmp_path / "peek" / "README.md").read_text()
    assert "> **Warning.** Not a valid estimate of performance" in text
    assert "model-index" not in yaml.safe_load(text.split("---")[1])


@pytest.mark.parametrize(
    ("source", "listing", "base_model"),
    [
        ("facebook/hubert-base-ls960", None, "facebook/hubert-base-ls960"),
        ("/home/somebody/hubert", [["config.json", 1, 2]], None),
        ("models/hubert", [["config.json", 1, 2]], None),
    ],
)
def test_a_base_model_is_named_where_its_name_means_something_elsewhere(
    ran: Exports, tmp_path: Path, source: str, listing: object, base_model: str | None
) -> None:
    config = ran.config.model_copy(update={"model": ModelConfig(source=source)})
    science = {"model": config.model.model_dump(mode="json"), "listing": listing}
    manifest = ran.backbone.manifest.model_copy(update={"science": science})
    backbone = replace(ran.backbone, manifest=manifest)
    export_model(config, ran.corpus, backbone, ran.made, tmp_path / "out", what="classifier")
    text = (tmp_path / "out" / "README.md").read_text()
    assert yaml.safe_load(text.split("---")[1]).get("base_model") == base_model
    assert (source in text) == (base_model is not None)


def test_a_classifier_with_a_plugin_is_refused_by_name(ran: Exports, tmp_path: Path) -> None:
    model = other_classifier()
    model.config.loss = "arcface"
    artifact = sealed_classifier(model, tmp_path / "root")
    made = FoldArtifacts(ran.made.fold, {**ran.made.handles, "finetune": artifact})
    with pytest.raises(
        ModelError, match=r"finetune.loss = 'arcface' is not built in; built in are aam_soft"
    ):
        export_model(
            ran.config, ran.corpus, ran.backbone, made, tmp_path / "out", what="classifier"
        )
    assert not (tmp_path / "out").exists()


def test_an_unevaluated_fold_has_no_scores(ran: Exports, tmp_path: Path) -> None:
    evaluate = Pending(Evaluate(ran.corpus, ran.made.artifact("finetune"), ran.made.fold))
    made = replace(ran.made, handles={**ran.made.handles, "evaluate": evaluate})
    export_model(ran.config, ran.corpus, ran.backbone, made, tmp_path / "out", what="classifier")
    text = (tmp_path / "out" / "README.md").read_text()
    assert "The fold was not evaluated when this card was written" in text
    assert evaluate.key.fingerprint not in text
    assert "model-index" not in text


def run_cli(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_it_says_what_it_wrote(
    ran: Exports, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ("model", "export", "-c", ran.toml, "--fold", "1", "--what", "backbone")
    code, out, _ = run_cli(capsys, *common, "--to", tmp_path / "new" / "model")
    assert code == 0
    assert out.startswith(
        f"retrain {sealed(ran.made.handles['retrain']).key.fingerprint}: backbone, "
    )
    assert f"transformers.HubertModel.from_pretrained('{tmp_path / 'new' / 'model'}')" in out
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["model"], "nothing beside it"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--fold", "9"], 2, "--fold 9: there is no such fold; this corpus has 1 to 5"),
        (["--fold", "2"], 4, "finetune fold2 is not done ("),
        (["--fold", "1", "--set", "finetune.lr=0.5"], 4, "finetune fold1 is not done ("),
        (["--fold", "1", "--set", "model.seed=5"], 4, "backbone is not done below "),
        (["--fold", "1", "--stage", "warmup"], 2, "--stage warmup: is whose backbone"),
        (["--fold", "0"], 2, "Invalid value for '--fold'"),
    ],
)
def test_what_cannot_be_exported_is_named(
    ran: Exports,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    common = ("model", "export", "-c", ran.toml, "--what", "classifier", "--to", tmp_path / "out")
    found, _, err = run_cli(capsys, *common, *arguments)
    assert found == code
    assert message in err
    assert not (tmp_path / "out").exists()


def test_a_folder_in_use_is_left_alone(
    ran: Exports, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    common = ("model", "export", "-c", ran.toml, "--fold", "1", "--to", folder, "--what")
    folder.mkdir()
    assert run_cli(capsys, *common, "backbone")[0] == 0, "an empty one is no obstacle"
    code, _, err = run_cli(capsys, *common, "classifier")
    assert (code, "is not empty; give another folder, or --overwrite" in err) == (4, True)
    assert not (folder / "modeling_gmp_atl.py").exists()

    assert run_cli(capsys, *common, "classifier", "--overwrite")[0] == 0
    assert {p.name for p in folder.iterdir()} == EXPORTED_NAMES
    assert run_cli(capsys, *common, "backbone", "--overwrite")[0] == 0
    assert {p.name for p in folder.iterdir()} == EXPORTED_NAMES - {"modeling_gmp_atl.py"}

    (folder / "thesis.tex").write_text("years of work")
    code, _, err = run_cli(capsys, *common, "classifier", "--overwrite")
    assert (code, "contains thesis.tex, which this command does not write" in err) == (4, True)
    assert (folder / "thesis.tex").read_text() == "years of work"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_damaged_weights_are_not_exported(
    ran: Exports, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    shutil.copytree(ran.config.runtime.root, root)
    path = root / sealed(ran.made.handles["retrain"]).key.prefix / "files" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    common = ("model", "export", "-c", ran.toml, "--root", root, "--fold", "1")
    code, _, err = run_cli(capsys, *common, "--what", "backbone", "--to", tmp_path / "out")
    assert (code, "model.safetensors is damaged: its " in err) == (4, True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("what", ["classifier", "backbone"])
def test_another_type_of_model_is_refused_by_name(
    ran: Exports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: Literal["classifier"]
) -> None:
    """An export's format is HuBERT's."""
    read_file = Artifact.read_file

    def other(artifact: Artifact, name: str) -> bytes:
        key = "backbone_type" if what == "classifier" else "model_type"
        values = json.loads(read_file(artifact, name)) | {key: "wav2vec2"}
        return json.dumps(values).encode()

    monkeypatch.setattr(Artifact, "read_file", other)
    with pytest.raises(ModelError, match=r"of type 'wav2vec2'; gmp-atl model export writes 'hub"):
        export_model(ran.config, ran.corpus, ran.backbone, ran.made, tmp_path / "out", what=what)


@pytest.mark.slow
def test_the_command_writes_onnx_with_a_card_that_works(
    ran: Exports,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "onnx"
    common = ("model", "export", "-c", ran.toml, "--fold", "1", "--to", folder, "--format", "onnx")
    code, out, err = run_cli(capsys, *common, "--what", "classifier")
    assert (code, err) == (0, ""), "the exporter prints nothing"
    assert f"onnxruntime.InferenceSession('{folder}/model.onnx')" in out
    assert {p.name for p in folder.iterdir()} == ONNX_NAMES

    text = (folder / "README.md").read_text()
    assert yaml.safe_load(text.split("---")[1])["library_name"] == "onnx"
    assert text.count("## Use") == 1
    assert text.count("## Data") == 1
    sf.write(tmp_path / "speech.wav", speech_48_khz(), 48_000, subtype="PCM_16")
    monkeypatch.chdir(tmp_path)
    said: list[dict[str, float]] = []
    exec(snippet_of(folder).replace("FOLDER", str(folder)), {"print": said.append})
    model = f"{ran.config.runtime.root}/{ran.made.artifact('finetune').key.prefix}/files"
    (expected,) = Predictor(model).predict([tmp_path / "speech.wav"])
    assert said[0] == pytest.approx(expected, abs=2e-3)

    assert run_cli(capsys, *common, "--what", "classifier")[0] == 4, "it is not empty"
    code, _, err = run_cli(capsys, *common, "--what", "backbone")
    assert (code, "only the classifier is exported to ONNX" in err) == (2, True)
