"""What a report says of its corpus, and of each of several sources."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import JsonValue, SerializerFunctionWrapHandler, model_serializer

from gmp_atl_dist.report.codebook_content import Count
from gmp_atl_dist.report.protocol import Content

if TYPE_CHECKING:
    from gmp_atl_dist.config import Json
else:
    Json = JsonValue  # pydantic cannot build a validator from a recursive alias of strings


class DroppedItem(Content):
    """A recording that was left out, and the reason."""

    item: str
    reason: str


class SourceContent(Content):
    """One of several corpora: what it holds, and what its configuration says of it."""

    name: str
    role: str
    language: str = ""
    licence: str = ""
    weight: float = 1.0
    num_utterances: Count
    hours: float
    num_speakers: Count


class CorpusContent(Content):
    """The corpus after classes were merged and bad recordings were dropped.

    Of several corpora, it counts the labelled ones together. ``sources`` has each one, the unlabelled ones
    included; it is left out of the JSON if there is one corpus only.
    """

    adapter: str
    num_utterances: Count
    hours: float
    num_speakers: Count
    per_class: dict[str, Count]
    per_gender: dict[str, Count]
    dropped: tuple[DroppedItem, ...] = ()
    sources: tuple[SourceContent, ...] = ()

    @model_serializer(mode="wrap")
    def _without_no_sources(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values = handler(self)
        return values if self.sources else {k: v for k, v in values.items() if k != "sources"}
