"""The stage ``predict``: every utterance, the probabilities of ``evaluate``, corpora without labels."""

from __future__ import annotations

import csv
import json
import os
import socket
from pathlib import Path

import numpy as np
import pytest
from support.classifiers import EMOTIONS, put_classifier, write_noise
from support.one_process import FOLD, Tiny, finish, no_ray
from support.roots import make

from gmp_atl_dist import Predictor, stage_order
from gmp_atl_dist.cli.main import main
from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.runs.unreached import collect, plan_collection
from gmp_atl_dist.stages.base import Context, Seal
from gmp_atl_dist.stages.evaluate import Evaluate, read_predictions
from gmp_atl_dist.stages.predict import Predict, emotions_of, finetuned_at, read_prediction_part
from gmp_atl_dist.store.artifact import list_artifacts
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.leases import LEASES
from gmp_atl_dist.store.readers import audio_part_names, read_utterances
from gmp_atl_dist.store.writer import ArtifactWriter

pytest_plugins = ["support.one_process"]


def test_every_utterance_has_the_probabilities_of_evaluate(tiny: Tiny, tmp_path: Path) -> None:
    finetuned = put_classifier(tmp_path)
    context = tiny.with_root(tmp_path)
    assert emotions_of(finetuned) == EMOTIONS
    stage = Predict(tiny.corpus, finetuned, EMOTIONS)
    with no_ray():
        predicted = finish(stage, context)
        evaluated = finish(Evaluate(tiny.corpus, finetuned, FOLD), context)

    assert predicted.part_names == audio_part_names(tiny.corpus)
    assert len(predicted.part_names) > 1
    assert json.loads(predicted.manifest.notes["emotions"]) == list(EMOTIONS)
    found = dict(
        row for part in predicted.part_names for row in read_prediction_part(predicted, part)
    )
    assert sorted(found) == [u.utterance_id for u in read_utterances(tiny.corpus)]
    for prediction in read_predictions(evaluated):
        ours = found[prediction.utterance_id]
        np.testing.assert_allclose(ours, prediction.probabilities, atol=1e-4)


def test_it_is_no_part_of_the_method() -> None:
    assert "predict" not in stage_order.all_stage_names()


def test_what_is_no_finetune_artefact(tiny: Tiny, tmp_path: Path) -> None:
    finetuned = put_classifier(tmp_path)
    uri = f"{tmp_path}/{finetuned.key.prefix}"
    assert finetuned_at(uri).key == finetuned_at(f"{uri}/files").key == finetuned.key
    stock = f"{tiny.backbone.store.uri}/{tiny.backbone.key.prefix}/files"
    for wrong in (str(tmp_path), stock, f"{tmp_path}/artifacts/finetune/{'0' * 64}/files"):
        with pytest.raises(ArtifactError, match=r"is not a complete finetune artefact, which pred"):
            finetuned_at(wrong)


def test_a_folder_without_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, root, table = tmp_path / "calls", tmp_path / "root", tmp_path / "out.csv"
    names = ("a.wav", "below/b.wav", "below/c.flac")
    for i, name in enumerate(names):
        write_noise(folder / name, 0.5 + 0.2 * i, seed=i)
    # Longer than any utterance of training.
    write_noise(folder / "long.wav", 61)
    (folder / "bad.wav").write_bytes(b"no sound")
    (folder / "notes.txt").write_text("no audio")
    finetuned = put_classifier(tmp_path / "models")
    model = f"{tmp_path}/models/{finetuned.key.prefix}/files"
    command = ["predict", model, str(folder), "--ray", "--root", str(root), "--out", str(table)]
    with no_ray():
        assert main(command) == 3
        first = capsys.readouterr()
        assert main(command) == 3
        again = capsys.readouterr().out

    assert "error: 1 of 5 recordings could not be predicted:\n  - bad.wav" in first.err
    assert "predict: done before" in again
    assert sorted(key.kind for key in list_artifacts(Store.open(str(root)))) == [
        "ingest",
        "predict",
    ]
    rows = {row["file"].partition(" ")[0]: row for row in csv.DictReader(table.open())}
    assert sorted(rows) == sorted([*names, "long.wav", "bad.wav"])
    assert "cannot be decoded" in rows["bad.wav"]["error"]
    for name in (*names, "long.wav"):
        (here,) = Predictor(model).predict([folder / name])
        stored = [float(rows[name][f"p_{emotion}"]) for emotion in EMOTIONS]
        np.testing.assert_allclose(stored, list(here.values()), atol=1e-5)
    assert float(rows["long.wav"]["end_s"]) == 61


def test_gc_keeps_what_is_used_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, root = tmp_path / "calls", tmp_path / "root"
    write_noise(folder / "a.wav", 0.6, seed=1)
    finetuned = put_classifier(root)
    store = Store.open(str(root))
    kept = make(store, "ingest")
    found: list[tuple[set[str], set[str]]] = []
    run = Predict.run

    def run_beside_gc(self: Predict, context: Context, out: ArtifactWriter) -> Seal:
        plan = plan_collection(store, {}, [kept.key.fingerprint])
        found.append(({key.kind for key in plan.in_use}, set(plan.in_use.values())))
        collect(store, plan, lambda *_: None)
        return run(self, context, out)

    monkeypatch.setattr(Predict, "run", run_beside_gc)
    model = f"{root}/{finetuned.key.prefix}/files"
    with no_ray():
        assert main(["predict", model, str(folder), "--ray", "--root", str(root)]) == 0

    holder = f"predict --ray on {socket.gethostname()} (process {os.getpid()})"
    assert found == [({"ingest", "finetune"}, {holder})]
    assert not store.list(LEASES)


def test_every_source_of_several_corpora(tmp_path: Path) -> None:
    root, out = tmp_path / "root", tmp_path / "out.csv"
    for source in ("a", "b"):
        for i in range(3):
            write_noise(tmp_path / source / f"{i}.wav", 0.5 + 0.1 * i, seed=ord(source) + 10 * i)
        rows = "".join(f"{i},{i}.wav,s{i},angry\n" for i in range(3))
        (tmp_path / source / "manifest.csv").write_text(f"id,path,speaker,emotion\n{rows}")
    config = tmp_path / "two.toml"
    config.write_text(
        "[corpus]\nemotions = ['angry']\n"
        "[[corpora]]\nname = 'a'\nadapter = 'table'\n"
        "[[corpora]]\nname = 'b'\nrole = 'unlabelled'\n"
        "[warmup]\ngender_weight = 0\n[cluster]\ngender = 'none'\n"
        f"[runtime]\nroot = '{root}'\n[runtime.corpora]\na = '{tmp_path}/a'\nb = '{tmp_path}/b'\n"
    )
    finetuned = put_classifier(tmp_path / "models")
    model = f"{tmp_path}/models/{finetuned.key.prefix}/files"
    with no_ray():
        command = ["predict", model, "--ray", "--config", str(config), "--out", str(out)]
        assert main(command) == 0

    rows = {row["file"]: row for row in csv.DictReader(out.open())}
    assert sorted(rows) == ["a/0", "a/1", "a/2", "b/0.wav", "b/1.wav", "b/2.wav"]
    (here,) = Predictor(model).predict([tmp_path / "b" / "1.wav"])
    stored = [float(rows["b/1.wav"][f"p_{emotion}"]) for emotion in EMOTIONS]
    np.testing.assert_allclose(stored, list(here.values()), atol=1e-5)
