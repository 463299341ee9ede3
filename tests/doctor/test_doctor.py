"""``gmp-atl doctor`` as a whole: everything at once, in seconds, and nothing secret."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.s3_server import S3Server, free_ports

from gmp_atl_dist.cli.main import main
from gmp_atl_dist.config import RunConfig, RuntimeConfig
from gmp_atl_dist.config.file import load_config
from gmp_atl_dist.corpora.synth import write_synthetic_corpus
from gmp_atl_dist.doctor.checkup import Timeouts, checkup, examine
from gmp_atl_dist.doctor.corpus import check_corpus
from gmp_atl_dist.doctor.findings import Finding, is_fatal
from gmp_atl_dist.doctor.machine import check_disk, check_libraries, check_ops, check_shared_memory
from gmp_atl_dist.doctor.show import show
from gmp_atl_dist.redaction import names_a_secret

Doctor = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("doctor") / "corpus"
    write_synthetic_corpus(folder, utterances_per_speaker_and_emotion=1, seconds=(0.1, 0.2))
    return folder


@pytest.fixture
def config(tmp_path: Path, corpus: Path) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(
        f'[runtime]\ncorpus = "{corpus}"\nroot = "{tmp_path / "root"}"\ningest = {{ workers = 1 }}\n'
    )
    return path


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Doctor:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        code = main(["doctor", *map(str, arguments)])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_a_run_that_could_work(doctor: Doctor, config: Path) -> None:
    code, out, err = doctor("--config", config, "--json")

    said = json.loads(out)
    assert (code, said["ok"], err) == (0, True, "")
    checks = {finding["check"] for finding in said["findings"]}
    assert checks >= {"configuration", "store", "clock", "corpus", "ray", "resources", "disk"}


def test_a_fold_that_there_is_not_is_fatal(doctor: Doctor, config: Path) -> None:
    code, out, _ = doctor("--config", config, "--set", "folds.run=[9]")
    assert code == 8
    assert "there is no fold 9" in out


def test_all_problems_come_at_once(
    doctor: Doctor, config: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_ports(1)[0]}")
    wrong = ("runtime.corpus=/nowhere", "runtime.label.cpus=4096", "runtime.train.cpus=4096")
    settings = [part for key in wrong for part in ("--set", key)]
    began_s = time.monotonic()

    code, out, err = doctor("--config", config, *settings, "--root", s3_server.new_uri())

    assert code == 8
    assert time.monotonic() - began_s < 40
    fatal = [line for line in out.splitlines() if line.startswith("fatal")]
    for item in ("store", "corpus", "runtime.label", "runtime.train"):
        assert any(item in line for line in fatal), item
    assert "4 fatal problems" in err


def test_a_configuration_that_does_not_load(doctor: Doctor, config: Path) -> None:
    code, out, _ = doctor("--config", config, "--set", "cluster.seed='x'", "--set", "label.no=1")

    assert code == 8
    lines = out.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("fatal   configuration") for line in lines)
    assert "label.no" in out


def test_a_number_of_gpus_that_no_process_can_use(doctor: Doctor, config: Path) -> None:
    code, out, _ = doctor("--config", config, "--set", "runtime.train.gpus=2")

    assert code == 8
    assert out.startswith("fatal   configuration")
    assert "write gpus = 1 and raise workers" in out


def test_an_unreachable_ray(doctor: Doctor, config: Path) -> None:
    address = f"127.0.0.1:{free_ports(1)[0]}"

    code, out, _ = doctor("--config", config, "--set", f"runtime.ray_address={address}")

    assert code == 8
    assert f"fatal   ray: {address}: nobody answers" in out


def test_it_waits_for_what_comes(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "root"
    blocked.write_text("a file where the root should be")
    seen: list[list[Finding]] = []

    def waiting(findings: list[Finding]) -> None:
        seen.append(findings)
        blocked.unlink(missing_ok=True)

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("gmp_atl_dist.doctor.checkup._RETRY_S", 0.1)
    found = checkup(lambda: {"": load_config(config)}, 60.0, waiting)

    assert [[f.check for f in findings if f.severity == "fatal"] for findings in seen] == [
        ["store"]
    ]
    assert not is_fatal(found)


def test_what_hangs_is_given_up(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "gmp_atl_dist.doctor.checkup.check_machine", lambda *_: iter([time.sleep(60)])
    )

    found = examine({"": RunConfig()}, Timeouts(ray_s=0.1, labels_s=0.1, check_s=0.5))

    hung = [f for f in found if f.check == "machine"]
    assert [f.severity for f in hung] == ["fatal"]
    assert "no answer within" in hung[0].value


def test_a_corpus_at_a_glance(corpus: Path, tmp_path: Path) -> None:
    def of(root: Path, **keys: object) -> Finding:
        settings = {"corpus": keys, "runtime": {"corpus": str(root)}}
        return next(check_corpus(RunConfig.model_validate(settings), 3.0, 10.0))

    assert of(corpus).severity == "ok"
    assert "utterances listed" in of(corpus).value
    assert "corpus.adapter" in of(corpus, adapter="nonsense").value
    (tmp_path / "manifest.csv").write_text("id,path\na,b.wav\n")
    assert "speaker" in of(tmp_path, adapter="table").value
    rows = "id,path,speaker,gender,emotion\na,b.wav,s,female,sad\n"
    (tmp_path / "manifest.csv").write_text(rows)
    missing = of(tmp_path, adapter="table")
    assert missing.severity == "fatal"
    assert "b.wav" in missing.value


def test_extras_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gmp_atl_dist.doctor.machine.find_spec", lambda name: None)
    settings = {"train": {"mlflow_uri": "https://mlflow.example"}}

    found = list(check_libraries(RuntimeConfig.model_validate(settings)))

    assert [(f.severity, f.item.partition(",")[0]) for f in found] == [
        ("fatal", "torch"),
        ("fatal", "transformers"),
        ("fatal", "faiss"),
        ("warning", "mlflow"),
    ]


def test_ops_that_are_not_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    assert check_ops().severity == "warning"
    folder = tmp_path / "deepspeed_shm_comm"
    folder.mkdir()
    (folder / "deepspeed_shm_comm.so").write_text("")
    assert check_ops().severity == "ok"
    (folder / "lock").write_text("")
    assert "lock" in check_ops().value


def test_room_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_shared_memory(64 << 20).severity == "warning"
    assert check_shared_memory(8 << 30).severity == "ok"
    assert str(tmp_path / "a" / "b") in check_disk(tmp_path / "a" / "b").item
    monkeypatch.setattr("gmp_atl_dist.doctor.machine._FREE_BYTES", 1 << 60)
    assert check_disk(tmp_path).severity == "warning"


def test_a_terminal_gets_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    show([Finding("store", "[bold]s3://x", "is well")], terminal=True)

    assert "[bold]s3://x" in capsys.readouterr().out


def test_which_variables_are_secret() -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "RAY_AUTH_TOKEN", "DB_PASSWORD"):
        assert names_a_secret(name), name
    for name in ("RAY_AUTH_TOKEN_PATH", "AWS_REGION", "AWS_ENDPOINT_URL", "OMP_NUM_THREADS"):
        assert not names_a_secret(name), name
