"""Seams that import-linter cannot see: which names and which calls a module may hold."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "gmp_atl_dist"

# Everything that makes up HuBERT's implementation, and the two places that find it.
HUBERT_MODELS = {
    "hubert",
    "packed",
    "packed_clip_ops",
    "packed_conv",
    "packed_encoder",
    "packed_layers",
    "packed_pass_ops",
    "packed_positional",
    "packed_slots",
    "packed_training",
    "slot_conv",
    "slot_positional",
    "positional",
    "conv_encoder",
    "padding",
    "sizes",
    "backbone",
    "backbone_registry",
}


def names(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of every identifier and string of a module, docstrings left out."""
    tree = ast.parse(path.read_text())
    # A bare string is documentation: of a module, a class, a function or an attribute.
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if id(node) in docs:
            continue
        texts: list[str | None] = []
        if isinstance(node, ast.Name):
            texts = [node.id]
        elif isinstance(node, ast.Attribute):
            texts = [node.attr]
        elif isinstance(node, ast.ClassDef | ast.FunctionDef):
            texts = [node.name]
        elif isinstance(node, ast.arg | ast.keyword):
            texts = [node.arg]
        elif isinstance(node, ast.alias):
            texts = [node.name, node.asname]
        elif isinstance(node, ast.ImportFrom):
            texts = [node.module]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts = [node.value]
        for text in texts:
            if text is not None:
                yield getattr(node, "lineno", 0), text


def modules_naming(word: str, paths: list[Path]) -> list[str]:
    return [
        f"{path.relative_to(PACKAGE)}:{line}: {text[:80]}"
        for path in paths
        for line, text in names(path)
        if word in text.lower()
    ]


@pytest.mark.parametrize("room", ["recipes", "stages", "inference", "training"])
def test_the_method_knows_the_protocol_of_a_backbone_only(room: str) -> None:
    """Another speech model must not need an edit here."""
    paths = sorted((PACKAGE / room).rglob("*.py"))
    assert paths
    assert modules_naming("hubert", paths) == []


def test_models_name_hubert_only_where_it_is_implemented() -> None:
    paths = [p for p in sorted((PACKAGE / "models").rglob("*.py")) if p.stem not in HUBERT_MODELS]
    # An error text may recommend a checkpoint by its id.
    named = [x for x in modules_naming("hubert", paths) if "facebook/hubert" not in x]
    assert named == []


ASKING = ("device.py", "gpu_state.py", "transfers.py")
"""Which device there is, what else it holds, and its streams and pinned memory."""


def test_only_device_asks_for_cuda() -> None:
    asking = [
        f"{path.relative_to(PACKAGE)}:{line}: {text}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for line, text in names(path)
        # A text with spaces is for a reader, not for PyTorch.
        if "cuda" in text.lower() and " " not in text and path.name not in ASKING
    ]
    assert asking == []


def test_a_name_in_code_is_seen_and_one_in_a_docstring_is_not(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text('"""About CUDA."""\nimport torch\n\nx = torch.cuda\ny = "cuda"\n')
    assert [line for line, text in names(module) if "cuda" in text.lower()] == [4, 5]
