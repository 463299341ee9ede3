"""What the release of IEMOCAP holds, and what a tree lacks of it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from gmp_atl_dist.errors import CorpusError, GmpAtlError

DIALOGUES: Mapping[str, int] = {
    "Session1": 28,
    "Session2": 30,
    "Session3": 32,
    "Session4": 30,
    "Session5": 31,
}
"""The number of dialogues of each session: 151 in all."""
SESSIONS = tuple(DIALOGUES)
TURNS = 10_039
MARKER = "SYNTHETIC.md"
"""A file that marks a synthetic corpus in this layout, which is no release."""

_LIKE_A_SESSION = re.compile(r"(?:session|sess|ses)0*([1-5])")


def missing_sessions(
    uri: str, present: Collection[str], folders: Sequence[str]
) -> GmpAtlError | None:
    """The error for a tree without all sessions; None if it has them.

    Args:
        uri: the corpus.
        present: sessions with a file of votes or a recording.
        folders: names of the folders of the corpus; one may be a session under another name.
    """
    absent = [session for session in SESSIONS if session not in present]
    if not absent:
        return None
    return CorpusError.of_all(
        f"{uri}: {' and '.join(absent)} {'is' if len(absent) == 1 else 'are'} missing or without files. "
        f"IEMOCAP has {len(SESSIONS)} sessions, and leaves each out once; {len(present)} folds are another "
        f"experiment. Copy the missing sessions, or set corpus.allow_incomplete = true",
        misnamed_sessions(name for name in folders if name not in present),
    )


def misnamed_sessions(folders: Iterable[str]) -> list[str]:
    """For each folder that is named nearly like a session: what its name should be."""
    advice: list[str] = []
    for name in folders:
        match = _LIKE_A_SESSION.match(re.sub(r"[^a-z0-9]", "", name.lower()))
        if match and name not in SESSIONS:
            advice.append(f"folder {name!r}: rename it to Session{match[1]} if it is that session")
    return advice


def smaller_than_release(dialogues: Mapping[str, Collection[str]], turns: int) -> str:
    """How much of the release a tree lacks; "" if it lacks nothing.

    Args:
        dialogues: names of the dialogues with votes, by session.
        turns: number of votes in all dialogues.
    """
    found = sum(len(names) for names in dialogues.values())
    if found >= sum(DIALOGUES.values()) and turns >= TURNS:
        return ""
    fewer = [
        f"{session} {len(dialogues.get(session, ()))} of {count}"
        for session, count in DIALOGUES.items()
        if len(dialogues.get(session, ())) < count
    ]
    where = f"; dialogues by session: {', '.join(fewer)}" if fewer else ""
    return (
        f"is smaller than the release: {found} of {sum(DIALOGUES.values())} dialogues and {turns:,} of "
        f"{TURNS:,} turns have labels{where}"
    )
