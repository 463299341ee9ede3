"""IEMOCAP, the Interactive Emotional Dyadic Motion Capture database (English).

Content: about 12 h of improvised and scripted dialogues in 5 sessions with one woman and one man
each, so 10 speakers. 151 dialogues are cut into 10,039 utterances, 16 kHz mono 16-bit. Several people
rated each utterance; the label is their majority vote. The usual set has four classes, with excited
merged into happy: 5,531 utterances (neutral 1,708, happy 1,636, angry 1,103, sad 1,084).

Source and licence: SAIL, University of Southern California, https://sail.usc.edu/iemocap/. Free for
research on request, under a signed licence that forbids redistribution. This project contains no part
of it.

Size: about 12 GB with video; this adapter reads only ``SessionN/dialog/EmoEvaluation/*.txt`` and
``SessionN/sentences/wav`` (1.5 GB), below ``runtime.corpus``.

Pitfalls:
  - The dialogue prefix does not name the speaker. The man of session 1 speaks
    ``Ses01F_impro01_M003``; the ``F`` of ``Ses01F`` is the person who wore the motion-capture markers.
    The prefix is wrong for 2,750 of the 5,531 utterances.
  - The lines per evaluator (``C-E2:``, ``A-E3:``) and the sub-folders of EmoEvaluation contain single
    opinions, not the vote.
  - Archives made on macOS contain ``._*`` files beside the real ones.
  - The four-class set has no utterances without a majority (``xxx``), and no frustrated ones (1,849,
    the largest class of all). ``corpus.emotions`` can add classes: frustrated, surprised, fearful,
    disgusted, other, undecided, and excited as a separate class.

Options: ``corpus.options.dialogues = "all"`` (default), ``"improvised"`` or ``"scripted"``.

Cite: Busso, C. et al. (2008). IEMOCAP: Interactive emotional dyadic motion capture database.
Language Resources and Evaluation 42(4), 335-359.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from gmp_atl_dist.config import CorpusConfig
from gmp_atl_dist.corpora.base import Listed
from gmp_atl_dist.corpora.card import read_choice
from gmp_atl_dist.corpora.checks import spelling
from gmp_atl_dist.errors import CorpusError
from gmp_atl_dist.records import Gender, Problem, Utterance
from gmp_atl_dist.store.filesystem import Store

SESSIONS = ("Session1", "Session2", "Session3", "Session4", "Session5")

_EMOTIONS = {
    "neu": "neutral",
    "hap": "happy",
    "exc": "excited",
    "ang": "angry",
    "sad": "sad",
    "fru": "frustrated",
    "sur": "surprised",
    "fea": "fearful",
    "dis": "disgusted",
    "oth": "other",
    "xxx": "undecided",
}
_FOUR = ("neutral", "happy", "angry", "sad")
# The last field of the utterance id starts with the speaker's gender. The prefix must not be used.
_UTTERANCE = re.compile(r"(?P<dialogue>Ses0(?P<session>[1-5])[FM]_\w+)_(?P<gender>[FM])\w+")
_LINE = re.compile(
    r"\[\s*[\d.]+\s*-\s*[\d.]+\s*\]\s+(?P<utterance>\S+)\s+(?P<code>\S+)\s+\[[^\]]*\]"
)
# What the ids of a dialogue of each kind hold: Ses01F_impro01_M003, Ses01F_script01_1_M003.
_PARTS = {"all": "", "improvised": "_impro", "scripted": "_script"}
_GENDERS: dict[str, Gender] = {"F": "female", "M": "male"}


@dataclass(frozen=True)
class Iemocap:
    """Adapter of the release's folders. The synthetic corpus has the same layout."""

    name: ClassVar[str] = "iemocap"
    default_emotions: ClassVar[tuple[str, ...]] = _FOUR
    options: ClassVar[Mapping[str, str]] = {"dialogues": "all, improvised or scripted"}

    def list(self, source: Store, config: CorpusConfig) -> Listed:
        """Utterances of the four classes and of the classes that ``config.emotions`` adds.

        Raises:
            CorpusError: there is no evaluation file in the folders of the release.
        """
        merge = {spelling(old): spelling(new) for old, new in config.merge.items()}
        wanted = {*_FOUR, *map(spelling, config.emotions)}
        names = dict(_EMOTIONS)
        if "excited" not in {*wanted, *merge}:
            names["exc"] = "happy"
        part = read_choice(config, "dialogues", tuple(_PARTS))
        utterances: list[Utterance] = []
        problems: list[Problem] = []
        num_files = 0
        for session, path in _evaluation_files(source):
            num_files += 1
            text = source.read(path).decode("utf-8", errors="replace")
            for number, line in enumerate(text.splitlines(), 1):
                # A line with a vote starts with a time span. All other lines are ignored.
                if not line.startswith("["):
                    continue
                parsed = _parse(line, session, names)
                if isinstance(parsed, str):
                    problems.append(Problem(f"{path}:{number}", parsed))
                elif _PARTS[part] not in parsed.utterance_id:
                    continue
                elif merge.get(parsed.emotion, parsed.emotion) in wanted:
                    utterances.append(parsed)
        if not num_files:
            raise CorpusError(
                f"{source.uri}: there is no SessionN/dialog/EmoEvaluation/*.txt; set runtime.corpus to "
                f"the folder that contains Session1 to Session5"
            )
        return utterances, problems


def _evaluation_files(source: Store) -> Iterator[tuple[str, str]]:
    """(session, path) of every file with votes, in order."""
    for session in SESSIONS:
        folder = f"{session}/dialog/EmoEvaluation"
        for entry in source.list(folder):
            name = entry.path.removeprefix(f"{folder}/")
            if "/" not in name and name.endswith(".txt") and not name.startswith("."):
                yield session, entry.path


def _parse(line: str, session: str, names: dict[str, str]) -> Utterance | str:
    """The utterance of a line with a vote, or the reason why the line is bad.

    ``names`` maps an emotion code to the emotion's name.
    """
    vote = _LINE.match(line)
    if vote is None:
        return f"cannot be read as '[start - end] utterance emotion [v, a, d]': {line!r}"
    name, code = vote["utterance"], vote["code"]
    parts = _UTTERANCE.fullmatch(name)
    if parts is None:
        return f"{name!r} is not an utterance id of IEMOCAP, such as Ses01F_impro01_M003"
    if f"Session{parts['session']}" != session:
        return f"{name!r} is in {session}; move the file to its folder in the release"
    if code not in names:
        return f"{name!r} has emotion {code!r}; known are {', '.join(names)}"
    return Utterance(
        utterance_id=name,
        path=f"{session}/sentences/wav/{parts['dialogue']}/{name}.wav",
        speaker=f"Ses0{parts['session']}{parts['gender']}",
        gender=_GENDERS[parts["gender"]],
        emotion=names[code],
        session=session,
    )
