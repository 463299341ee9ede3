"""``gmp-atl predict --ray``: the same bytes from any number of workers, also after a kill."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from support.classifiers import EMOTIONS, put_classifier, write_noise
from support.pipeline_runs import Root, finished, started

from gmp_atl_dist import Predictor

pytest_plugins = ["support.pipeline_runs"]
pytestmark = [pytest.mark.slow, pytest.mark.integration, pytest.mark.timeout(1800)]

RECORDINGS = 24
CONFIG = """
[corpus]
adapter = "table"
part_audio_s = 5

[runtime]
corpus = "CORPUS"
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings of 2.5 s in parts of two, with labels in a table."""
    folder = tmp_path_factory.mktemp("predict") / "corpus"
    rows = ["id,path,speaker,gender,emotion"]
    for i in range(RECORDINGS):
        write_noise(folder / f"{i:02}.wav", 2.5, seed=i)
        rows.append(f"u{i:02},{i:02}.wav,s{i % 3},female,{EMOTIONS[i % 3]}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.mark.nightly
def test_any_number_of_workers_and_a_kill(corpus: Path, ray_folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "corpus.toml"
    config.write_text(CONFIG.replace("CORPUS", str(corpus)))
    one, many = Root(tmp_path / "one"), Root(tmp_path / "many")
    # Large enough that a part takes a second, and the kill comes in the middle.
    for root in (one, many):
        put_classifier(root.folder, "small")

    def command(root: Root, workers: int, *more: str) -> tuple[str, ...]:
        model = f"{root.artifact('finetune')}/files"
        options = ("--root", str(root.folder), "--set", f"runtime.extract.workers={workers}")
        return ("predict", model, "--ray", "--config", str(config), *options, *more)

    table = tmp_path / "one.csv"
    output = finished(*command(one, 1, "--out", str(table)), log=tmp_path / "log1")
    assert f"{RECORDINGS} recordings predicted" in output

    with started(*command(many, 1), log=tmp_path / "log2") as run:
        run.until(lambda: len(many.receipts("predict")) >= 2, "two finished parts")
        run.kill_driver()
    assert not many.is_sealed("predict")
    before = {path: path.stat().st_mtime_ns for path in many.receipts("predict")}
    assert 2 <= len(before) < RECORDINGS // 2
    output = finished(*command(many, 3), log=tmp_path / "log3")

    assert "parts were done before" in output
    assert many.objects("predict") == one.objects("predict")
    assert len(many.objects("predict")) == RECORDINGS // 2
    assert {path: path.stat().st_mtime_ns for path in before} == before
    # A third time everything is there.
    assert "predict: done before" in finished(*command(many, 2), log=tmp_path / "log4")

    rows = list(csv.DictReader(table.open()))
    assert [row["file"] for row in rows] == [f"u{i:02}" for i in range(RECORDINGS)]
    here = Predictor(f"{one.artifact('finetune')}/files").predict(
        [corpus / f"{i:02}.wav" for i in range(RECORDINGS)]
    )
    stored = [[float(row[f"p_{emotion}"]) for emotion in EMOTIONS] for row in rows]
    np.testing.assert_allclose(stored, [list(p.values()) for p in here], atol=2e-6)


def test_a_folder_without_labels(corpus: Path, ray_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "unlabelled"
    for i in range(3):
        write_noise(folder / "below" / f"{i}.wav", 1.0, seed=i)
    (folder / "bad.wav").write_bytes(b"no sound")
    finetuned = put_classifier(tmp_path / "models")
    model = f"{tmp_path}/models/{finetuned.key.prefix}/files"
    table = tmp_path / "out.csv"

    output = finished(
        *("predict", model, str(folder), "--ray", "--root", str(tmp_path / "root")),
        *("--out", str(table)),
        log=tmp_path / "log",
        code=3,
    )

    assert "1 of 4 recordings could not be predicted" in output
    rows = {row["file"]: row for row in csv.DictReader(table.open())}
    assert sorted(rows)[1:] == [f"below/{i}.wav" for i in range(3)]
    assert "cannot be decoded" in rows[sorted(rows)[0]]["error"]
    for i, row in enumerate(rows[f"below/{i}.wav"] for i in range(3)):
        (here,) = Predictor(model).predict([folder / "below" / f"{i}.wav"])
        stored = [float(row[f"p_{emotion}"]) for emotion in EMOTIONS]
        np.testing.assert_allclose(stored, list(here.values()), atol=2e-6)
