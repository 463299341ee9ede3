"""The facts about a corpus that people ask for before they use it: one card per adapter.

The docstring of an adapter says the rest: layout, labels, known faults. ``gmp-atl corpora list`` and the
table of ``docs/corpora.md`` are made from these cards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gmp_atl_dist.corpora.base import adapter_names, find_adapter
from gmp_atl_dist.corpora.card import Card
from gmp_atl_dist.errors import ConfigError

_CARDS = {
    "iemocap": Card(
        title="IEMOCAP",
        languages="English",
        speakers="10 (5 female, 5 male)",
        utterances="10,039; the usual four classes: 5,531",
        licence="on request, research, no redistribution",
        example="Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav",
        summary="acted dialogues of pairs, improvised and scripted, in 5 sessions",
    ),
    "synthetic": Card(
        title="synthetic voices",
        languages="none",
        speakers="10 (5 female, 5 male)",
        utterances="as many as asked for",
        licence="free of rights",
        example="Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav",
        summary="artificial voices in the layout of IEMOCAP; tests software alone",
    ),
    "table": Card(
        title="",
        languages="any",
        speakers="any",
        utterances="any",
        licence="that of the corpus",
        example="manifest.csv",
        summary="one CSV, TSV or Parquet file with a row per utterance",
    ),
}
"""Of adapters whose class has no ``card``."""


@dataclass(frozen=True)
class Listing:
    """An adapter.

    Attributes:
        name: what ``corpus.adapter`` says.
        card: None if its package gives none.
        options: keys of ``corpus.options``, each with what it is for.
    """

    name: str
    card: Card | None
    options: Mapping[str, str]


def all_cards() -> list[Listing]:
    """Every installed adapter, sorted by name. An adapter that cannot be loaded has no card."""
    return [_listing(name) for name in adapter_names()]


def card_title(adapter: str) -> str:
    """What people call the corpus of an adapter; empty where it reads any corpus, or is not installed."""
    if adapter not in adapter_names():
        return ""
    card = _listing(adapter).card
    return "" if card is None else card.title


def _listing(name: str) -> Listing:
    try:
        adapter = find_adapter(name)
    except ConfigError:
        return Listing(name, None, {})  # of a package that is broken; a run that uses it says so
    card = _CARDS.get(name, getattr(adapter, "card", None))
    options = getattr(adapter, "options", {})
    return Listing(name, card if isinstance(card, Card) else None, options)
