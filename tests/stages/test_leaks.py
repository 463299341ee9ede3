"""Ways by which test speech could come into a training: planted through the command line, refused by name."""

from __future__ import annotations

import json
import shutil
import wave
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from support.one_process import no_ray

from gmp_atl_dist.cli.main import main
from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.errors import CorpusError
from gmp_atl_dist.stages.before_fitting import check_genders
from gmp_atl_dist.stages.planned_folds import folds_of_corpus
from gmp_atl_dist.store.artifact import find_artifact, list_artifacts
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.lineage import LINEAGE_KEY, Lineage

pytest_plugins = ["support.one_process"]

EMOTIONS = ("angry", "happy", "neutral", "sad")
CONFIG = """
[corpus]
adapter = "table"
part_audio_s = 5
[folds]
by = "session"
run = [1]
[model]
source = "random:tiny"
[warmup]
epochs = 1
batch_s = 3.0
[extract]
layers = [2, 3]
[cluster]
scales = [{ layer = 2, k = 5 }, { layer = 3, k = 7 }]
iterations = 3
[retrain]
steps = 2
batch_s = 3.0
projection_dim = 16
[finetune]
epochs = 1
batch_s = 3.0
embedding_dim = 16
[evaluate]
bootstrap_samples = 50
[runtime]
"""
TRAINED = ("warmup", "retrain", "finetune", "cluster", "extract")


def write_corpus(folder: Path, *, extra: Iterable[str] = (), genders: str = "fm") -> Path:
    """Six speakers in three sessions, ``a1`` and ``b1`` to ``a3`` and ``b3``, with two takes per emotion."""
    (folder / "wav").mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = ["id,path,speaker,gender,emotion,session"]
    for number in range(6):
        speaker = f"{'ab'[number % 2]}{number // 2 + 1}"
        gender = {"f": "female", "m": "male", "u": "unknown"}[genders[number % len(genders)]]
        for name in (f"{speaker}-{emotion}-{take}" for emotion in EMOTIONS for take in range(2)):
            t = np.arange(5600) / 16000
            tone = 8000 * np.sin(2 * np.pi * (120 + 9 * len(rows)) * t) + rng.normal(0, 200, t.size)
            with wave.open(str(folder / "wav" / f"{name}.wav"), "wb") as f:
                f.setparams((1, 2, 16000, 0, "NONE", ""))
                f.writeframes(tone.astype("<i2").tobytes())
            rows.append(
                f"{name},wav/{name}.wav,{speaker},{gender},{name.split('-')[1]},s{speaker[1]}"
            )
    (folder / "manifest.csv").write_text("\n".join([*rows, *extra]) + "\n")
    return folder


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Bench:
    """A corpus, a root, and the commands over them."""

    corpus: Path
    root: Path
    capture: pytest.CaptureFixture[str]

    def __call__(self, *arguments: object, configured: bool = True) -> Said:
        self.capture.readouterr()
        file = self.root.parent / f"{self.root.name}.toml"
        where = f'corpus = "{self.corpus}"\nroot = "{self.root}"\n'
        file.write_text(CONFIG + where)
        config = ("-c", file) if configured else ()
        with no_ray():
            code = main([*map(str, arguments), *map(str, config)])
        said = self.capture.readouterr()
        return Said(code, said.out, said.err)

    def run(self, *sets: str) -> Said:
        return self("run", *(word for text in sets for word in ("--set", text)))

    def check(self, *sets: str) -> Said:
        """What a run checks before anything is fitted. The warm-up of fold 1 is done already."""
        return self("stage", "warmup", *(word for text in sets for word in ("--set", text)))

    def made(self, kind: str) -> list[Path]:
        folder = self.root / "artifacts" / kind
        return sorted(folder.iterdir()) if folder.is_dir() else []

    def codebook(self, layer: int) -> Path:
        """The fitted codebook of a layer; there is one."""
        (found,) = [
            path
            for path in self.made("codebook")
            if (science := manifest(path)["science"])["layer"] == layer
            and "imported" not in science
        ]
        return found

    def statement(self) -> str:
        """The protocol of the newest report."""
        reports = self.root.glob("artifacts/report/*/files/report.json")
        newest = max(reports, key=lambda path: path.stat().st_mtime_ns)
        return json.loads(newest.read_text())["protocol"]["statement"]

    def trained(self) -> dict[str, list[str]]:
        return {kind: [path.name for path in self.made(kind)] for kind in TRAINED}


def manifest(artifact: Path) -> dict[str, dict]:
    return json.loads((artifact / "_manifest.json").read_text())


def named(codebook: Path, layer: int = 2, k: int = 5) -> str:
    scale = f'{{layer = {layer}, k = {k}, codebook = "{codebook.name[:16]}"}}'
    return f"cluster.scales=[{scale}, {{layer = 3, k = 6}}]"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus, and a root with a run of fold 1."""
    folder = tmp_path_factory.mktemp("leaks")
    corpus = write_corpus(folder / "corpus")
    (folder / "first.toml").write_text(f'{CONFIG}corpus = "{corpus}"\nroot = "{folder / "root"}"\n')
    with no_ray():
        assert main(["run", "-c", str(folder / "first.toml")]) == 0
    return folder


@pytest.fixture
def bench(ran: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Bench:
    """Over a copy of that root."""
    shutil.copytree(ran / "root", tmp_path / "root")
    return Bench(ran / "corpus", tmp_path / "root", capsys)


def test_a_codebook_of_fold_1_is_refused_for_fold_2(bench: Bench) -> None:
    before = bench.trained()
    said = bench.run("folds.run=[2]", named(bench.codebook(2)))
    assert said.code == 3
    assert "fold2: cluster.scales[0].codebook = codebook" in said.err
    assert "speaker 'a2', whom fold2 tests" in said.err
    assert "speaker 'b2', whom fold2 tests" in said.err
    assert "'a3'" not in said.err
    assert bench.trained() == before, "refused before anything was fitted"

    stage = bench("stage", "warmup", "--set", "folds.run=[2]", "--set", named(bench.codebook(2)))
    assert stage.code == 3, "a single stage is checked as well"


def test_one_of_both_folds_refuses_the_run(bench: Bench) -> None:
    said = bench.run("folds.run=[1, 2]", named(bench.codebook(2)))
    assert said.code == 3
    assert "speaker 'a2', whom fold2 tests" in said.err


@pytest.mark.slow
def test_it_is_accepted_for_fold_1_and_named(bench: Bench) -> None:
    book = bench.codebook(2)
    assert bench.run(named(book)).code == 0
    assert (
        f"Codebook {book.name[:12]} was fitted by an earlier run, on 4 speakers, all in the training set"
        in bench.statement()
    )


def test_a_validation_speaker_is_no_training_speaker(bench: Bench) -> None:
    said = bench.run("folds.valid=next", named(bench.codebook(2)))
    assert said.code == 3
    assert "speaker 'a2', on whom fold1 validates" in said.err


def test_a_codebook_of_another_model_is_refused(bench: Bench) -> None:
    said = bench.run("warmup.seed=5", named(bench.codebook(2)))
    assert said.code == 2
    assert "was fitted on features of warmup" in said.err
    assert "centroids mean nothing" in said.err


def test_a_codebook_of_an_earlier_release_tells_by_its_features(bench: Bench) -> None:
    """That release noted nothing in the codebook."""
    path = bench.codebook(2) / "_manifest.json"
    path.write_text(json.dumps({**manifest(path.parent), "notes": {}}))
    assert bench.check(named(bench.codebook(2))).code == 0
    assert bench.run("folds.run=[2]", named(bench.codebook(2))).code == 3
    for features in bench.made("extract"):
        shutil.rmtree(features)
    said = bench.run("folds.run=[2]", named(bench.codebook(2)))
    assert said.code == 4
    assert "an earlier release fitted this codebook" in said.err
    assert "leave the key codebook out" in said.err


@pytest.mark.parametrize("command", [("doctor",), ("corpora", "check")])
def test_what_a_run_refuses_is_refused_before_it(
    bench: Bench, tmp_path: Path, command: tuple[str, ...]
) -> None:
    """A codebook and a start model of fold 1, for fold 2; the corpus is ingested, or listed only."""
    out = tmp_path / "model"
    assert bench("model", "export", "--what", "backbone", "--to", out).code == 0
    model, book = ("--set", f"model.source={out}"), ("--set", named(bench.codebook(2)))
    second = ("--set", "folds.run=[2]")
    before = sorted(bench.root.rglob("*"))
    said = bench(*command, *second, *model)
    assert said.code == 3
    line = (
        "fold2: speaker 'a2', 8 recordings of the test set: trained in warmup and retrain of fold1"
    )
    assert line in said.err
    said = bench(*command, *second, *book)
    assert said.code == 3
    assert "speaker 'a2', whom fold2 tests" in said.err
    assert bench(*command, *book).code == bench(*command, *model).code == 0, (
        "of fold 1 both are good"
    )
    assert sorted(bench.root.rglob("*")) == before

    elsewhere = Bench(bench.corpus, tmp_path / "elsewhere", bench.capture)
    said = elsewhere(*command, *second, *model)
    assert said.code == 0, "in a table the same name may be another person"
    assert "with speakers of the same names as test speakers: 'a2', 'b2'" in said.out
    assert not bench.made("report") == elsewhere.made("report") == []
    names = tmp_path / "speakers.txt"
    names.write_text("b2")
    silent = import_(elsewhere)
    declared = import_(elsewhere, "--fitted-on", "ours", "--speakers", names)
    said = elsewhere(*command, "--set", named(silent))
    assert said.code == 3
    assert "nobody declared what it was fitted on" in said.err
    said = elsewhere(*command, *second, "--set", named(declared))
    assert said.code == 3
    assert "speaker 'b2', whom fold2 tests" in said.err
    assert elsewhere(*command, "--set", named(declared)).code == 0
    assert not elsewhere.made("ingest")


def import_(bench: Bench, *arguments: object, layer: int = 2, seed: int = 0) -> Path:
    file = bench.root.parent / f"km-{seed}.npy"
    np.save(file, np.random.default_rng(seed).normal(size=(5, 64)).astype(np.float32))
    place = ("--layer", layer, "--root", bench.root)
    said = bench("codebook", "import", file, *place, *arguments, configured=False)
    assert said.code == 0, said.err
    return bench.root / "artifacts" / "codebook" / said.out.split()[1].rstrip(":")


def test_an_imported_codebook_needs_a_declaration(bench: Bench) -> None:
    silent = import_(bench)
    said = bench.run(named(silent))
    assert said.code == 3
    assert "nobody declared what it was fitted on" in said.err
    assert "--fitted-on" in said.err

    declared = import_(bench, "--fitted-on", "LibriSpeech, 960 h")
    assert declared != silent
    assert bench.check(named(declared)).code == 0


def test_declared_speakers_are_compared_with_the_test_speakers(bench: Bench) -> None:
    names = bench.root.parent / "speakers.txt"
    names.write_text("a2\n\n  a9 \n")
    book = import_(bench, "--fitted-on", "our own", "--speakers", names)
    said = bench.run("folds.run=[2]", named(book))
    assert said.code == 3
    assert "speaker 'a2', whom fold2 tests" in said.err
    assert bench.check(named(book)).code == 0

    names.write_text("\n")
    file = bench.root.parent / "km-0.npy"
    place = ("--layer", 2, "--root", bench.root, "--speakers", names)
    command = ("codebook", "import", file, *place)
    assert "give --fitted-on too" in bench(*command, configured=False).err
    told = (*command, "--fitted-on", "x")
    assert "names no speaker" in bench(*told, configured=False).err


def test_an_exported_codebook_does_not_come_back_as_a_foreign_one(bench: Bench) -> None:
    book, file = bench.codebook(2), bench.root.parent / "ours.npy"
    place = ("--root", bench.root)
    assert bench("codebook", "export", book.name, "--out", file, *place, configured=False).code == 0
    told = ("--layer", 2, "--fitted-on", "something else", *place)
    said = bench("codebook", "import", file, *told, configured=False)
    assert said.out.split()[1].rstrip(":") == book.name
    assert "fitted these centroids itself" in said.out


@pytest.mark.slow
def test_the_report_names_imported_codebooks(bench: Bench) -> None:
    names = bench.root.parent / "speakers.txt"
    names.write_text("a2")
    book = import_(bench, "--fitted-on", "LibriSpeech, 960 h", "--speakers", names)
    assert bench.run(named(book)).code == 0
    assert (
        f"Codebook {book.name[:12]} of layer 2 was imported; its owner declares: LibriSpeech, 960 h. "
        f"It names 1 speakers." in bench.statement()
    )
    silent = named(import_(bench, seed=1))
    assert bench.run("folds.protocol=transductive", silent).code == 0
    assert "what it was fitted on is not declared" in bench.statement()


def test_the_last_layer_with_a_final_norm_is_refused(bench: Bench, tmp_path: Path) -> None:
    """``tiny`` in the form of ``large``: stable layer norm."""
    assert bench("model", "export", "--what", "backbone", "--to", tmp_path / "m").code == 0
    values = json.loads((tmp_path / "m" / "config.json").read_text())
    del values[LINEAGE_KEY]
    values |= {"do_stable_layer_norm": True}
    (tmp_path / "m" / "config.json").write_text(json.dumps(values))
    source = f"model.source={tmp_path / 'm'}"
    last = import_(bench, "--fitted-on", "LibriSpeech", layer=3)
    scale = named(last, layer=3).replace("layer = 3, k = 6", "layer = 2, k = 6")
    said = bench.run(source, scale)
    assert said.code == 6
    assert "the last layer of this model" in said.err
    assert "cluster.scales[0].codebook" in said.err
    assert bench.check(scale).code == 0, "without that norm the layer is the same"
    ours = import_(bench, "--fitted-on", "LibriSpeech", "--extracted-by", "gmp-atl", layer=3)
    scale = named(ours, layer=3).replace("layer = 3, k = 6", "layer = 2, k = 6")
    assert bench("stage", "backbone", "--set", source, "--set", scale).code == 0


@pytest.mark.parametrize("stage", ["retrain", "warmup"])
def test_an_exported_backbone_is_refused_for_fold_2_and_accepted_for_fold_1(
    bench: Bench, tmp_path: Path, stage: str
) -> None:
    out = tmp_path / "model"
    assert bench("model", "export", "--what", "backbone", "--stage", stage, "--to", out).code == 0
    before, source = bench.trained(), f"model.source={out}"
    said = bench.run("folds.run=[2]", source)
    assert said.code == 3
    assert "fold2: speaker 'a2', 8 recordings of the test set: trained in warmup" in said.err
    assert "'a3'" not in said.err
    assert bench.trained() == before, "refused before anything was fitted"

    assert bench("stage", "backbone", "--set", source).code == 0


@pytest.mark.slow
def test_the_report_names_the_start_model(bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "model"
    assert bench("model", "export", "--what", "backbone", "--to", out).code == 0
    assert bench.run(f"model.source={out}").code == 0
    told = "The start model was trained by gmp-atl from random weights (size tiny, seed 0): warmup"
    assert told in bench.statement()
    assert "of fold1 on 4 speakers and 32 recordings" in bench.statement()
    assert "None of these recordings and speakers is in a test set" in bench.statement()


def test_a_chain_of_exports_remembers_all_of_them(bench: Bench, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert bench("model", "export", "--what", "backbone", "--to", first).code == 0
    source = ("--set", f"model.source={first}")
    assert bench("stage", "backbone", *source).code == 0
    assert bench("stage", "warmup", *source).code == 0
    export = ("model", "export", "--what", "backbone", "--stage", "warmup", "--to", second)
    assert bench(*export, *source).code == 0
    lineage = Lineage.read(json.loads((second / "config.json").read_text())[LINEAGE_KEY], "second")
    assert lineage.start == "random weights (size tiny, seed 0)"
    assert [t.stages for t in lineage.trained_on] == [("warmup", "retrain"), ("warmup",)]
    text = (second / "config.json").read_text()
    assert "a2" not in json.loads(text)[LINEAGE_KEY]["trained_on"][0]["speakers"]
    said = bench.run("folds.run=[3]", f"model.source={second}")
    assert said.code == 3
    assert "fold3: speaker 'b3', 8 recordings" in said.err


@pytest.mark.parametrize("kind", ["warmup", "retrain"])
@pytest.mark.parametrize("form", ["folder", "uri"])
def test_an_artefact_is_a_start_model_with_its_lineage(bench: Bench, kind: str, form: str) -> None:
    (artifact,) = bench.made(kind)
    files = artifact / "files"
    source = f"model.source={files.as_uri() if form == 'uri' else files}"
    said = bench("stage", "backbone", "--set", "folds.run=[2]", "--set", source)
    assert said.code == 3
    assert "fold2: speaker 'a2', 8 recordings of the test set" in said.err
    assert bench("stage", "backbone", "--set", source).code == 0


def test_the_same_recordings_in_another_corpus_are_found(bench: Bench, tmp_path: Path) -> None:
    """Other names, other labels, half of the recordings: the samples are the same."""
    out = tmp_path / "model"
    assert bench("model", "export", "--what", "backbone", "--to", out).code == 0
    other = tmp_path / "other"
    shutil.copytree(bench.corpus, other)
    rows = (other / "manifest.csv").read_text().splitlines()
    kept = [r for r in rows if "-1," not in r]
    renamed = [r.replace(",a2,", ",x,").replace(",b2,", ",y,") for r in kept]
    (other / "manifest.csv").write_text("\n".join(renamed) + "\n")
    elsewhere = Bench(other, tmp_path / "elsewhere", bench.capture)
    said = elsewhere("stage", "backbone", "--set", f"model.source={out}", "--set", "folds.run=[2]")
    assert said.code == 4, "ingest comes first"
    assert elsewhere("stage", "ingest").code == 0
    said = elsewhere("stage", "backbone", "--set", f"model.source={out}", "--set", "folds.run=[2]")
    assert said.code == 3
    assert "fold2: speaker 'x', 4 recordings of the test set" in said.err


def test_a_stranger_with_the_same_name_is_no_leak(bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "model"
    assert bench("model", "export", "--what", "backbone", "--to", out).code == 0
    other = write_corpus(tmp_path / "other" / "corpus")
    for file in (other / "wav").iterdir():
        data = bytearray(file.read_bytes())
        data[44:] = np.frombuffer(bytes(data[44:]), "<i2")[::-1].tobytes()
        file.write_bytes(bytes(data))
    elsewhere = Bench(other, tmp_path / "elsewhere", bench.capture)
    assert elsewhere("stage", "ingest").code == 0
    said = elsewhere("stage", "backbone", "--set", f"model.source={out}", "--set", "folds.run=[2]")
    assert said.code == 0, said.err


def test_a_damaged_lineage_is_named(bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "model"
    assert bench("model", "export", "--what", "backbone", "--to", out).code == 0
    values = json.loads((out / "config.json").read_text())
    values[LINEAGE_KEY]["trained_on"][0]["recordings"] = "no base64"
    (out / "config.json").write_text(json.dumps(values))
    said = bench("stage", "backbone", "--set", f"model.source={out}")
    assert said.code == 6
    assert "trained_on.0.recordings" in said.err


@pytest.mark.slow
def test_a_model_of_others_is_named_as_not_known(bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "model"
    shutil.copytree(bench.made("backbone")[0] / "files", out)
    assert bench.run(f"model.source={out}").code == 0
    assert "The start model is a model from a folder or URI (identity " in bench.statement()
    assert "what it has heard is not known here" in bench.statement()
    assert str(out) not in bench.statement()


@pytest.fixture
def fresh(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Bench:
    """Without a corpus and without a run."""
    return Bench(tmp_path / "corpus", tmp_path / "root", capsys)


def test_genders_that_are_not_known_are_named_before_anything_is_fitted(fresh: Bench) -> None:
    write_corpus(fresh.corpus, genders="uf")
    said = fresh.run()
    assert said.code == 3
    assert "utterance 'a1-angry-0': gender 'unknown'" in said.err
    none = ("--set", "cluster.gender=none", "--set", "warmup.gender_weight=0")
    assert fresh("stage", "ingest", *none).code == 0
    assert not any(fresh.trained().values())

    store = Store.open(str(fresh.root))
    (key,) = [key for key in list_artifacts(store) if key.kind == "ingest"]
    corpus = find_artifact(store, key)
    assert corpus is not None
    config = RunConfig.model_validate({"folds": {"by": "session"}})
    with pytest.raises(CorpusError, match=r"fold1: 2 training speakers have no .*: 'a2', 'a3'$"):
        check_genders(config, corpus, folds_of_corpus(config, corpus)[:1])


def test_a_gender_head_with_one_class_is_named(fresh: Bench) -> None:
    write_corpus(fresh.corpus, genders="f")
    said = fresh("corpora", "check")
    assert "fold1: all training speakers are female" in said.out
    assert (
        "fold1: all training speakers are female"
        in fresh("stage", "ingest").out + fresh("stage", "backbone").out
    )
    said = fresh.run("cluster.gender=by_gender")
    assert said.code == 3
    assert "fold1: no training speaker is male" in said.err
    assert not any(fresh.trained().values())


def test_a_recording_under_two_ids_is_refused_across_sides_of_one_speaker(fresh: Bench) -> None:
    """In lists of utterances the copies of one speaker can lie on two sides."""
    write_corpus(fresh.corpus)
    rows = (fresh.corpus / "manifest.csv").read_text().splitlines()
    shutil.copy(fresh.corpus / "wav" / "a1-sad-0.wav", fresh.corpus / "wav" / "copy.wav")
    table = [f"{rows[0]},split"]
    for row in rows[1:]:
        table.append(f"{row},{'test' if '-1,' in row else 'train'}")
    table.append("a1-copy,wav/copy.wav,a1,female,sad,s1,test")
    (fresh.corpus / "manifest.csv").write_text("\n".join(table) + "\n")
    split = ("folds.by=split", "folds.protocol=speaker_dependent", "folds.run=[]")
    said = fresh.run(*split)
    assert said.code == 3
    assert "'a1-copy' of speaker 'a1' (test) and 'a1-sad-0' of speaker 'a1' (train)" in said.err
    assert not any(fresh.trained().values())
