"""The command line: what it prints, what it returns, and no traceback for a user's mistake."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from support.command_line import Run
from support.one_process import Tiny, no_ray, tiny_experiment

from gmp_atl_dist import __version__, errors
from gmp_atl_dist.cli.main import main
from gmp_atl_dist.corpora.synth import MARKER
from gmp_atl_dist.shipped import shipped_configs
from gmp_atl_dist.stage_order import all_stage_names

pytest_plugins = ["support.command_line", "support.one_process"]


def write_config(path: Path, corpus: Path, root: Path) -> Path:
    """The tiny experiment as TOML."""
    lines: list[str] = []
    for section, keys in tiny_experiment(corpus, root).model_dump(mode="json").items():
        if keys is None:
            continue  # a key outside of sections that is not set
        lines.append(f"[{section}]")
        lines += [f"{key} = {_toml(value)}" for key, value in keys.items() if value is not None]
    path.write_text("\n".join(lines))
    return path


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items() if v is not None) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


@pytest.fixture
def config(tiny_corpus: Path, tmp_path: Path) -> Path:
    return write_config(tmp_path / "tiny.toml", tiny_corpus, tmp_path / "root")


def test_version_and_help(gmp_atl: Run) -> None:
    assert gmp_atl("version") == (0, f"{__version__}\n", "")
    code, out, _ = gmp_atl("--help")
    assert code == 0
    assert all(name in out for name in ("run", "stage", "status", "verify", "predict", "corpora"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["run"],
        ["run", "--config"],
        ["stage", "-c", "x.toml"],
        ["run", "-c", "x.toml", "--colour", "red"],
        ["predict"],
        ["corpora", "synth", "--out", "x", "--seed", "many"],
        ["features", "import", "x.npy", "--root", "r"],
        ["features", "export", "abc", "--layer", "9", "--root", "r"],
        ["features", "export", "abc", "--layer", "-1", "--root", "r", "--out", "o"],
    ],
)
def test_wrong_usage_is_told_in_a_line(gmp_atl: Run, arguments: list[str]) -> None:
    code, out, err = gmp_atl(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.endswith("; see --help\n")


@pytest.mark.parametrize("command", ["run", "status", "verify"])
def test_a_missing_configuration(gmp_atl: Run, tmp_path: Path, command: str) -> None:
    code, _, err = gmp_atl(command, "-c", tmp_path / "absent.toml")
    assert code == 2
    whole = [name for name in shipped_configs() if "/" not in name]
    assert err == (
        f"error: {tmp_path}/absent.toml: cannot be read (No such file or directory); give an "
        f"existing TOML file, or the name of a shipped configuration: {', '.join(whole)}, or of an arm "
        f"that gmp-atl config list names\n"
    )


def test_unknown_keys_and_wrong_values_are_named_at_once(gmp_atl: Run, config: Path) -> None:
    config.write_text("[warmup]\nepoch = 3\nlr = -1\n[cluster]\nkk = 3\n")
    code, _, err = gmp_atl("config", "check", "-c", config)
    assert code == 2
    assert f"{config}: warmup.epoch: unknown key; did you mean epochs? known here: adam_eps" in err
    assert f"{config}: warmup.lr = -1: " in err
    assert f"{config}: cluster.kk: unknown key" in err


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("warmup.lr", "is not of the form a.b=c"),
        ("=3", "is not of the form a.b=c"),
        ("warmup.lr.x=3", "'lr' is a value, not a section"),
        ("warmup.lr=fast", "warmup.lr = 'fast': expected a number above 0"),
        ("nowhere.lr=3", "nowhere: unknown section; known here: audit, cluster, corpora"),
        ("extract.layers=[2]", "cluster.scales[1].layer: 3 is not in extract.layers [2]"),
        ("finetune.select=valid", None),
    ],
)
def test_overrides(gmp_atl: Run, config: Path, override: str, message: str | None) -> None:
    code, out, err = gmp_atl("config", "check", "-c", config, "--set", override)
    if message is None:
        assert code == 0, err
        assert json.loads(out)["finetune"]["select"] == "valid"
    else:
        assert code == 2
        assert err.startswith("error: ")
        assert message in err


def test_config_check_prints_all_of_it(gmp_atl: Run, config: Path) -> None:
    code, out, _ = gmp_atl(
        "config", "check", "-c", config, "-s", "warmup.lr=5e-4", "-s", "warmup.lr=6e-4"
    )
    assert code == 0
    assert json.loads(out)["warmup"]["lr"] == 6e-4
    assert json.loads(out)["retrain"]["mask_prob"] == 0.8


def test_config_schema_is_json_schema(gmp_atl: Run) -> None:
    code, out, _ = gmp_atl("config", "schema")
    assert code == 0
    assert set(json.loads(out)["properties"]) >= {"corpus", "folds", "warmup", "runtime"}


def test_corpora(gmp_atl: Run, config: Path, tmp_path: Path) -> None:
    code, out, err = gmp_atl("corpora", "list")
    assert (code, err) == (0, "")
    emodb = next(line for line in out.splitlines() if " emodb " in line)
    assert [cell.strip() for cell in emodb.split("│")[1:5]] == [
        *("emodb", "German", "10 (5 female, 5 male)", "535")
    ]
    assert all(f" {name} " in out for name in ("iemocap", "synthetic", "table", "folder"))
    code, out, _ = gmp_atl("corpora", "check", "-c", config)
    assert code == 0
    assert "40 utterances of 10 speakers\n" in out
    assert "fold1" in out, "the folds that a run would make"
    assert "8 utterances, 2 speakers" in out
    assert "Ses01F, Ses01M" in out
    code, out, err = gmp_atl("corpora", "check", "-c", config, "-s", "folds.run=[9]")
    assert (code, "there is no fold 9; this corpus has folds 1 to 5" in err) == (2, True)
    code, out, _ = gmp_atl("corpora", "check", "-c", config, "--audio")
    assert code == 0
    assert "sampling rates of the files: 16000 Hz: 40; channels: 1: 40" in out
    assert "Bandwidth (Hz)" in out
    out_folder = tmp_path / "made"
    code, out, _ = gmp_atl("corpora", "synth", "--out", out_folder, "--utterances", "1")
    assert (code, out) == (0, f"40 utterances in {out_folder}\n")
    assert (out_folder / MARKER).is_file()


def test_synth_does_not_write_over_a_folder_of_yours(gmp_atl: Run, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    code, _, err = gmp_atl("corpora", "synth", "--out", tmp_path)
    assert code == errors.CorpusError.exit_code
    assert "contains files that are not a synthetic corpus" in err


def test_a_corpus_that_is_not_there(gmp_atl: Run, config: Path, tmp_path: Path) -> None:
    code, _, err = gmp_atl(
        "corpora", "check", "-c", config, "-s", f"runtime.corpus={tmp_path / 'absent'}"
    )
    assert code == errors.CorpusError.exit_code
    assert "set runtime.corpus" in err


def test_an_adapter_that_is_not_known(gmp_atl: Run, config: Path) -> None:
    code, _, err = gmp_atl("corpora", "check", "-c", config, "-s", "corpus.adapter=timit")
    assert code == 2
    assert "'timit' is not known; known are cremad, emodb, " in err


def test_an_unknown_stage(gmp_atl: Run, config: Path) -> None:
    code, _, err = gmp_atl("stage", "cook", "-c", config)
    assert code == 2
    assert "stage 'cook' is not known; known: ingest, backbone, mfcc, cluster1" in err


def test_the_help_of_stage_lists_the_stages_of_the_method(gmp_atl: Run) -> None:
    code, out, _ = gmp_atl("stage", "--help")
    words = set(re.findall(r"\w+", out))
    assert code == 0
    assert set(all_stage_names()) <= words


def test_a_stage_out_of_turn(gmp_atl: Run, config: Path) -> None:
    code, _, err = gmp_atl("stage", "label", "-c", config)
    assert code == errors.ArtifactError.exit_code
    assert "run gmp-atl stage ingest with the same configuration first" in err


@pytest.mark.parametrize("command", [["run"], ["stage", "ingest"]])
def test_a_root_that_is_not_writable(
    gmp_atl: Run, config: Path, tmp_path: Path, command: list[str]
) -> None:
    # A file in the way stops root as well, whom permissions do not.
    (tmp_path / "file").write_text("")
    code, _, err = gmp_atl(*command, "-c", config, "--root", tmp_path / "file" / "root")
    assert code == errors.ArtifactError.exit_code
    assert err.startswith("error: cannot write")
    assert "check that the root exists" in err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_root_without_permission(gmp_atl: Run, config: Path, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    code, _, err = gmp_atl("run", "-c", config, "--root", tmp_path / "locked")
    assert code == errors.ArtifactError.exit_code
    assert "PermissionError" in err


def test_a_root_of_an_unknown_kind(gmp_atl: Run, config: Path) -> None:
    code, _, err = gmp_atl("status", "-c", config, "--root", "gopher://host/root")
    assert code == errors.ArtifactError.exit_code
    assert "scheme 'gopher' is not known" in err


def test_run_status_verify(gmp_atl: Run, config: Path, tmp_path: Path) -> None:
    code, out, _ = gmp_atl("status", "-c", config)
    assert code == 0
    assert "ingest" in out
    assert "waiting" in out
    with no_ray():
        code, out, _ = gmp_atl("run", "-c", config)
        assert code == 0
        again_code, again, _ = gmp_atl("run", "-c", config)
        assert again_code == 0
    assert again.count("done before") == 10
    lines = again.splitlines()
    end = lines.index(next(line for line in lines if line.startswith("WAR ")))
    assert "; always the most frequent class " in lines[end]
    assert re.fullmatch(
        r"UAR \d+\.\d % \(95 % interval \d+\.\d to \d+\.\d; chance 25\.0 %\)", lines[end + 1]
    )
    verdicts = [line for line in lines if line.startswith("verdict: ")]
    assert verdicts, "a run says what its scores show"
    end += len(verdicts)
    report, model = lines[end + 2 :][:2]
    assert Path(report.removeprefix("report: file://")).is_file()
    assert Path(model.removeprefix("model of fold1: file://"), "model.safetensors").is_file()
    assert lines[end + 4] == "next:"
    assert [line.split()[:2] for line in lines[end + 5 :]] == [
        ["gmp-atl", w] for w in ("predict", "model", "runs")
    ]
    assert "\n".join(lines[end - len(verdicts) :]) in out, "the first run ended in the same way"
    export = lines[end + 6].replace("--to model", f"--to {tmp_path}/model")
    assert gmp_atl(*shlex.split(export)[1:])[0] == 0, "what is said to be next works as it stands"

    code, out, _ = gmp_atl("status", "-c", config)
    assert code == 0
    assert out.count(" done ") == 10
    assert gmp_atl("verify", "-c", config) == (
        0,
        f"12 artefacts below {(tmp_path / 'root').as_uri()} are intact\n",
        "",
    )
    model = next((tmp_path / "root").glob("artifacts/finetune/*/files"))
    wav = next(Path(json.loads(gmp_atl("config", "check", "-c", config)[1])["runtime"]["corpus"])
               .rglob("*.wav"))  # fmt: skip
    code, out, _ = gmp_atl("predict", model, wav)
    assert code == 0
    assert out.startswith(f"{wav}: neutral 0.")

    (model / "model.safetensors").write_bytes(b"flipped")
    code, _, err = gmp_atl("verify", "-c", config)
    assert code == errors.ArtifactError.exit_code
    assert "is damaged:" in err
    assert "finetune" in err


def test_verify_needs_to_know_where(gmp_atl: Run, tmp_path: Path) -> None:
    code, _, err = gmp_atl("verify")
    assert code == 2
    assert err == "error: no root to verify; give --root or --config\n"


def test_verify_of_a_root_with_nothing_below_it(gmp_atl: Run, tmp_path: Path) -> None:
    """After a restore that has brought nothing, or of a misspelt root."""
    for command in ("verify", "repair"):
        code, out, err = gmp_atl(command, "--root", tmp_path / "root")
        assert (code, out) == (errors.ArtifactError.exit_code, "")
        assert f"there is no artefact below {(tmp_path / 'root').as_uri()}, so there was" in err


def test_a_folder_without_a_model(gmp_atl: Run, tmp_path: Path) -> None:
    sf.write(tmp_path / "a.wav", np.zeros(16_000), 16_000)
    code, _, err = gmp_atl("predict", tmp_path, tmp_path / "a.wav")
    assert code == errors.ModelError.exit_code
    assert "has no config.json and no model.safetensors; give the files/ folder" in err


def test_a_stock_model_is_not_a_fine_tuned_one(gmp_atl: Run, tiny: Tiny, tmp_path: Path) -> None:
    sf.write(tmp_path / "a.wav", np.zeros(16_000), 16_000)
    folder = Path(tiny.context.store.absolute(f"{tiny.backbone.key.prefix}/files"))
    code, _, err = gmp_atl("predict", folder, tmp_path / "a.wav")
    assert code == errors.ModelError.exit_code
    assert "is not a model that finetune wrote" in err


def test_features_go_in_and_out(gmp_atl: Run, tmp_path: Path) -> None:
    npy = tmp_path / "train_0_1.npy"
    np.save(npy, np.ones((5, 3), "<f4"))
    npy.with_suffix(".len").write_text("2\n3\n")
    root = ("--root", tmp_path / "root")
    code, out, _ = gmp_atl("features", "import", npy, "--layer", "9", *root)
    assert code == 0
    kind, features, words = out.split(maxsplit=2)
    assert (kind, len(features), words) == ("extract", 65, "2 utterances, 5 frames of layer 9\n")
    (tmp_path / "km").write_text("4 5\n6 7 8\n")
    code, out, _ = gmp_atl(
        "features", "import", npy, "--layer", "9", *root, "--km", tmp_path / "km"
    )
    assert code == 0
    labels = out.splitlines()[1].removeprefix("label ").removesuffix(": scale 0")

    export = ("features", "export", features[:6], "--out", tmp_path / "out", *root)
    assert gmp_atl(*export, "--layer", "9", "--labels", labels[:6]) == (
        0,
        f"extract {features} 2 utterances, 5 frames of layer 9 in {tmp_path}/out/train_0_1.npy\n"
        f"label {labels}: scale 0 in {tmp_path}/out/train_0_1.km\n",
        "",
    )
    assert (tmp_path / "out" / "train_0_1.km").read_text() == "4 5\n6 7 8\n"
    assert (tmp_path / "out" / "train_0_1.len").read_text() == "2\n3\n"
    assert np.array_equal(np.load(tmp_path / "out" / "train_0_1.npy"), np.load(npy))

    for wrong, message in (
        (("--layer", "8"), "holds no features of layer 8; its parts are ('import-00000-layer09',)"),
        (("--layer", "9", "--labels", "xyz"), "'xyz' begins the fingerprint of 0 label artefacts"),
        (("--layer", "9", "--labels", labels, "--scale", "1"), "has no labels of scale 1"),
        (("--layer", "9", "--name", "../x"), "is not a file name"),
    ):
        code, out, err = gmp_atl(*export, *wrong)
        assert code == errors.ArtifactError.exit_code
        assert message in err


def test_features_without_their_lengths(gmp_atl: Run, tmp_path: Path) -> None:
    code, _, err = gmp_atl(
        "features", "import", tmp_path / "a.npy", "--layer", "9", "--root", tmp_path
    )
    assert code == errors.ArtifactError.exit_code
    assert err == (
        f"error: {tmp_path}/a.len: cannot be read (No such file or directory); give an existing "
        f"file\n"
    )


def test_an_interruption_says_that_nothing_is_lost(
    gmp_atl: Run, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gmp_atl_dist import execution

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(execution, "run_pipeline", interrupt)
    code, _, err = gmp_atl("run", "-c", config)
    assert code == 130
    assert "finished stages and parts are kept" in err


def test_a_defect_of_ours_keeps_its_traceback(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gmp_atl_dist import execution

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(execution, "run_pipeline", fail)
    with pytest.raises(ZeroDivisionError):
        main(["run", "-c", str(config)])


def test_every_kind_of_error_has_its_own_exit_code() -> None:
    kinds = [errors.GmpAtlError, *errors.GmpAtlError.__subclasses__()]
    assert len({kind.exit_code for kind in kinds}) == len(kinds)
    assert 0 not in {kind.exit_code for kind in kinds}


def test_a_reader_that_has_enough_is_no_error() -> None:
    """``gmp-atl ... | head -1``: the exit code of a closed pipe, and not a word."""
    words = shlex.join([sys.executable, "-m", "gmp_atl_dist.cli", "config", "schema", "--markdown"])
    script = f"{words} | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("141", "")
