"""``gmp-atl config init``: what it finds, what it writes, and that a run with it works."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from support.releases import MSP, MSP_AUDIO, TREES
from support.shards import LAYOUTS, SAMPLES
from support.trees import write_tree

from gmp_atl_dist.cli.main import main
from gmp_atl_dist.config.file import load_config
from gmp_atl_dist.corpora.synth import write_synthetic_corpus
from gmp_atl_dist.doctor.idle import check_idle
from gmp_atl_dist.errors import ConfigError
from gmp_atl_dist.ray_api.facts import ClusterFacts, Node
from gmp_atl_dist.starter import machine as machine_module
from gmp_atl_dist.starter.find_corpus import FoundCorpus, find_corpus
from gmp_atl_dist.starter.machine import MachineFacts, measured_rate
from gmp_atl_dist.starter.plan import deal, make_plan
from gmp_atl_dist.store.filesystem import Store

REPOSITORY = Path(__file__).resolve().parents[1]
FAST = {"random:tiny": 400.0, "random:mini": 100.0, "random:small": 20.0, "random:base": 4.0}


def write_corpus(folder: Path, *, gender: bool = True, mark: str = ";", speakers: int = 4) -> None:
    """A table with other names and semicolons, and a second of noise per recording."""
    (folder / "audio").mkdir(parents=True)
    rng = np.random.default_rng(0)
    lines = [mark.join(["Filename", "Spk", *(["Sex"] if gender else []), "Label"])]
    for speaker in range(speakers):
        for emotion in ("happy", "sad"):
            for take in range(3):
                path = f"audio/s{speaker}{emotion}{take}.wav"
                sf.write(folder / path, rng.normal(0, 0.05, 16_000), 16_000)
                sex = ["f" if speaker % 2 else "m"] if gender else []
                lines.append(mark.join([path, f"s{speaker}", *sex, emotion]))
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Rates without measuring: for what does not concern the measurement."""
    given = dict(FAST)
    monkeypatch.setattr(machine_module, "measured_rate", lambda source, cores: given[source])
    monkeypatch.setattr(machine_module, "this_machine", lambda: MachineFacts(2, 8.0, 0))
    return given


def test_a_machine_with_eight_gpus_trains_each_fold_on_one(
    tmp_path: Path, rates: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its eight workers were refused, for four micro-batches, and each would have had 12 s a pass."""
    monkeypatch.setattr(machine_module, "this_machine", lambda: MachineFacts(64, 256.0, 8))
    monkeypatch.setattr(FoundCorpus, "total_s", property(lambda _: 25_000.0))
    write_corpus(tmp_path / "corpus")
    out = tmp_path / "mine.toml"
    assert main(["config", "init", "--corpus", str(tmp_path / "corpus"), "--out", str(out)]) == 0
    config = load_config(out)
    train, extract = config.runtime.train, config.runtime.extract
    assert (train.workers, train.gpus, train.cpus) == (1, 1, 8)
    assert (extract.workers, extract.gpus, extract.cpus) == ((1, 8), 1, 8)
    assert config.retrain.batch_s == config.finetune.batch_s == 300
    nodes = (Node(name="this machine", cpus=64, gpus=8),)
    facts = ClusterFacts(ray_version="", python_version="", nodes=nodes)
    assert list(check_idle(config, facts)) == []


def test_a_written_configuration_passes_both_checks_and_explains_each_key(
    tmp_path: Path, rates: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    write_corpus(tmp_path / "corpus")
    out = tmp_path / "new" / "mine.toml"
    assert main(["config", "init", "--corpus", str(tmp_path / "corpus"), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    for part in (
        "24 utterances of 4 speakers",
        "gender female, male",
        "happy, sad",
        "2 cores, 8 GiB",
    ):
        assert part in said
    config = load_config(out)
    assert config.corpus.table == "labels.csv"
    assert config.corpus.columns["id"] == config.corpus.columns["path"] == "Filename"
    assert config.runtime.root == "runs/mine"
    assert len(config.folds.held_out) == 2
    lines = out.read_text().splitlines()
    keys = [i for i, line in enumerate(lines) if " = " in line and not line.startswith("#")]
    assert len(keys) > 20
    assert all(lines[i - 1].startswith("# ") for i in keys), "each has a comment above it"
    assert main(["config", "check", "-c", str(out)]) == 0
    assert main(["corpora", "check", "-c", str(out)]) == 0


def test_a_table_elsewhere_with_names_that_do_not_tell(
    tmp_path: Path, rates: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    write_corpus(tmp_path / "corpus", mark=",")
    table, out = tmp_path / "lists" / "all.csv", tmp_path / "mine.toml"
    table.parent.mkdir()
    rows = (tmp_path / "corpus/labels.csv").read_text().replace("audio/", "/old/disk/audio/")
    (tmp_path / "corpus/labels.csv").unlink()
    table.write_text(rows.replace("Filename", "Where").replace("Label", "Feels"))
    corpus = str(tmp_path / "corpus")
    call = ["config", "init", "--corpus", corpus, "--table", str(table), "--out", str(out)]
    assert main(call) == 2
    assert "--column OURS=THEIRS" in capsys.readouterr().err
    columns = ["--column", "path=Where", "--column", "emotion=Feels"]
    assert main([*call, *columns, "--audio-root", "/old/disk"]) == 0
    config = load_config(out)
    assert (config.corpus.table, config.corpus.audio_root) == (str(table), "/old/disk")
    assert config.corpus.columns["emotion"] == "Feels"
    assert config.runtime.corpus == corpus
    assert main(["corpora", "check", "-c", str(out)]) == 0

    for wrong, told in (
        ("emotion=Mood", "no column 'Mood'; it has Where, Spk, Sex, Feels"),
        ("mood=Feels", "write OURS=THEIRS"),
        ("emotion", "write OURS=THEIRS"),
    ):
        assert main([*call, "--force", "--column", wrong]) == 2
        assert told in capsys.readouterr().err


def test_a_file_is_overwritten_only_if_asked(
    tmp_path: Path, rates: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    write_corpus(tmp_path / "corpus")
    out = tmp_path / "mine.toml"
    out.write_text("mine")
    call = [
        "config",
        "init",
        "--corpus",
        str(tmp_path / "corpus" / "labels.csv"),
        "--out",
        str(out),
    ]
    assert main(call) == 2
    assert "is there already; give another name, or --force" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert main([*call, "--force"]) == 0
    assert load_config(out).corpus.table == "labels.csv"


def test_a_corpus_without_gender_gets_the_ablation(tmp_path: Path, rates: dict[str, float]) -> None:
    write_corpus(tmp_path / "corpus", gender=False, mark="\t")
    out = tmp_path / "mine.toml"
    assert main(["config", "init", "--corpus", str(tmp_path / "corpus"), "--out", str(out)]) == 0
    config = load_config(out)
    assert (config.warmup.gender_weight, config.cluster.gender) == (0, "none")


def test_the_layout_of_iemocap_is_known(tmp_path: Path, rates: dict[str, float]) -> None:
    write_synthetic_corpus(tmp_path / "corpus", seed=0, utterances_per_speaker_and_emotion=1)
    out = tmp_path / "mine.toml"
    assert main(["config", "init", "--corpus", str(tmp_path / "corpus"), "--out", str(out)]) == 0
    config = load_config(out)
    assert (config.corpus.adapter, config.folds.by) == ("iemocap", "session")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "there is no file"),
        ({"x.md": ""}, "holds neither recordings nor a table, and is no known corpus"),
        (
            {"anna/angry/1.wav": "RIFF"},
            "holds 1 recordings and no table, so speaker, emotion and gender are missing. The folders "
            "'anna' and 'angry' may be speaker and emotion: then the adapter folder reads them",
        ),
        ({"m.csv": "file,label\n"}, "m.csv: lacks speaker; it has the columns file, label"),
        (
            {"a.csv": "file,spk,label\n", "b.tsv": "file\tspk\tlabel\n"},
            "holds several tables: a.csv, b.tsv; name one of them",
        ),
    ],
)
def test_what_is_missing_is_said(tmp_path: Path, files: dict[str, str], said: str) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError) as caught:
        find_corpus(str(tmp_path))
    assert said in caught.value.message


def test_the_model_follows_from_rate_and_time(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus")
    found = find_corpus(str(tmp_path / "corpus"))
    assert found.mean_s == pytest.approx(1.0)
    asked: list[str] = []

    def plan(hours: float, slower: float = 1.0):
        def rate(source: str, cores: int) -> float:
            asked.append(source)
            return FAST[source] / slower

        return make_plan(found, MachineFacts(2, 16.0, 0), hours, rate)

    assert plan(1.0).model.source == "facebook/hubert-base-ls960"
    asked.clear()
    for machine in (MachineFacts(2, 8.0, 0), MachineFacts(2, 80.0, 0, hub=False)):
        assert make_plan(found, machine, 1.0, lambda s, c: 100.0).model.source == "random:small"
    slow = plan(1.0, slower=10_000)
    assert slow.model.source == "random:tiny"
    assert asked == ["random:tiny", "random:mini"], "a model that cannot fit is not measured"
    short, long = plan(0.01, slower=40), plan(0.02, slower=40)
    assert short.model.source == long.model.source
    assert short.expected_s < long.expected_s <= 0.02 * 3600
    assert short.finetune_epochs < long.finetune_epochs


def test_speakers_are_dealt_to_groups() -> None:
    assert deal(["a", "b"]) == (("a",), ("b",))
    assert deal(["f1", "f2", "m1", "m2"]) == (("f1", "m1"), ("f2", "m2"))
    assert sorted(name for group in deal([str(i) for i in range(23)]) for name in group) == sorted(
        str(i) for i in range(23)
    )


def test_the_rate_is_measured_by_a_real_update(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_module, "_MEASURE_S", 0.0)
    assert measured_rate("random:tiny", 1) > 0


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("synthetic table without gender", marks=pytest.mark.nightly),
        pytest.param("subset of emodb2s", marks=pytest.mark.nightly),
    ],
)
def test_a_run_with_what_was_written_finishes(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The commands as they are typed; the time is the shortest that init accepts."""
    corpus = tmp_path / "corpus"
    if kind.startswith("synthetic"):
        write_corpus(corpus, gender=False)
    else:
        source = request.getfixturevalue("data_root") / "emodb2s"
        if not source.is_dir():
            pytest.skip(f"{source} is not there")
        header, *lines = (source / "manifest.csv").read_text().splitlines()
        lines = [line for line in lines if line.split(",")[2] in ("emodb_03", "emodb_08")][:60]
        (corpus / "audio").mkdir(parents=True)
        (corpus / "manifest.csv").write_text("\n".join([header, *lines]) + "\n")
        for line in lines:
            path = line.split(",")[1]
            shutil.copy(source / path, corpus / path)
    command = [sys.executable, "-m", "gmp_atl_dist.cli"]
    for words in (
        ["config", "init", "--corpus", "corpus", "--hours", "0.01", "--out", "x.toml"],
        ["corpora", "check", "--config", "x.toml"],
        ["run", "--config", "x.toml", "--root", "runs"],
    ):
        done = subprocess.run(
            [*command, *words],
            cwd=tmp_path,
            env=_environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    assert list((tmp_path / "runs").rglob("report.json"))


def _environment() -> dict[str, str]:
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    env.pop("RAY_ADDRESS", None)
    return env


@pytest.mark.parametrize("adapter", [*TREES, "msp_podcast"])
def test_a_known_release_is_recognized(tmp_path: Path, adapter: str) -> None:
    if adapter == "msp_podcast":
        audio = [f"Audios/MSP-PODCAST_{name}.wav" for name in MSP_AUDIO if name != "0099_0001"]
        rows = "\n".join(
            r for r in MSP["Labels/labels_consensus.csv"].split("\n") if "_0006_" not in r
        )
        write_tree(tmp_path, audio, {"Labels/labels_consensus.csv": rows})
    else:
        tree = TREES[adapter]
        write_tree(tmp_path, [*tree.good, *tree.left_out], tree.texts)
    found = find_corpus(str(tmp_path))
    assert found.config.adapter == adapter
    assert found.mean_s == pytest.approx(0.2)


@pytest.mark.parametrize("layout", ["webdataset", "huggingface", "lhotse", "lhotse in two files"])
def test_shards_and_manifests_are_recognized(tmp_path: Path, layout: str) -> None:
    LAYOUTS[layout][0](Store.open(str(tmp_path)))
    found = find_corpus(str(tmp_path))
    assert found.config.adapter == layout.partition(" ")[0]
    assert len(found.listing.utterances) == len(SAMPLES)
    assert found.config.columns == ({"id": "utt"} if layout == "huggingface" else {})


def test_a_table_that_somebody_wrote_comes_before_a_known_release(tmp_path: Path) -> None:
    write_tree(tmp_path, ["wav/03a01Fa.wav", "wav/03a01Wa.wav"])
    rows = "path,speaker,emotion\nwav/03a01Fa.wav,x,glad\nwav/03a01Wa.wav,x,cross\n"
    (tmp_path / "mine.csv").write_text(rows)
    assert find_corpus(str(tmp_path)).config.adapter == "table"
    (tmp_path / "mine.csv").unlink()
    assert find_corpus(str(tmp_path)).config.adapter == "emodb"
    write_tree(tmp_path, [f"other/x{i}.wav" for i in range(9)])
    with pytest.raises(ConfigError, match="no table"):
        find_corpus(str(tmp_path))


def test_a_configuration_for_a_known_release_is_written(
    tmp_path: Path, rates: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    write_tree(tmp_path / "corpus", TREES["emodb"].good)
    out = tmp_path / "emodb.toml"
    assert main(["config", "init", "--corpus", str(tmp_path / "corpus"), "--out", str(out)]) == 0
    assert "adapter emodb, 7 utterances of 7 speakers" in capsys.readouterr().out
    assert load_config(out).corpus.adapter == "emodb"
    assert main(["corpora", "check", "-c", str(out)]) == 0


def test_a_corpus_of_one_gender_does_without_gender(
    tmp_path: Path, rates: dict[str, float]
) -> None:
    write_tree(tmp_path / "corpus", TREES["savee"].good)
    out = tmp_path / "savee.toml"
    assert main(["config", "init", "--corpus", str(tmp_path / "corpus"), "--out", str(out)]) == 0
    config = load_config(out)
    assert (config.warmup.gender_weight, config.cluster.gender) == (0, "none")
    assert "# All speakers are male, so gender is not used." in out.read_text()


def test_a_misspelt_uri_is_a_fault_of_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "made.toml"
    assert main(["config", "init", "--corpus", "s3:/bkt", "--out", str(out)]) == 2
    assert "--corpus 's3:/bkt' is no URI; write s3://bkt" in capsys.readouterr().err
