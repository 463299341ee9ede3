"""The command that people type to continue a run."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence

AGAIN = "GMP_ATL_AGAIN"
"""Variable with the command of whatever started this process, such as a launcher of a job."""

_words: tuple[str, ...] = ()


def remember_command(arguments: Sequence[str] | None) -> None:
    """``arguments`` are those of ``gmp-atl``; None for those of this process."""
    global _words
    _words = tuple(sys.argv[1:] if arguments is None else arguments)


def same_command() -> str:
    """The command that runs now, as a line for a shell."""
    return os.environ.get(AGAIN) or shlex.join(["gmp-atl", *_words])
