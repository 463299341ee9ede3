"""Names the sessions of which speakers are on two sides of a fold: partners who talked to each other."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Protocol

from gmp_atl_dist.fold import Fold
from gmp_atl_dist.records import Split

_SHOWN = 3
_DOES: dict[Split, str] = {"train": "trains", "valid": "validates", "test": "is tested"}


class InSession(Protocol):
    """An utterance, of which only these are needed."""

    @property
    def utterance_id(self) -> str: ...

    @property
    def speaker(self) -> str: ...

    @property
    def session(self) -> str: ...


def partners(fold: Fold, utterances: Iterable[InSession]) -> tuple[str, ...]:
    """A warning where speakers of one session are on two sides; nothing otherwise.

    Where all utterances have one session, it does not tell who talked to whom, so there is no warning.
    """
    named = fold.utterances
    members: dict[Split, Collection[str]] = {
        side: fold.speakers(side) if named is None else named.of(side) for side in _DOES
    }
    side_of: dict[str, Split] = {}
    for side, names in members.items():
        side_of |= dict.fromkeys(names, side)
    sessions: dict[str, dict[Split, set[str]]] = {}
    for u in utterances:
        if not u.session:
            continue
        side = side_of.get(u.speaker if named is None else u.utterance_id)
        if side is not None:
            sessions.setdefault(u.session, {}).setdefault(side, set()).add(u.speaker)
    divided = sorted(name for name, found in sessions.items() if len(found) > 1)
    if len(sessions) < 2 or not divided:
        return ()
    shown = [f"{name} ({_who(sessions[name])})" for name in divided[:_SHOWN]]
    more = f", and {len(divided) - _SHOWN} more" if len(divided) > _SHOWN else ""
    return (
        f"partners of one session are on two sides: {', '.join(shown)}{more}; they heard each other, so the "
        f"test is easier than with strangers",
    )


def _who(sides: dict[Split, set[str]]) -> str:
    return ", ".join(
        f"{', '.join(sorted(sides[side])[:_SHOWN])} {does}"
        for side, does in _DOES.items()
        if side in sides
    )
