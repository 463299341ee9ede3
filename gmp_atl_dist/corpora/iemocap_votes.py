"""The lines with votes of an EmoEvaluation file of IEMOCAP.

The release has ASCII files whose votes begin in the first column. Editors and copies change that: UTF-16,
a byte-order mark, indented lines. Such files are read. The votes are then counted in a second way, so that
a file of an unknown form is named and loses no turn without a word.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

from gmp_atl_dist.records import Problem

# The last field of the utterance id starts with the speaker's gender. The prefix must not be used.
_UTTERANCE = re.compile(r"(?P<dialogue>Ses0(?P<session>[1-5])[FM]_\w+)_(?P<gender>[FM])\w+")
_LINE = re.compile(
    r"\[\s*[\d.]+\s*-\s*[\d.]+\s*\]\s+(?P<utterance>\S+)\s+(?P<code>\S+)\s+\[[^\]]*\]"
)
# The second count: time spans before a word, wherever they stand.
_SPAN = re.compile(r"\[\s*[\d.]+\s*-\s*[\d.]+\s*\]\s*\w")
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_MARGIN = " \t\v\f\ufeff\u200b\u00a0"
"""What may stand before a vote: blanks, and characters that cannot be seen."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A vote: the majority's emotion code of one utterance. ``where`` is file and line."""

    where: str
    session: str
    utterance_id: str
    dialogue: str
    gender: str
    code: str


def read_votes(data: bytes, path: str, session: str) -> tuple[list[Turn], list[Problem]]:
    """The votes of the file ``path``, and its lines that cannot be read."""
    text = _decoded(data)
    turns: list[Turn] = []
    problems: list[Problem] = []
    num_lines = 0
    for number, line in enumerate(text.splitlines(), 1):
        # A line with a vote starts with a time span. All other lines are ignored.
        if not (vote := line.strip(_MARGIN)).startswith("["):
            continue
        num_lines += 1
        where = f"{path}:{number}"
        parsed = _parse(vote, where, session)
        if isinstance(parsed, str):
            problems.append(Problem(where, parsed))
        else:
            turns.append(parsed)
    counted = len(_SPAN.findall(text))
    if counted > num_lines:
        reason = (
            f"has {counted} time spans, but {num_lines} lines that begin with one, so votes would be lost; "
            f"copy it again from the release"
        )
        problems.append(Problem(path, reason))
    return turns, problems


def _decoded(data: bytes) -> str:
    """The text of a file in UTF-8 or UTF-16. Comments of raters may hold other bytes; votes are ASCII."""
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, errors="replace")
    # UTF-16 without a mark: ASCII characters have a zero byte, before or after.
    if data[:64].count(0) * 4 >= len(data[:64]) > 0:
        encoding = "utf-16-be" if data[:1] == b"\0" else "utf-16-le"
        return data.decode(encoding, errors="replace")
    return data.decode("utf-8", errors="replace")


def _parse(line: str, where: str, session: str) -> Turn | str:
    """The vote of a line, or the reason why the line is bad."""
    vote = _LINE.match(line)
    if vote is None:
        return f"cannot be read as '[start - end] utterance emotion [v, a, d]': {line!r}"
    name = vote["utterance"]
    parts = _UTTERANCE.fullmatch(name)
    if parts is None:
        return f"{name!r} is not an utterance id of IEMOCAP, such as Ses01F_impro01_M003"
    if f"Session{parts['session']}" != session:
        return f"{name!r} is in {session}; move the file to its folder in the release"
    return Turn(where, session, name, parts["dialogue"], parts["gender"], vote["code"])
