"""Misspelt roots, corpora and outputs are refused with the right spelling; nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from support.handed import handed_case

from gmp_atl_dist.cli.main import main
from gmp_atl_dist.config import CorpusConfig, ModelConfig, RuntimeConfig
from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.store.filesystem import Store, normalize_uri
from gmp_atl_dist.uris import uri_problem

MISSPELT = [
    ("", "is empty"),
    ("  ", "is empty"),
    ("s3:/bucket/runs", "write s3://bucket/runs"),
    ("s3:bucket/runs", "write s3://bucket/runs"),
    ("S3://bucket/runs", "write s3://bucket/runs"),
    (" s3://bucket/runs", "write s3://bucket/runs"),
    ("file:/x/y", "write file:///x/y"),
    ("file:x/y", "write file:///x/y"),
    ("FILE:///x", "write file:///x"),
    ("file://localhost/x", "write file:///x"),
    ("file:/localhost/x", "write file:///x"),
    ("file://runs/x", "write file:///runs/x or file:///x"),
    ("file://runs", "write file:///runs, or runs for a folder"),
    ("file://", "names no absolute path"),
    ("gs:/bucket", "write gs://bucket"),
    ("exp:/x", "write exp://x, or ./exp:/x for a folder of that name"),
    ("C:\\data", "looks like a URI"),
]


@pytest.mark.parametrize(("text", "remedy"), MISSPELT)
def test_a_misspelt_place_is_refused_with_the_right_spelling(text: str, remedy: str) -> None:
    assert remedy in uri_problem(text)
    with pytest.raises(ArtifactError) as caught:
        Store.open(text)
    assert remedy in caught.value.message


@pytest.mark.parametrize(
    "text",
    [
        "runs",
        "/a/b",
        "./s3:/x",
        "a:b",
        "12:30",
        "~/x",
        "s3://b/p:q",
        "file:///x",
        "random:tiny",
        "s3",
    ],
)
def test_other_names_are_no_misspelt_uris(text: str) -> None:
    assert uri_problem(text) == ""


def test_the_right_spellings_are_taken() -> None:
    assert normalize_uri("s3://bucket/runs/") == "s3://bucket/runs"
    assert normalize_uri("./s3:/x").endswith("/s3:/x")


@pytest.mark.parametrize(("text", "remedy"), MISSPELT)
@pytest.mark.parametrize(
    "check",
    [
        lambda text: RuntimeConfig(root=text),
        lambda text: RuntimeConfig(corpus=text),
        lambda text: ModelConfig(source=text),
        lambda text: CorpusConfig(table=text),
    ],
)
def test_the_configuration_refuses_it_too(
    check: Callable[[str], object], text: str, remedy: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        check(text)
    assert remedy in str(caught.value)


def test_the_handed_root_with_one_slash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "s3:/bucket/runs" in (handed_case("s3-one-slash", tmp_path) / "README").read_text()
    monkeypatch.chdir(tmp_path / "s3-one-slash")
    np.save("km.npy", np.ones((4, 8), "f4"))
    before = sorted(path.name for path in Path().iterdir())
    command = ["codebook", "import", "km.npy", "--layer", "6", "--root", "s3:/bucket/runs"]
    assert main(command) == ArtifactError.exit_code
    assert "write s3://bucket/runs" in capsys.readouterr().err
    assert sorted(path.name for path in Path().iterdir()) == before


def test_the_handed_root_of_an_unset_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(handed_case("empty-root", tmp_path))
    assert main(["verify", "--root", ""]) == ArtifactError.exit_code
    assert "look whether a variable is unset" in capsys.readouterr().err


ROOTS = ("", "s3:/bucket/runs", "file:/x", "file://localhost/x", "S3://b/x")
COMMANDS = [
    ["verify"],
    ["runs"],
    ["runs", "show", "a-run"],
    ["features", "import", "km.npy", "--layer", "6"],
    ["features", "export", "abc", "--layer", "6", "--out", "x"],
    ["codebook", "import", "km.npy", "--layer", "6"],
    ["codebook", "export", "abc", "--out", "x.npy"],
    ["run", "-c", "demo"],
    ["status", "-c", "demo"],
    ["corpora", "check", "-c", "demo", "-s", "runtime.corpus="],
]


@pytest.mark.parametrize("root", ROOTS)
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_commands_refuse_it_and_write_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
    root: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "km.npy").write_bytes(b"")
    given = [f"{command[-1]}{root}"] if command[0] == "corpora" else [command[-1], "--root", root]
    assert main([*command[:-1], *given]) in (2, 4)
    err = capsys.readouterr().err
    assert "write s3://" in err or "write file:///" in err or "is empty" in err
    assert [path.name for path in tmp_path.iterdir()] == ["km.npy"]


@pytest.mark.parametrize("out", ["", "s3://bucket/x", "s3:/bucket/x", "file:///x"])
@pytest.mark.parametrize(
    "command",
    [
        ["corpora", "synth", "--out"],
        ["config", "init", "--corpus", "c", "--out"],
        ["features", "export", "abc", "--layer", "6", "--root", "r", "--out"],
        ["codebook", "export", "abc", "--root", "r", "--out"],
        ["model", "export", "--root", "r", "--to"],
        ["predict", "run", "a.wav", "--out"],
    ],
    ids=" ".join,
)
def test_outputs_on_this_machine_are_no_uris(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
    out: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*command, out]) == 2
    err = capsys.readouterr().err
    assert "is empty" in err or "is no URI; write s3://" in err or "but a URI" in err
    assert list(tmp_path.iterdir()) == []
