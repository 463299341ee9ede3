"""What names of files tell in known corpora: the speaker, session, dialogue and text.

A list seldom tells the speaker; in many corpora the name of the recording does. A rule is used only where it
is known from the corpus's own description, and whoever uses one says so by its title. It is chosen by the
field ``dataset`` of a list (as EmoBox has it), or by names that no other corpus has.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from gmp_atl_dist.corpora.splits.forms import ListedRow
from gmp_atl_dist.errors import ConfigError


@dataclass(frozen=True)
class NameRule:
    """How to read the names of one corpus.

    Attributes:
        title: the corpus, and what the rule reads, for people.
        pattern: searched in the path without its suffix; its groups are named as the fields.
        speaker, session, dialogue: made of the groups; "": the name does not tell it.
        only_here: no other corpus has such names, so that names alone choose the rule.
    """

    title: str
    pattern: re.Pattern[str]
    speaker: str = ""
    session: str = ""
    dialogue: str = ""
    only_here: bool = False
    datasets: tuple[str, ...] = field(default=())

    def read(self, row: ListedRow) -> dict[str, str] | None:
        """The fields that the name tells; None if the name is not of this corpus."""
        path = row.path or row.key
        found = self.pattern.search(str(PurePosixPath(path).with_suffix("")) if row.path else path)
        if found is None:
            return None
        groups = {name: value or "" for name, value in found.groupdict().items()}
        fields = {
            "speaker": self.speaker.format(**groups),
            "session": self.session.format(**groups),
            "dialogue": self.dialogue.format(**groups),
            "text": groups.get("text", ""),
        }
        return {name: value for name, value in fields.items() if value}


def _rule(
    title: str, pattern: str, speaker: str = "{speaker}", *, datasets: tuple[str, ...] = (), **more
) -> NameRule:
    return NameRule(title, re.compile(pattern), speaker, datasets=datasets, **more)


RULES: dict[str, NameRule] = {
    "aesdd": _rule(
        "AESDD: the number in brackets", r"[a-z](?P<text>\d\d) ?\(0*(?P<speaker>\d+)\)\w?$"
    ),
    "ased": _rule(
        "ASED: the last of five numbers", r"[A-Za-z]\d-(?P<text>\d\d)-\d\d-\d\d-(?P<speaker>\d\d)$"
    ),
    "asvpesd": _rule(
        "ASVP-ESD: the sixth number", r"/(?:\d\d-){4}\d+-(?P<speaker>\d+)(?: ?-\w+)+$"
    ),
    "cafe": _rule("CaFE: the first number", r"(?P<speaker>\d\d)-[A-Z]-\d-(?P<text>\d)$"),
    "casia": _rule("CASIA: the upper folder", r"(?P<speaker>[a-z]+)/[a-z]+/(?P<text>\d+)$"),
    "cremad": _rule(
        "CREMA-D: the first four digits",
        r"(?<!\d)(?P<speaker>\d{4})_(?P<text>[A-Z]{3})_[A-Z]{3}_[A-Z]{1,2}$",
        only_here=True,
        datasets=("crema-d", "crema_d"),
    ),
    "emns": _rule("EMNS: one speaker", r".", "the only speaker"),
    "emodb": _rule(
        "EmoDB: the first two digits",
        r"(?<![^/])(?P<speaker>\d\d)(?P<text>[ab]\d\d)[A-Z][a-z]?$",
        only_here=True,
        datasets=("emo-db", "emodb2s"),
    ),
    "emovdb": _rule(
        "EmoV-DB: the name in the folder",
        r"(?P<speaker>bea|jenie|josh|sam)_[A-Za-z]+/[^/]*_(?P<text>\d{4})$",
    ),
    "emovo": _rule("EMOVO: the second part", r"[a-z]{3}-(?P<speaker>[fm]\d)-(?P<text>[a-z]\d)$"),
    "enterface": _rule(
        "eNTERFACE: the folder of the subject",
        r"subject (?P<speaker>\d+)/[a-z]+(?:/sentence (?P<text>\d+))?/",
    ),
    "esd": _rule("ESD: the folder", r"(?P<speaker>\d{4})/[^/]+/(?P=speaker)_\d{6}$"),
    "iemocap": _rule(
        "IEMOCAP: the session, and the letter before the last number",
        r"(?P<dialogue>(?P<session>Ses0\d)[FM]_\w+)_(?P<letter>[FM])[A-Z]*\d+$",
        "{session}{letter}",
        session="{session}",
        dialogue="{dialogue}",
        only_here=True,
    ),
    "jlcorpus": _rule(
        "JL-Corpus: the first part", r"(?P<speaker>(?:fe)?male\d)_[a-z]+_(?P<text>\d+[ab])_\d$"
    ),
    "m3ed": _rule(
        "M3ED: the series, and the number of the conversation; no speaker",
        r"[AB]_(?P<session>[a-z]+)_(?P<number>\d+)_\d+$",
        "",
        session="{session}",
        dialogue="{session}_{number}",
    ),
    "mead": _rule("MEAD: the upper folder", r"(?<![^/])(?P<speaker>[MW]\d{3})/"),
    "meld": _rule(
        "MELD: the dialogue, numbered for each part; no speaker",
        r"(?P<part>[^/]+)/(?P<dialogue>dia\d+)_utt\d+$",
        "",
        dialogue="{part}/{dialogue}",
    ),
    "mesd": _rule("MESD: the word; no speaker", r"[A-Z][a-z]+_[FMC]_[AB]_(?P<text>\w+)$", ""),
    "msppodcast": _rule(
        "MSP-Podcast: the podcast; no speaker",
        r"MSP-PODCAST_(?P<session>\d{4})_\d{4}(?:_\d{4})?$",
        "",
        session="{session}",
        only_here=True,
    ),
    "nemo": _rule(
        "nEMO: the first part", r"(?<![^/])(?P<speaker>[A-Z]{2}\d)_[a-z]+_(?P<text>\d+)$"
    ),
    "oreau": _rule(
        "Oréau: the first two digits", r"(?<![^/])(?P<speaker>\d\d)[a-z](?P<text>\d\d)[A-Z]\w*$"
    ),
    "pavoque": _rule("PAVOQUE: one speaker", r".", "the only speaker"),
    "polish": _rule(
        "Polish (Gdańsk): the part before the dot",
        r"(?<![^/])(?P<speaker>\w+)\.[a-z]_(?P<text>\w+)_\d+$",
    ),
    "ravdess": _rule(
        "RAVDESS: the last of seven numbers",
        r"(?<![\w-])(?:\d\d-){4}(?P<text>\d\d)-\d\d-(?P<speaker>\d\d)$",
        only_here=True,
    ),
    "resd": _rule(
        "RESD: the dialogue, which is the folder; no speaker",
        r"(?P<dialogue>[^/]+)/[^/]+$",
        "",
        dialogue="{dialogue}",
    ),
    "savee": _rule(
        "SAVEE: the first two letters", r"(?P<speaker>DC|JE|JK|KL)_(?P<text>[a-z]+\d+)$"
    ),
    "shemo": _rule("ShEMO: the letter and two digits", r"(?<![^/])(?P<speaker>[FM]\d\d)[A-Z]\d+$"),
    "subesco": _rule(
        "SUBESCO: the letter and the number",
        r"(?P<speaker>[FM]_\d\d)_[A-Z]+_(?P<text>S_\d+)_[A-Z]+_\d+\]?$",
        only_here=True,
    ),
    "tess": _rule("TESS: the first part", r"(?<![^/])(?P<speaker>OA|YA)F?_(?P<text>\w+)_\w+$"),
    "turevdb": _rule(
        "TurEV-DB: the number", r"(?<![^/])(?P<speaker>\d{4})_[a-z]{2}_(?P<text>\w+)$"
    ),
    "urdu": _rule("URDU: the first part", r"(?<![^/])(?P<speaker>S[FM]\d+)_F\d+_"),
}


def rule_of(rows: Sequence[ListedRow], name: str = "auto") -> NameRule | None:
    """The rule by which names of ``rows`` are read; None if the corpus is not known.

    Args:
        rows: of all sides.
        name: a rule; ``auto``: that of the rows' dataset, or of names that only one corpus has; ``none``.

    Raises:
        ConfigError: there is no such rule.
    """
    if name == "none":
        return None
    if name != "auto":
        if name not in RULES:
            raise ConfigError(
                f"rule {name!r} is not known; known are auto, none, {', '.join(sorted(RULES))}"
            )
        return RULES[name]
    datasets = {row.dataset.lower() for row in rows}
    if len(datasets) == 1 and datasets != {""}:
        (dataset,) = datasets
        known = (rule for key, rule in RULES.items() if dataset in (key, *rule.datasets))
        return next(known, None)
    fitting = [rule for rule in RULES.values() if rule.only_here and _fits(rule, rows)]
    return fitting[0] if len(fitting) == 1 else None


def speaker_rule(pattern: str) -> NameRule:
    """A rule of the user's own: the first group of ``pattern`` in a path is the speaker.

    Raises:
        ConfigError: it is no regular expression with one group.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as e:
        raise ConfigError(f"{pattern!r} is no regular expression: {e}") from e
    if compiled.groups != 1 or compiled.groupindex:
        raise ConfigError(
            f"{pattern!r} has {compiled.groups} groups; write one pair of brackets around the part of the "
            f"path that is the speaker"
        )
    named = re.compile(re.sub(r"(?<!\\)\((?!\?)", "(?P<speaker>", pattern, count=1))
    return NameRule(f"given: {pattern}", named, "{speaker}")


def _fits(rule: NameRule, rows: Iterable[ListedRow]) -> bool:
    return all(rule.read(row) is not None for row in rows)
