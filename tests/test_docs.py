"""README and docs/: their size, their links, and that what they name exists and works."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import os
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import ModuleType

import pytest
import typer.main

from gmp_atl_dist import metrics
from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.config.file import parse_config
from gmp_atl_dist.config.problems import mistyped
from gmp_atl_dist.config.sweep import SweepConfig

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
MOST_WORDS_OF_README = 1_200
LONGEST_LINE = 120

_LINK = re.compile(r"!?\[[^\[\]]*\]\(([^()\s]+)\)")
_SPAN = re.compile(r"`[^`\n]+`")


@dataclass(frozen=True)
class Fence:
    """A block of code: its language, the ``title`` of the file that it is, and its text."""

    page: str
    language: str
    title: str
    body: str


def fences(page: Path) -> Iterator[Fence]:
    """The fenced blocks of a page, in order."""
    opened: list[str] | None = None
    language, title = "", ""
    for line in page.read_text(encoding="utf-8").splitlines():
        marker = re.fullmatch(r'```(\w*)(?: title="([^"]*)")?', line.strip())
        if opened is None and marker is not None:
            opened, language, title = [], marker[1], marker[2] or ""
        elif opened is not None and line.strip() == "```":
            yield Fence(page.name, language, title, textwrap.dedent("\n".join(opened) + "\n"))
            opened = None
        elif opened is not None:
            opened.append(line)
    assert opened is None, f"{page.name}: a block of code is not closed"


def prose(page: Path) -> Iterator[tuple[int, str]]:
    """(number, line) outside blocks of code, fenced or indented."""
    fenced = indented = blank = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
            continue
        # Four spaces after a blank line are code; after text they continue a list item.
        indented = line.startswith("    ") and (indented or blank)
        blank = not line.strip()
        if not fenced and not indented:
            yield number, line


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and mkdocs make them."""
    found: set[str] = set()
    for _, line in prose(page):
        heading = re.match(r"#{1,6} (.+)", line)
        if heading is not None:
            text = re.sub(r"[^\w\s-]", "", heading[1].lower()).strip()
            found.add(re.sub(r"[-\s]+", "-", text))
    return found


def test_readme_is_short():
    words = (ROOT / "README.md").read_text(encoding="utf-8").split()
    assert len(words) <= MOST_WORDS_OF_README


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_lines_are_short(page: Path):
    long = [
        f"{page.name}:{number} has {len(line)} characters"
        for number, line in prose(page)
        # A table's row cannot be wrapped, and neither can a link.
        if len(line) > LONGEST_LINE and not line.lstrip().startswith("|") and "](" not in line
    ]
    assert not long, "\n".join(long)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    broken: list[str] = []
    for number, line in prose(page):
        for target in _LINK.findall(_SPAN.sub("", line)):
            if "://" in target or target.startswith("mailto:"):
                continue
            path, _, anchor = target.partition("#")
            other = (page.parent / path).resolve() if path else page
            if not other.exists():
                broken.append(f"{page.name}:{number}: {target} is not there")
            elif anchor and other.suffix == ".md" and anchor not in anchors(other):
                broken.append(f"{page.name}:{number}: {target} has no such heading")
    assert not broken, "\n".join(broken)


def test_every_page_is_in_the_navigation():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r"^ +- .*: (\S+\.md)$", text, re.MULTILINE))
    hooks = _module(DOCS / "site_hooks.py")
    assert listed == {page.name for page in DOCS.glob("*.md")} | set(hooks.PAGES_OF_ROOT.values())


def test_pictures_are_small():
    assert (DOCS / "images" / "report.png").stat().st_size < 200_000


@pytest.mark.parametrize(
    "name",
    [
        *("configuration", "corpora", "modules", "stages"),
        pytest.param("screens", marks=pytest.mark.nightly),
    ],
)
def test_generated_pages_are_up_to_date(name: str):
    generator = _module(DOCS / f"generate_{name}.py")
    assert generator.PAGE.read_text(encoding="utf-8") == generator.page(), (
        f"run {generator.COMMAND}"
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_toml_blocks_are_configurations(page: Path):
    for fence in fences(page):
        if fence.language != "toml":
            continue
        raw = tomllib.loads(fence.body)
        if "arms" in raw:
            assert not mistyped(raw, SweepConfig, page.name)
            SweepConfig.model_validate(raw)
            continue
        # Blocks of pyproject.toml are no configurations.
        if set(raw) <= set(RunConfig.model_fields):
            parse_config(raw, f"{page.name}: {fence.body.splitlines()[0]}")
        else:
            assert set(raw) <= {"build-system", "project", "tool"}, f"{page.name}: {sorted(raw)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page: Path):
    """In blocks of code and in the text; with their options where a block names them."""
    problems: list[str] = []
    for fence in fences(page):
        if fence.language in ("bash", "sh", "console"):
            for words in _calls(fence.body):
                problems += _problems_of_call(words)
    for _, line in prose(page):
        for span in re.findall(r"`(gmp-atl [^`]+)`", line):
            problems += _problems_of_call(re.split(r"\s+", span.split("[")[0].strip())[1:])
    assert not problems, f"{page.name}: {problems}"


def test_every_command_is_on_the_page_of_commands():
    text = (DOCS / "commands.md").read_text(encoding="utf-8")
    missing = [name for name in _leaves(_command_line()) if f"`gmp-atl {name}" not in text]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_parse_and_import_what_exists(page: Path):
    for fence in fences(page):
        if fence.language != "python":
            continue
        for node in ast.walk(ast.parse(fence.body)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("gmp_atl_dist"):
                module = importlib.import_module(str(node.module))
                for name in node.names:
                    assert hasattr(module, name.name), f"{page.name}: {node.module}.{name.name}"


def test_functions_of_the_api_page_exist():
    text = (DOCS / "python-api.md").read_text(encoding="utf-8").partition("## Metrics")[2]
    signatures = re.findall(r"^\| `(\w+)\(([^)]*)\)`", text, re.MULTILINE)
    assert signatures
    for name, parameters in signatures:
        names = [word.strip() for word in parameters.split(",")]
        known = inspect.signature(getattr(metrics, name)).parameters
        assert [word for word in names if word != "*"] == list(known), name


def test_site_hooks_rewrite_links():
    hooks = _module(DOCS / "site_hooks.py")
    readme, page = PurePosixPath("README.md"), PurePosixPath("docs/method.md")
    assert hooks.for_site("[a](docs/method.md#stages)", readme) == "[a](method.md#stages)"
    assert hooks.for_site("![a](docs/images/report.png)", readme) == "![a](images/report.png)"
    assert hooks.for_site("[a](CONTRIBUTING.md)", readme) == "[a](contributing.md)"
    assert hooks.for_site("[LICENSE](LICENSE)", readme) == "LICENSE"
    assert hooks.for_site("[a](../README.md)", page) == "[a](index.md)"
    assert hooks.for_site("[a](corpora.md)", page) == "[a](corpora.md)"
    assert hooks.for_site("[a](../configs/none.toml)", page) == "[a](../configs/none.toml)"
    assert hooks.for_site("```\n[a](docs/x.md)\n```\n", readme) == "```\n[a](docs/x.md)\n```\n"


def test_site_builds_without_a_warning(tmp_path: Path):
    pytest.importorskip("mkdocs", reason="make docs installs it")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    remote = r'<(?:link rel="(?:stylesheet|preload)"|script|img)[^>]*(?:src|href)="(?:https?:)?//'
    for page in tmp_path.glob("*.html"):
        assert not re.search(remote, page.read_text(encoding="utf-8")), (
            f"{page.name} loads from elsewhere"
        )


@pytest.mark.nightly
@pytest.mark.integration
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["quickstart", "tutorial"])
def test_walkthrough_works_word_for_word(name: str, tmp_path: Path):
    """Every command of the page, in its order, in a folder that has what a clone has."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    binaries = Path(sys.executable).parent
    env = {
        **os.environ,
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    env.pop("RAY_ADDRESS", None)
    instead = {
        # What installs is not tested here; the rest of `make demo` is.
        "make demo": "gmp-atl corpora synth --out runs/demo/corpus && "
        "gmp-atl run --config configs/demo.toml --root runs/demo",
        ". .venv/bin/activate": "true",
    }
    for fence in fences(DOCS / f"{name}.md"):
        if fence.title:
            (tmp_path / fence.title).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / fence.title).write_text(fence.body, encoding="utf-8")
        elif fence.language == "bash":
            command = "\n".join(instead.get(line, line) for line in fence.body.splitlines())
            expected = re.search(r"# exits with (\d+)", command)
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", command],
                cwd=tmp_path,
                env=env,
                capture_output=True,
                text=True,
            )
            code = int(expected[1]) if expected else 0
            assert done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"
            print(f"$ {command}\n{done.stdout}{done.stderr}")


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _command_line() -> object:
    try:
        module = importlib.import_module("gmp_atl_dist.cli.main")
    except ModuleNotFoundError:
        module = importlib.import_module("gmp_atl_dist.cli")
    return typer.main.get_command(module.app)


def _below(command: object) -> Mapping[str, object]:
    """Sub-commands by name; of a command that has none, nothing."""
    return getattr(command, "commands", {})


def _leaves(command: object, before: str = "") -> Iterator[str]:
    for name, inner in _below(command).items():
        if _below(inner):
            yield from _leaves(inner, f"{before}{name} ")
        else:
            yield f"{before}{name}"


def _calls(script: str) -> Iterator[list[str]]:
    """The words after ``gmp-atl`` of each call in a shell script."""
    for line in script.replace("\\\n", " ").splitlines():
        if line.lstrip().startswith("gmp-atl"):
            yield shlex.split(line, comments=True)[1:]


def _problems_of_call(words: list[str]) -> list[str]:
    command: object = _command_line()
    path: list[str] = []
    for word in words:
        if not _below(command) or not re.fullmatch(r"[a-z-]+", word) or word.startswith("--"):
            break
        if word not in _below(command):
            return [f"gmp-atl {' '.join([*path, word])} is no command"]
        command = _below(command)[word]
        path.append(word)
    options = {option for parameter in getattr(command, "params", ()) for option in parameter.opts}
    return [
        f"gmp-atl {' '.join(path)} has no option {word}"
        for word in words[len(path) :]
        if re.fullmatch(r"--[a-z-]+", word) and word not in options | {"--help"}
    ]
