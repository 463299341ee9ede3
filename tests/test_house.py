"""Rules of the house that neither import-linter nor a type checker knows."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from gmp_atl_dist import stage_order

REPOSITORY = Path(__file__).resolve().parents[1]
ARCHITECTURE = REPOSITORY / "docs" / "architecture.md"
PACKAGE = "gmp_atl_dist"
CODE = (PACKAGE, "ray_jobs", "benchmarks", "deploy")


@cache
def modules() -> dict[str, ast.Module]:
    """The syntax tree of every module of ``CODE`` by its dotted name."""
    trees: dict[str, ast.Module] = {}
    for root in CODE:
        for path in sorted((REPOSITORY / root).rglob("*.py")):
            parts = path.relative_to(REPOSITORY).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            trees[name] = ast.parse(path.read_text(), str(path))
    return trees


def is_for_types_alone(node: ast.stmt) -> bool:
    """Whether it is an ``if TYPE_CHECKING:``."""
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """What runs when the module is imported, also below ``if``, ``try``, ``with`` and ``class``."""
    for node in body:
        if is_for_types_alone(node):
            assert isinstance(node, ast.If)
            yield from statements(node.orelse)
            continue
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for field in ("body", "orelse", "finalbody"):
            yield from statements(getattr(node, field, []))
        for handler in getattr(node, "handlers", []):
            yield from statements(handler.body)


def imported(name: str, tree: ast.Module) -> set[str]:
    """Modules of ours that module ``name`` imports when it is imported.

    Imports inside of functions are left out: they are how a module avoids a heavy import, and they
    cannot find a module half imported. Python also imports the packages around a module; these
    edges are left out too, since else every package that re-exports its modules would be a circle.
    """
    known = modules()
    targets: set[str] = set()
    for node in statements(tree.body):
        if isinstance(node, ast.Import):
            targets |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, (
                f"{name} has a relative import, which this test does not resolve"
            )
            assert node.module is not None
            below = {f"{node.module}.{alias.name}" for alias in node.names}
            targets |= {target if target in known else node.module for target in below}
    return targets & known.keys() - {name}


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Strongly connected components of more than one module (Tarjan's algorithm)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    components: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for target in sorted(graph[name]):
            if target not in index:
                visit(target)
            if target in stack:
                low[name] = min(low[name], low[target])
        if low[name] == index[name]:
            start = stack.index(name)
            component = sorted(stack[start:])
            del stack[start:]
            if len(component) > 1:
                components.append(component)

    for name in sorted(graph):
        if name not in index:
            visit(name)
    return components


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert circles({name: imported(name, tree) for name, tree in modules().items()}) == []


def test_a_circle_would_be_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}
    assert circles(graph) == [["a", "b", "c"]]


def test_no_two_public_classes_have_one_name() -> None:
    """What is private to a module, or lives below ``if TYPE_CHECKING``, may be called anything."""
    rooms: dict[str, list[str]] = {}
    for name, tree in modules().items():
        if name.partition(".")[0] != PACKAGE:
            continue
        for node in statements(tree.body):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                rooms.setdefault(node.name, []).append(name)
    assert {name: where for name, where in rooms.items() if len(where) > 1} == {}


def test_the_documented_layers_are_those_that_are_checked() -> None:
    """``docs/architecture.md`` has them in a block fenced as ``layers``, one layer per line."""
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    contracts = settings["tool"]["importlinter"]["contracts"]
    # The first contract of layers is that of the package; others are within the benchmarks.
    checked = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    blocks = re.findall(r"^```layers\n(.*?)^```$", ARCHITECTURE.read_text(), re.M | re.S)

    assert len(blocks) == 1, "docs/architecture.md has no block fenced as layers, or several"
    documented = [[part.strip() for part in line.split("|")] for line in blocks[0].splitlines()]
    assert documented == [
        [part.strip().removeprefix(f"{PACKAGE}.") for part in layer.split("|")] for layer in checked
    ]


def test_the_documented_stages_are_those_of_the_method_in_its_order() -> None:
    """In the table of ``docs/architecture.md`` whose first row is that of ``ingest``."""
    tables = re.findall(r"(?:^\|.*\n)+", ARCHITECTURE.read_text(), re.M)
    columns = [re.findall(r"^\| `([^`]+)` +\|", table, re.M) for table in tables]
    of_stages = [column for column in columns if "ingest" in column]

    assert len(of_stages) == 1, "docs/architecture.md has no table of stages, or several"
    assert of_stages[0] == [stage.name for stage in stage_order.stages_of_all_configurations()]
