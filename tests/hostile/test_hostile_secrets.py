"""No password, token or signature reaches a person or a log, whatever quotes it."""

from __future__ import annotations

import ast
import io
import json
import logging
import sys
from pathlib import Path

import pytest
from support.hostile import say

from gmp_atl_dist.console import Reporter
from gmp_atl_dist.errors import ArtifactError, PreflightError
from gmp_atl_dist.redaction import say_error, show_traceback, without_secrets
from gmp_atl_dist.run_log import RunLog, mark_warnings

REPOSITORY = Path(__file__).resolve().parents[2]
PASSWORD = "correct%40horse"
PLAIN = "correct@horse"
ENDPOINT = f"http://minio:{PASSWORD}@127.0.0.1:9/store"


@pytest.fixture(autouse=True)
def secrets_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", ENDPOINT)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "aws-secret-value")
    monkeypatch.setenv("HF_TOKEN", "hf_0123456789")


TEXTS = {
    "url": f"cannot reach {ENDPOINT}",
    "without-scheme": f"could not connect to minio:{PASSWORD}@127.0.0.1:9",
    "password-alone": f"login with {PASSWORD} failed",
    "decoded": f"login with {PLAIN} failed",
    "at-in-password": "https://user:p@ss@word!@host/path",
    "key": "InvalidKey: aws-secret-value",
    "token": "401 for hf_0123456789",
    "signed-s3": "GET https://b/x?X-Amz-Signature=abcdef0123&X-Amz-Date=2026",
    "signed-azure": "https://b/x?sv=1&sig=abcdef0123%3D",
}
HIDDEN = (PASSWORD, PLAIN, "ss@word!", "aws-secret-value", "hf_0123456789", "abcdef0123")


def is_clean(text: str) -> bool:
    return bool(text) and not any(secret in text for secret in HIDDEN)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_text_loses_what_is_secret(text: str) -> None:
    assert not is_clean(text)
    assert is_clean(without_secrets(text))


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/a@b/c and hf://datasets/o/n@main/x",
        "stage finetune fold1: 3/10 epochs, token accuracy 0.5",
        "mail somebody@example.org",
    ],
)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert without_secrets(text) == text


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_run_says_nothing_secret(log_format: str) -> None:
    out, err = io.StringIO(), io.StringIO()
    reporter = Reporter(False, "json" if log_format == "json" else "text", out=out, err=err)
    for text in TEXTS.values():
        reporter.line(text)
        reporter.warning(text)
        reporter.stopping(text)
        reporter.error(text, log=ENDPOINT)
    said = out.getvalue() + err.getvalue()
    assert len(said.splitlines()) >= 4 * len(TEXTS)
    assert is_clean(said)
    if log_format == "json":
        assert all(json.loads(line)["message"] for line in said.splitlines())


def test_the_log_file_of_a_run_holds_nothing_secret(tmp_path: Path) -> None:
    shown: list[str] = []
    with RunLog(str(tmp_path)) as log:
        log.show_warnings(lambda text: shown.append(without_secrets(text)))
        for text in TEXTS.values():
            print(text)
            print(text, file=sys.stderr)
    written = log.path.read_text()
    assert len(written.splitlines()) == 2 * len(TEXTS)
    assert is_clean(written)


def test_a_warning_of_a_worker_holds_nothing_secret(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("gmp_atl_dist")
    before, propagate = list(logger.handlers), logger.propagate
    try:
        logger.handlers = []
        mark_warnings()
        logger.warning("cannot reach %s", ENDPOINT)
    finally:
        logger.handlers, logger.propagate = before, propagate
    assert is_clean(capsys.readouterr().err)


def test_a_traceback_holds_nothing_secret(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise RuntimeError(f"cannot reach {ENDPOINT}")
    except RuntimeError as e:
        show_traceback(type(e), e, e.__traceback__)
    said = capsys.readouterr().err
    assert "RuntimeError: cannot reach http://127.0.0.1:9/store" in said
    assert is_clean(said)


@pytest.mark.parametrize(
    ("endpoint", "remedy"),
    [
        (ENDPOINT, "write http://127.0.0.1:9, and set AWS_ACCESS_KEY_ID"),
        (f"minio:{PASSWORD}@127.0.0.1:9", "write http://HOST:PORT"),
        (f"ftp://minio:{PASSWORD}@127.0.0.1:9", "write http://HOST:PORT"),
    ],
)
def test_a_run_names_a_wrong_endpoint_and_says_nothing_secret(
    endpoint: str, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A traceback of pyarrow, or a name that cannot be resolved, before."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    config = tmp_path / "run.toml"
    config.write_text('[corpus]\nadapter = "table"\n[model]\nsource = "random:tiny"\n')
    words = ["run", "--config", str(config), "--root", "s3://b/x"]
    said = say([*words, "--set", f'runtime.corpus="{tmp_path}"'])
    assert said.code == ArtifactError.exit_code
    assert "AWS_ENDPOINT_URL" in said.text
    assert remedy in said.text
    assert is_clean(said.text)


def test_doctor_says_nothing_secret(tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_text('[corpus]\nadapter = "table"\n[model]\nsource = "random:tiny"\n')
    words = ["doctor", "--config", str(config), "--root", "s3://b/x"]
    said = say([*words, "--set", f'runtime.corpus="{tmp_path}"'])
    assert said.code == PreflightError.exit_code
    assert "AWS_ENDPOINT_URL has a user or password" in said.text
    assert "this as a defect" not in said.text
    assert is_clean(said.text)


def test_errors_have_one_way_out() -> None:
    """Whoever prints to the standard error does it through ``redaction.say_error``."""
    own = ("redaction.py", "run_log.py")
    found: list[str] = []
    for folder in ("gmp_atl_dist", "ray_jobs"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            if path.name in own:
                continue
            text = path.read_text(encoding="utf-8")
            if "stderr" not in text and "_err" not in text:
                continue
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Call) and _writes_to_stderr(node):
                    found.append(f"{path.relative_to(REPOSITORY)}:{node.lineno}")
    assert not found, "say it by redaction.say_error"


def _writes_to_stderr(call: ast.Call) -> bool:
    def is_stderr(node: ast.expr) -> bool:
        return isinstance(node, ast.Attribute) and node.attr in ("stderr", "_err")

    if isinstance(call.func, ast.Name) and call.func.id == "print":
        return any(keyword.arg == "file" and is_stderr(keyword.value) for keyword in call.keywords)
    written = isinstance(call.func, ast.Attribute) and call.func.attr == "write"
    return written and is_stderr(call.func.value)  # pyright: ignore[reportAttributeAccessIssue]


def test_say_error_takes_a_stream() -> None:
    out = io.StringIO()
    say_error(TEXTS["url"], out)
    assert out.getvalue() == "cannot reach http://127.0.0.1:9/store\n"
