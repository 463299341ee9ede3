"""What is altered: operators of cosmic-ray, and two of our own.

cosmic-ray replaces an operator by every other one. Most of these mutants, such as ``a / b`` to ``a << b``,
end in an exception whatever the tests compare. Here an operator is replaced by its nearest relatives alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import parso.python.tree as tree  # pyright: ignore[reportMissingImports]
from cosmic_ray.operators.operator import Example, Operator  # pyright: ignore[reportMissingImports]
from cosmic_ray.plugins import get_operator  # pyright: ignore[reportMissingImports]

Position = tuple[tuple[int, int], tuple[int, int]]
"""Start and end of what is altered: lines from 1, columns from 0."""

_BINARY = (
    *("Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "Div_FloorDiv", "FloorDiv_Div", "FloorDiv_Mul"),
    *("Mod_FloorDiv", "Pow_Mul", "RShift_LShift", "LShift_RShift"),
    *("BitOr_BitAnd", "BitAnd_BitOr", "BitXor_BitAnd"),
)
_COMPARISON = (
    *("Eq_NotEq", "NotEq_Eq", "Lt_LtE", "Lt_GtE", "LtE_Lt", "LtE_Gt", "Gt_GtE", "Gt_LtE"),
    *("GtE_Gt", "GtE_Lt", "Is_IsNot", "IsNot_Is"),
)
_OTHER = (
    *("NumberReplacer", "AddNot", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue"),
    *("ReplaceAndWithOr", "ReplaceOrWithAnd", "ReplaceBreakWithContinue"),
    *("ReplaceContinueWithBreak", "ReplaceUnaryOperator_USub_UAdd"),
    *("ReplaceUnaryOperator_Delete_Not", "ZeroIterationForLoop", "RemoveDecorator"),
    "ExceptionReplacer",
)
_TWO_SIDED = frozenset(
    {"arith_expr", "term", "power", "shift_expr", "expr", "xor_expr", "and_expr"}
)
"""Parents of an operator with two operands. cosmic-ray also takes the ``*`` of a signature for one."""


class RemoveStatement(Operator):
    """A statement that works by its effect is left out: a call, a ``raise``, a change of an object."""

    def mutation_positions(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, node: Any
    ) -> Iterator[Position]:
        if node.type == "simple_stmt" and _has_effect(node.children[0]):
            yield node.children[0].start_pos, node.children[0].end_pos

    def mutate(self, node: Any, index: int) -> Any:
        first = node.children[0].get_first_leaf()
        node.children[0] = tree.Keyword("pass", first.start_pos, first.prefix)
        return node

    @classmethod
    def examples(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls,
    ) -> tuple[Any, ...]:
        return (
            Example("def f():\n    g(1)\n", "def f():\n    pass\n"),
            Example("x.lr = 1\n", "pass\n"),
            Example("x += 1\n", "pass\n"),
            Example("raise E\n", "pass\n"),
        )


class RemoveKeyword(Operator):
    """A keyword argument of a call is left out, so that the default value is used."""

    def mutation_positions(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, node: Any
    ) -> Iterator[Position]:
        # As a whole: cosmic-ray asks for the next one after it has altered the node.
        arguments = [node.children[at] for at in _keywords(node)]
        yield from ((argument.start_pos, argument.end_pos) for argument in arguments)

    def mutate(self, node: Any, index: int) -> Any:
        at = _keywords(node)[index]
        # With its comma: the one behind it, or the one before if it is the last.
        last = at + 1 == len(node.children)
        if node.type == "trailer":
            del node.children[at]
        elif last:
            del node.children[at - 1 : at + 1]
        else:
            following = (
                node.children[at + 2].get_first_leaf() if at + 2 < len(node.children) else None
            )
            prefix = node.children[at].get_first_leaf().prefix
            del node.children[at : at + 2]
            if following is not None:
                following.prefix = prefix
        return node

    @classmethod
    def examples(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls,
    ) -> tuple[Any, ...]:
        return (
            Example("f(a, b=1)", "f(a)"),
            Example("f(b=1)", "f()"),
            Example("f(b=1, c=2)", "f(c=2)"),
            Example("f(b=1, c=2)", "f(b=1)", occurrence=1),
            Example("f(\n    b=1,\n    c=2,\n)", "f(\n    b=1,\n)", occurrence=1),
        )


def _has_effect(node: Any) -> bool:
    if node.type == "raise_stmt":
        return True
    if node.type == "expr_stmt":
        target, sign = node.children[0], node.children[1]
        augmented = sign.type == "operator" and sign.value != "="
        return augmented or (target.type in ("atom_expr", "power") and sign.type != "annassign")
    if node.type in ("atom_expr", "power"):
        end = node.children[-1]
        return end.type == "trailer" and end.children[0].value == "("
    return False


def _keywords(node: Any) -> list[int]:
    """The keyword arguments among the children of a call's arguments."""
    if node.type == "arglist":
        if node.parent.type != "trailer":  # the bases of a class
            return []
    elif node.type != "trailer" or node.children[0].value != "(":
        return []
    return [
        at
        for at, child in enumerate(node.children)
        if child.type == "argument"
        and getattr(child.children[1], "value", "") == "="
        and child.children[0].value != "strict"
    ]


def operators() -> dict[str, Any]:
    """All operators by name."""
    core = (
        *(f"ReplaceBinaryOperator_{name}" for name in _BINARY),
        *(f"ReplaceComparisonOperator_{name}" for name in _COMPARISON),
        *_OTHER,
    )
    found = {f"core/{name}": get_operator(f"core/{name}")() for name in core}
    return found | {
        "ours/RemoveStatement": RemoveStatement(),
        "ours/RemoveKeyword": RemoveKeyword(),
    }


def is_two_sided(name: str, node: Any) -> bool:
    """Whether a binary operator of cosmic-ray has two operands here; true for what is none."""
    return "BinaryOperator" not in name or node.parent.type in _TWO_SIDED
