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

What is checked: every wav file below ``SessionN/sentences/wav`` has a label, the lines with votes are counted
in a second way, and the five sessions are there. Files in UTF-16, with a byte-order mark, or with indented
lines are read. A tree with fewer dialogues or turns than the release is read, with a note that says how many.
``corpus.allow_incomplete`` accepts a tree that lacks sessions.

Cite: Busso, C. et al. (2008). IEMOCAP: Interactive emotional dyadic motion capture database.
Language Resources and Evaluation 42(4), 335-359.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from gmp_atl_dist.config import CorpusConfig
from gmp_atl_dist.corpora.base import Listed
from gmp_atl_dist.corpora.card import read_choice
from gmp_atl_dist.corpora.checks import spelling
from gmp_atl_dist.corpora.iemocap_release import (
    MARKER,
    SESSIONS,
    misnamed_sessions,
    missing_sessions,
    smaller_than_release,
)
from gmp_atl_dist.corpora.iemocap_votes import Turn, read_votes
from gmp_atl_dist.errors import CorpusError
from gmp_atl_dist.records import Gender, Note, Problem, Utterance
from gmp_atl_dist.store.filesystem import Store

__all__ = ["SESSIONS", "Iemocap"]

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
# What the ids of a dialogue of each kind hold: Ses01F_impro01_M003, Ses01F_script01_1_M003.
_PARTS = {"all": "", "improvised": "_impro", "scripted": "_script"}
_GENDERS: dict[str, Gender] = {"F": "female", "M": "male"}


@dataclass
class _Session:
    """What one session holds: its votes, and what is wrong with them."""

    name: str
    turns: list[Turn] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    """The file with votes of each dialogue, by the name of the dialogue."""
    wavs: tuple[str, ...] = ()
    """Paths of the recordings."""


@dataclass(frozen=True)
class Iemocap:
    """Adapter of the release's folders. The synthetic corpus has the same layout."""

    name: ClassVar[str] = "iemocap"
    default_emotions: ClassVar[tuple[str, ...]] = _FOUR
    options: ClassVar[Mapping[str, str]] = {"dialogues": "all, improvised or scripted"}

    def list(self, source: Store, config: CorpusConfig) -> Listed:
        """Utterances of the four classes and of the classes that ``config.emotions`` adds.

        A recording without a label is a problem, whatever its class would be. A tree that is smaller than
        the release has a note.

        Raises:
            CorpusError: there is no evaluation file in the folders of the release, or sessions are missing.
        """
        merge = {spelling(old): spelling(new) for old, new in config.merge.items()}
        wanted = {*_FOUR, *map(spelling, config.emotions)}
        names = dict(_EMOTIONS)
        if "excited" not in {*wanted, *merge}:
            names["exc"] = "happy"
        part = read_choice(config, "dialogues", tuple(_PARTS))
        sessions = [_read_session(source, session) for session in SESSIONS]
        folders = source.folders()
        if not any(session.files or session.wavs for session in sessions):
            seen = f" (it has the folders {', '.join(folders[:8])})" if folders else ""
            raise CorpusError.of_all(
                f"{source.uri}: there is no SessionN/dialog/EmoEvaluation/*.txt{seen}; set runtime.corpus "
                f"to the folder that contains Session1 to Session5",
                misnamed_sessions(folders),
            )
        present = {session.name for session in sessions if session.files or session.wavs}
        absent = missing_sessions(source.uri, present, folders)
        if absent and not config.allow_incomplete:
            raise absent
        utterances: list[Utterance] = []
        problems: list[Problem] = []
        for session in sessions:
            problems += [*session.problems, *_unlabelled(session)]
            for turn in session.turns:
                parsed = _utterance(turn, names)
                if isinstance(parsed, str):
                    problems.append(Problem(turn.where, parsed))
                elif _PARTS[part] not in parsed.utterance_id:
                    continue
                elif merge.get(parsed.emotion, parsed.emotion) in wanted:
                    utterances.append(parsed)
        if not source.exists(MARKER):
            dialogues = {s.name: {turn.dialogue for turn in s.turns} for s in sessions}
            num_turns = sum(len(session.turns) for session in sessions)
            reason = smaller_than_release(dialogues, num_turns)
            problems += [Note(source.uri, reason)] if reason else []
        return utterances, problems


def _read_session(source: Store, session: str) -> _Session:
    folder = f"{session}/sentences/wav"
    wavs = tuple(
        entry.path
        for entry in source.list(folder)
        if entry.path.lower().endswith(".wav") and not _name(entry.path).startswith(".")
    )
    found = _Session(session, wavs=wavs)
    for path in _evaluation_files(source, session):
        found.files[_name(path)[: -len(".txt")]] = path
        turns, problems = read_votes(source.read(path), path, session)
        found.turns += turns
        found.problems += problems
    return found


def _evaluation_files(source: Store, session: str) -> Iterator[str]:
    """Paths of the files with votes of one session, in order."""
    folder = f"{session}/dialog/EmoEvaluation"
    for entry in source.list(folder):
        name = entry.path.removeprefix(f"{folder}/")
        if "/" not in name and name.lower().endswith(".txt") and not name.startswith("."):
            yield entry.path


def _unlabelled(session: _Session) -> Iterator[Problem]:
    """A problem for each recording for which no vote was read, and why."""
    voted = {turn.utterance_id for turn in session.turns}
    dialogues = {turn.dialogue for turn in session.turns}
    # A line that cannot be read is a problem of its own; its recording is not named a second time.
    broken = " ".join(problem.reason for problem in session.problems)
    for path in session.wavs:
        utterance_id = _name(path).rpartition(".")[0]
        if utterance_id in voted or utterance_id in broken:
            continue
        dialogue = path.removeprefix(f"{session.name}/sentences/wav/").partition("/")[0]
        file = session.files.get(dialogue)
        if file is None:
            why = f"there is no {session.name}/dialog/EmoEvaluation/{dialogue}.txt"
        elif dialogue not in dialogues:
            why = f"{file} has no line of votes, so it is empty, cut or no text"
        else:
            why = f"{file} has no line of votes for it, so it may be cut"
        yield Problem(path, f"has no label, because {why}; copy that file again from the release")


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _utterance(turn: Turn, names: dict[str, str]) -> Utterance | str:
    """The utterance of a vote, or why its emotion is not known. ``names`` maps codes to emotions."""
    if turn.code not in names:
        return f"{turn.utterance_id!r} has emotion {turn.code!r}; known are {', '.join(names)}"
    return Utterance(
        utterance_id=turn.utterance_id,
        path=f"{turn.session}/sentences/wav/{turn.dialogue}/{turn.utterance_id}.wav",
        speaker=f"Ses0{turn.session[-1]}{turn.gender}",
        gender=_GENDERS[turn.gender],
        emotion=names[turn.code],
        session=turn.session,
    )
