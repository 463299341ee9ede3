"""The form of a case of hostile input, and the one check that all of them get.

A case prepares files and says what is typed. The check runs the command in this process and asks for four
things: the exit code, the item and the remedy in what is said, no traceback, and a root that is as it was.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf

from gmp_atl_dist.cli.main import main

RATE_HZ = 16_000


@dataclass(frozen=True)
class Place:
    """Where a case puts its files: a folder of its own, and a root in it."""

    folder: Path

    @property
    def root(self) -> Path:
        return self.folder / "root"

    def write(self, name: str, data: bytes | str) -> Path:
        """A file of the folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path


@dataclass(frozen=True)
class Case:
    """Input, and what is said about it.

    Attributes:
        name: of the test.
        make: prepares files, and returns the words of the command.
        item: what is at fault, as the message names it.
        remedy: what the message says to do.
        code: the exit code.
    """

    name: str
    make: Callable[[Place], Sequence[str]]
    item: str
    remedy: str
    code: int

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Said:
    """How a command ended, and all that it printed."""

    code: int
    text: str


def say(words: Sequence[str]) -> Said:
    """Run a command in this process."""
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(out):
        code = main([str(word) for word in words])
    return Said(code, out.getvalue())


def contents(root: Path) -> Mapping[str, bytes | None]:
    """Every file below a root with its bytes, and every folder with None."""
    if root.is_file():
        return {".": root.read_bytes()}
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None
        for path in sorted(root.rglob("*"))
    }


def check(case: Case, folder: Path) -> None:
    """Fail unless the command is refused as the case says."""
    place = Place(folder)
    words = case.make(place)
    before = contents(place.root)
    said = say(words)
    assert "Traceback" not in said.text
    assert case.item in said.text
    assert case.remedy in said.text
    assert said.code == case.code, said.text
    assert contents(place.root) == before


def wav_of(
    samples: np.ndarray | None = None,
    rate_hz: int = RATE_HZ,
    seed: int = 0,
    fmt: str = "WAV",
    subtype: str | None = None,
) -> bytes:
    """A recording; without samples 0.3 s of noise."""
    if samples is None:
        samples = 0.1 * np.random.default_rng(seed).normal(size=RATE_HZ * 3 // 10)
    out = io.BytesIO()
    sf.write(out, samples, rate_hz, format=fmt, subtype=subtype)
    return out.getvalue()
