"""What a release holds: one version, a citation, hosted CI, shipped configurations, a complete wheel."""

from __future__ import annotations

import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from gmp_atl_dist import __version__
from gmp_atl_dist.cli.main import main
from gmp_atl_dist.config.file import load_config
from gmp_atl_dist.errors import ConfigError
from gmp_atl_dist.shipped import shipped_configs, shipped_path, shipped_sweeps, summary_of
from gmp_atl_dist.submit import order_of

REPOSITORY = Path(__file__).resolve().parents[1]
GITHUB = REPOSITORY / ".github"
NAMES = sorted(
    path.relative_to(REPOSITORY / "configs").with_suffix("").as_posix()
    for path in REPOSITORY.glob("configs/**/*.toml")
    if path.parent.name != "sweeps"
)
WHOLE_FILES = [name for name in NAMES if "/" not in name]
"""Those that extend no other one; the others are arms, which tests/test_arms.py loads."""


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


# --- one version ---


def test_the_version_has_one_source() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    setuptools = project["tool"]["setuptools"]

    assert "version" not in project["project"]
    assert setuptools["dynamic"]["version"] == {"attr": "gmp_atl_dist.__version__"}
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)


def test_the_changelog_dates_the_version() -> None:
    changelog = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    released = read_yaml(REPOSITORY / "CITATION.cff")["date-released"]

    assert f"## [{__version__}] - {released}\n" in changelog


def test_image_tags_have_the_version() -> None:
    dockerfile = (REPOSITORY / "deploy/image/Dockerfile").read_text()

    assert set(re.findall(r"gmp-atl(?:-gpu)?:(\d+\.\d+\.\d+)", dockerfile)) == {__version__}


def test_the_citation_is_complete() -> None:
    citation = read_yaml(REPOSITORY / "CITATION.cff")

    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    assert citation["title"] == "gmp_atl_dist"
    assert citation["message"]
    assert citation["version"] == __version__
    assert citation["license"] == "Apache-2.0"
    assert citation["authors"] == [{"name": "gmp_atl_dist contributors"}]
    datetime.date.fromisoformat(citation["date-released"])
    (paper,) = citation["references"]
    assert paper["type"] == "article"
    assert paper["title"].startswith("GMP-ATL: ")
    assert paper["authors"][0] == {"given-names": "Yu", "family-names": "Pan"}
    assert {"type", "title", "authors"} <= set(paper)
    assert [i["value"] for i in paper["identifiers"]] == ["arXiv:2405.02151"]


# --- three installs ---


def pins(kind: str) -> dict[str, str]:
    """What a file of constraints says of each distribution, operator and version."""
    text = (REPOSITORY / f"constraints-{kind}.txt").read_text()
    found = re.findall(r"^([A-Za-z0-9_.-]+?)(={2,3}\S+)$", text, re.MULTILINE)
    return {name.lower().replace("_", "-"): version for name, version in found}


@pytest.mark.parametrize("kind", ["gpu-cu12", "gpu-cu13"])
def test_gpu_installs_differ_in_torch_faiss_and_cuda_alone(kind: str) -> None:
    """All pods of a cluster need the same Ray, whatever they compute on."""
    cpu, gpu = pins("cpu"), pins(kind)
    own = ("torch", "torchaudio", "triton", "faiss-", "nvidia-", "cuda-")
    differ = {name for name in cpu.keys() | gpu.keys() if cpu.get(name) != gpu.get(name)}
    assert {name for name in differ if not name.startswith(own)} == set()
    assert {cpu["torch"]} == {"==" + gpu["torch"].lstrip("=").partition("+")[0]}


def test_no_gpu_install_takes_a_torch_for_cpus_and_only_one_takes_faiss_on_gpus() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert pins("gpu-cu12")["torch"].endswith("+cu126")
    # pip takes 2.13.0+cpu for ==2.13.0, and not for ===2.13.0.
    assert pins("gpu-cu13")["torch"].startswith("===")
    assert "faiss-gpu>=1.15,<2" in extras["gpu"]
    assert [r for r in extras["gpu13"] if r.startswith("faiss")] == ["faiss-cpu>=1.15"]
    assert {"faiss-gpu"} == {n for n in pins("gpu-cu12") if n.startswith("faiss")}
    assert {"faiss-cpu"} == {n for n in pins("gpu-cu13") if n.startswith("faiss")}


def test_the_matrix_covers_the_ends_of_the_ranges_and_names_what_it_skips(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(REPOSITORY / ".ci")
    import matrix  # pyright: ignore[reportMissingImports]

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    least = {
        name: found.group(1)
        for name in ("torch", "transformers")
        if (found := re.search(rf"^{name}>=(\d+\.\d+)", "\n".join(project["dependencies"]), re.M))
    }
    assert (
        f"torch=={least['torch']}.*",
        f"transformers=={least['transformers']}.*",
    ) == matrix.OLDEST
    classified = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    assert set(classified) <= {cell.python for cell in matrix.CELLS}
    monkeypatch.setattr(matrix, "interpreter", lambda version: None)
    assert matrix.main(["py313-newest"]) == 1
    assert "there is no Python 3.13 on this machine" in capsys.readouterr().out


# --- what GitHub reads ---


def test_hosted_ci_runs_the_checks() -> None:
    workflow = read_yaml(GITHUB / "workflows/ci.yml")
    events = workflow[True]  # YAML 1.1 reads the key `on` as true

    assert set(events) == {"push", "pull_request", "workflow_dispatch"}
    assert workflow["permissions"] == {"contents": "read"}
    assert set(workflow["concurrency"]) == {"group", "cancel-in-progress"}
    (job,) = workflow["jobs"].values()
    assert "permissions" not in job
    assert job["runs-on"].startswith("ubuntu-")
    assert 0 < job["timeout-minutes"] <= 120
    assert [step["run"] for step in job["steps"] if "run" in step] == ["bash .ci/run"]
    (python,) = [s["with"] for s in job["steps"] if "actions/setup-python" in s.get("uses", "")]
    assert python["python-version"] == "3.11"
    assert python["cache"] == "pip"
    for path in python["cache-dependency-path"].split():
        assert (REPOSITORY / path).is_file(), path


def test_local_checks_are_executable() -> None:
    for name in ("run", "try-wheel"):
        script = REPOSITORY / ".ci" / name
        assert os.access(script, os.X_OK)
        subprocess.run(["bash", "-n", str(script)], check=True)


@pytest.mark.parametrize("name", ["bug_report", "feature_request"])
def test_issue_forms(name: str) -> None:
    form = read_yaml(GITHUB / f"ISSUE_TEMPLATE/{name}.yml")

    assert form["name"]
    assert form["description"]
    asked = [item for item in form["body"] if item["type"] != "markdown"]
    ids = [item["id"] for item in asked]
    labels = [item["attributes"]["label"] for item in asked]
    assert len(set(ids)) == len(ids)
    assert len(set(labels)) == len(labels)
    assert any(item.get("validations", {}).get("required") for item in asked)
    for item in form["body"]:
        assert item["type"] in ("markdown", "input", "textarea", "dropdown", "checkboxes")
        if item["type"] == "dropdown":
            assert len(set(item["attributes"]["options"])) > 1


def test_templates_name_what_exists() -> None:
    chooser = read_yaml(GITHUB / "ISSUE_TEMPLATE/config.yml")
    request = (GITHUB / "PULL_REQUEST_TEMPLATE.md").read_text(encoding="utf-8")

    assert isinstance(chooser["blank_issues_enabled"], bool)
    assert ".ci/run" in request
    assert "CHANGELOG.md" in request


# --- configurations by name ---


def test_shipped_configurations_are_those_of_the_repository() -> None:
    assert list(shipped_configs()) == NAMES
    for name, path in shipped_configs().items():
        assert path.samefile(REPOSITORY / f"configs/{name}.toml")


@pytest.mark.parametrize("name", [*WHOLE_FILES, "iemocap/tapt"])
def test_a_shipped_name_loads_from_anywhere(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert load_config(name) == load_config(REPOSITORY / f"configs/{name}.toml")


def test_a_file_takes_precedence_over_a_shipped_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    demo = load_config("demo")
    Path("demo").mkdir()
    assert load_config("demo") == demo  # a folder is no configuration
    Path("demo").rmdir()
    Path("demo").write_text("[warmup]\nlr = 0.125")

    assert shipped_path("demo") is None
    assert load_config("demo").warmup.lr == 0.125


@pytest.mark.parametrize("config", ["demmo", "demo.toml", "configs/demo.toml"])
def test_an_unknown_name_lists_the_known_ones(
    config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ConfigError) as caught:
        load_config(config)

    assert caught.value.message == (
        f"{config}: cannot be read (No such file or directory); give an existing TOML file, or the "
        f"name of a shipped configuration: {', '.join(WHOLE_FILES)}, or of an arm that gmp-atl config list "
        f"names"
    )


def test_the_command_line_takes_and_lists_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    assert main(["config", "check", "--config", "demo", "--set", "warmup.lr=0.5"]) == 0
    assert json.loads(capsys.readouterr().out)["warmup"]["lr"] == 0.5
    assert main(["config", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    files = shipped_configs() | shipped_sweeps()
    assert [line.split()[0] for line in lines] == list(files)
    assert "sweeps/iemocap" in files
    for line, path in zip(lines, files.values(), strict=True):
        assert line.endswith(f"  {summary_of(path)}")


@pytest.mark.parametrize("name", NAMES)
def test_the_first_comment_says_what_a_configuration_is_for(name: str) -> None:
    """One sentence on one line, which ``config list`` shows."""
    assert re.fullmatch(r".{20,110}\.", summary_of(shipped_configs()[name]))


def test_a_summary_is_the_first_comment(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text("\n[warmup]\n# Small.\n# Slow.\n")
    assert summary_of(path) == "Small."
    path.write_text("[warmup]\nlr = 1\n")
    assert summary_of(path) == ""


def test_a_job_gets_the_shipped_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the working directory is: the package on the cluster has the file."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "uploaded"
    folder.mkdir()
    settings: dict[str, Any] = {"overrides": (), "root": "s3://bucket/runs", "env": ()}
    experiment = load_config("demo", ["runtime.root='s3://bucket/runs'"])

    made = order_of(Path("demo"), experiment, folder=folder, **settings)
    assert made.arguments == ("--config", "demo", "--root", "s3://bucket/runs")

    (folder / "demo").write_text("")
    with pytest.raises(ConfigError, match="names a shipped configuration here"):
        order_of(Path("demo"), experiment, folder=folder, **settings)
    made = order_of(Path("uploaded/demo"), experiment, folder=folder, **settings)
    assert made.arguments[:2] == ("--config", "demo")


# --- the wheel ---


def build(function: str, source: Path, out: Path) -> Path:
    """What setuptools builds from ``source``, as ``make dist`` has it built."""
    script = (
        "import sys; from setuptools import build_meta; "
        "print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"
    )
    command = [sys.executable, "-c", script, function, str(out)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out / done.stdout.splitlines()[-1]


def test_sdist_and_wheel_are_complete(tmp_path: Path) -> None:
    """The wheel is built from the sdist; it holds every file of the package, and no other package."""
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    for name in ("gmp_atl_dist", "configs", "ray_jobs", "tests"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, source / name, symlinks=True, ignore=ignored)
    for path in REPOSITORY.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy(path, source)

    sdist = build("build_sdist", source, out)
    assert sdist.name == f"gmp_atl_dist-{__version__}.tar.gz"
    shutil.unpack_archive(sdist, tmp_path)
    unpacked = tmp_path / f"gmp_atl_dist-{__version__}"
    constraints = [f"constraints-{kind}.txt" for kind in ("cpu", "gpu-cu12", "gpu-cu13")]
    for name in ("CITATION.cff", "CHANGELOG.md", "LICENSE", "README.md", *constraints):
        assert (unpacked / name).is_file(), name
    assert not (unpacked / "tests").exists()
    wheel = build("build_wheel", unpacked, out)

    folder = REPOSITORY / "gmp_atl_dist"
    expected = {
        path.relative_to(REPOSITORY).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and not {"__pycache__", "shipped_configs"} & set(path.parts)
    }
    shipped_names = [*NAMES, *shipped_sweeps()]
    expected |= {f"gmp_atl_dist/shipped_configs/{name}.toml" for name in shipped_names}
    with zipfile.ZipFile(wheel) as archive:
        files = set(archive.namelist())
        information = f"gmp_atl_dist-{__version__}.dist-info/"
        assert {f for f in files if not f.startswith(information)} == expected
        metadata = archive.read(f"{information}METADATA").decode()
        scripts = archive.read(f"{information}entry_points.txt").decode()
        for name in shipped_names:
            shipped = archive.read(f"gmp_atl_dist/shipped_configs/{name}.toml")
            assert shipped == (REPOSITORY / f"configs/{name}.toml").read_bytes()
    assert f"\nVersion: {__version__}\n" in metadata
    assert "gmp-atl = gmp_atl_dist.cli.main:main" in scripts
