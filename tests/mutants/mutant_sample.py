"""Which mutants there are, and a random sample of them that is spread evenly over the modules."""

from __future__ import annotations

import ast
import hashlib
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

PACKAGES = ("models", "clustering", "training", "store", "corpora", "metrics")
"""Folders and modules of ``gmp_atl_dist`` that are altered."""
_ROOT = "gmp_atl_dist"

T = TypeVar("T")


@dataclass(frozen=True)
class Mutant:
    """One alteration of one module.

    Attributes:
        module: path of the module from the root of the repository.
        operator: name of what alters it, as ``mutant_operators.operators`` has it.
        occurrence: the how manieth place of the module at which this operator can do so.
        start: line from 1 and column from 0.
        end: the same of the end.
        definition: the function or class around it; "" at the level of the module.
    """

    module: str
    operator: str
    occurrence: int
    start: tuple[int, int]
    end: tuple[int, int]
    definition: str

    @property
    def package(self) -> str:
        """The member of ``PACKAGES`` that the module belongs to."""
        return self.module.split("/")[1].removesuffix(".py")

    def altered(self, source: str) -> str:
        """The module's text with this alteration."""
        from cosmic_ray.mutating import mutate_code  # pyright: ignore[reportMissingImports]
        from mutant_operators import operators  # pyright: ignore[reportMissingImports]

        made = mutate_code(source, operators()[self.operator], self.occurrence)
        assert made is not None, f"{self}: there is no such place"
        return made


def modules(root: Path) -> list[str]:
    """Paths of the modules of ``PACKAGES`` from ``root``."""
    found: list[Path] = []
    for name in PACKAGES:
        folder = root / _ROOT / name
        found += folder.rglob("*.py") if folder.is_dir() else [folder.with_suffix(".py")]
    return sorted(path.relative_to(root).as_posix() for path in found)


def mutants_of(module: str, source: str) -> dict[tuple[int, int, int, int], list[Mutant]]:
    """The mutants of a module by place: several operators can alter the same place.

    Without annotations and ``if TYPE_CHECKING:``, which do nothing at run time. Without the arguments of
    ``@dataclass`` and the ``strict`` of ``zip`` either: they only refuse code that is wrong.
    """
    from cosmic_ray.ast import ast_nodes, get_ast  # pyright: ignore[reportMissingImports]
    from cosmic_ray.ast.ast_query import ASTQuery  # pyright: ignore[reportMissingImports]
    from mutant_operators import is_two_sided, operators  # pyright: ignore[reportMissingImports]

    nodes = [(node, _left_out(node)) for node in ast_nodes(get_ast(source))]
    places: dict[tuple[int, int, int, int], list[Mutant]] = {}
    for name, operator in operators().items():
        occurrence = 0
        for node, left_out in nodes:
            for start, end in operator.mutation_positions(node):
                if not left_out and is_two_sided(name, node):
                    definition = ASTQuery(node).get_definition_name() or ""
                    mutant = Mutant(module, name, occurrence, start, end, definition)
                    places.setdefault((*start, *end), []).append(mutant)
                occurrence += 1
    return places


def _left_out(node: Any) -> bool:
    if _is_for_types(node):
        return True
    while node.parent is not None:
        parent, child = node.parent, node
        if parent.type == "annassign" and child is parent.children[1]:
            return True
        if parent.type == "tfpdef" and child is not parent.children[0]:
            return True
        if parent.type == "funcdef" and child is parent.annotation:
            return True
        if _is_for_types(parent):
            return True
        if parent.type == "argument" and parent.children[0].get_code().strip() == "strict":
            return True
        if parent.type == "decorator" and parent.children[1].get_code().startswith("dataclass("):
            return True
        node = parent
    return False


def _is_for_types(node: Any) -> bool:
    return node.type == "if_stmt" and "TYPE_CHECKING" in node.children[1].get_code()


def sample(places: Mapping[str, list[list[T]]], count: int, seed: int) -> list[T]:
    """``count`` mutants, of each module about as many as it has a share of all places.

    Args:
        places: by module, for each place what can be done there. One of these is drawn.
        count: at most so many.
        seed: of everything that is drawn.

    Returns:
        In an order of which each beginning is such a sample too: so a run that is cut short, and one that
        is continued with a greater ``count``, are samples as well.
    """
    drawn: list[tuple[float, str, T]] = []
    for module, there in sorted(places.items()):
        rng = random.Random(f"{seed} {module}")
        first = rng.random()
        order = rng.sample(range(len(there)), len(there))
        for rank, place in enumerate(order):
            drawn.append(((rank + first) / len(there), module, rng.choice(there[place])))
    drawn.sort(key=lambda one: one[:2])
    return [mutant for _, _, mutant in drawn[:count]]


def change(before: str, after: str) -> tuple[str, str]:
    """The lines that differ, each side stripped and joined by " / "."""
    old, new = before.split("\n"), after.split("\n")
    start = 0
    while start < min(len(old), len(new)) and old[start] == new[start]:
        start += 1
    end = 0
    while end < min(len(old), len(new)) - start and old[-1 - end] == new[-1 - end]:
        end += 1

    def joined(lines: Iterable[str]) -> str:
        return " / ".join(line.strip() for line in lines)

    return joined(old[start : len(old) - end]), joined(new[start : len(new) - end])


def key(mutant: Mutant, source: str) -> str:
    """Eight characters that stay the same while the altered lines and their function keep name and text."""
    told = "\n".join((mutant.module, mutant.definition, *change(source, mutant.altered(source))))
    return hashlib.sha256(told.encode()).hexdigest()[:8]


def compiles(mutant: Mutant, source: str) -> bool:
    """Whether what is made is Python at all, and other Python than before."""
    try:
        made = ast.parse(mutant.altered(source))
    except SyntaxError:
        return False
    return ast.dump(made) != ast.dump(ast.parse(source))


def executed_with(mutant: Mutant, source: str) -> range:
    """Lines of which the execution shows that the altered place is executed.

    Those of the statement around it, or of its head if it is a compound one. Of the head of a function,
    which only the import executes, the whole function.
    """
    first, last = mutant.start[0], mutant.end[0]
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.stmt):
            continue
        start, end = node.lineno, node.end_lineno or node.lineno
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            start = min([start, *(one.lineno for one in node.decorator_list)])
            body = node.body[0].lineno
            if start <= mutant.start[0] < body:
                return range(start, end + 1)
            continue
        if body := getattr(node, "body", None):
            end = max(start, body[0].lineno - 1)
        if start <= mutant.start[0] <= end:
            first, last = min(first, start), max(last, end)
    return range(first, last + 1)
