"""The card of a corpus, and how its adapter reads the options of the configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gmp_atl_dist.config import CorpusConfig
from gmp_atl_dist.corpora.checks import spelling
from gmp_atl_dist.errors import ConfigError


@dataclass(frozen=True)
class Card:
    """What a corpus is.

    Attributes:
        title: what people call it; "" where an adapter reads any corpus of one layout.
        languages: spoken in it.
        speakers: their number, with their genders.
        utterances: their number.
        licence: in a few words; the corpus itself has the text.
        example: path of a file, relative to ``runtime.corpus``.
        summary: one line.
    """

    title: str
    languages: str
    speakers: str
    utterances: str
    licence: str
    example: str
    summary: str


def read_choice(config: CorpusConfig, name: str, choices: Sequence[str]) -> str:
    """The option ``name`` of ``corpus.options``; the first of ``choices`` where it is not given.

    Raises:
        ConfigError: it is none of ``choices``.
    """
    given = config.options.get(name, choices[0])
    if given not in choices:
        raise ConfigError(
            f"corpus.options.{name}: {given!r} is not known; known are {', '.join(choices)}"
        )
    return str(given)


def check_options(config: CorpusConfig, known: Mapping[str, str]) -> None:
    """Refuse an option that the adapter does not have, because it would change nothing silently.

    Args:
        config: the section ``[corpus]``.
        known: the adapter's options, each with what it is for.
    """
    unknown = [name for name in config.options if name not in known]
    if unknown:
        has = "; ".join(f"{name}: {text}" for name, text in known.items()) or "no option"
        raise ConfigError(
            f"corpus.options: the adapter {config.adapter!r} has no {', '.join(map(repr, unknown))}; "
            f"it has {has}"
        )


def wanted_emotions(config: CorpusConfig, default: Sequence[str]) -> frozenset[str]:
    """The adapter's usual classes, and those that ``corpus.emotions`` and ``corpus.merge`` ask for.

    An adapter whose corpus also has votes without a majority lists these only where they are asked for.
    """
    return frozenset({*default, *map(spelling, config.emotions), *map(spelling, config.merge)})
