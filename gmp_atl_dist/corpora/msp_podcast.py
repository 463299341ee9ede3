"""MSP-Podcast (English).

Content: natural speech from podcasts, cut into speaking turns of 2.75 to 11 s, with the votes of at least
five listeners each. It grows with its releases: 2.0 has some 267,000 turns, 400 h, of over 3,000 speakers.

Source and licence: The University of Texas at Dallas, https://lab-msp.com/MSP/MSP-Podcast.html. Under a
licence that must be signed; no redistribution.

Layout: ``Labels/labels_consensus.csv`` (FileName, EmoClass, SpkrID, Gender, Split_Set) and
``Audios/MSP-PODCAST_0001_0008.wav``, 16 kHz mono. EmoClass: N neutral, H happy, A angry, S sad, F fearful,
D disgusted, U surprised, C contemptuous; O other, X no agreement. O and X are listed only if
``corpus.emotions`` or ``corpus.merge`` names them (other, undecided).

Split_Set is Train, Development (also Validation), Test1, Test2 or Test3, for ``folds.by = "split"``.
Options: ``corpus.options.test = "test1"`` (default, the usual test set), ``"test2"``, ``"test3"`` or
``"all"``. Turns of the other test sets are left out.

Known faults:
  - Gender and speaker are "Unknown" for many turns. Gender is then unknown: a run that needs gender counts
    these turns as bad items, so do without (see "Without gender"). An unknown speaker becomes one name per
    podcast, ``Unknown_0001``; it may be the same person as a known speaker of that podcast.
  - Speakers are numbered; the same number is the same person.
  - The labels of Test3 are not published. Its recordings (``MSP-PODCAST_test3_*``) are left out.
  - Very uneven classes: use UAR.
  - A recording without a row is a named problem, and so is a row without a recording.

Cite: Lotfian, R. and Busso, C. (2019). IEEE Transactions on Affective Computing 10(4), 471-483.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, cast

from gmp_atl_dist.config import CorpusConfig
from gmp_atl_dist.corpora.base import Listed
from gmp_atl_dist.corpora.card import Card, read_choice, wanted_emotions
from gmp_atl_dist.corpora.checks import spelling
from gmp_atl_dist.corpora.file_names import list_by_name, stem_of
from gmp_atl_dist.corpora.label_files import find_file, read_rows
from gmp_atl_dist.errors import CorpusError
from gmp_atl_dist.records import Gender, Problem, Utterance
from gmp_atl_dist.store.filesystem import Store

_TABLE = "labels_consensus.csv"
_EMOTIONS = {
    "N": "neutral",
    "H": "happy",
    "A": "angry",
    "S": "sad",
    "F": "fearful",
    "D": "disgusted",
    "U": "surprised",
    "C": "contemptuous",
    "O": "other",
    "X": "undecided",
}
_EIGHT = tuple(_EMOTIONS.values())[:8]
_SPLITS = {
    "train": "train",
    "development": "valid",
    "validation": "valid",
    "test1": "test",
    "test2": "test",
    "test3": "test",
}
_UNKNOWN = "unknown"
_NAME = r"MSP-PODCAST_(?P<podcast>\d+|test3)_[\w-]+"


@dataclass(frozen=True)
class MspPodcast:
    """Adapter of the release's labels and audio folders."""

    name: ClassVar[str] = "msp_podcast"
    title: ClassVar[str] = "MSP-Podcast"
    default_emotions: ClassVar[tuple[str, ...]] = _EIGHT
    options: ClassVar[Mapping[str, str]] = {"test": "test1, test2, test3 or all"}
    card: ClassVar[Card] = Card(
        title="MSP-Podcast",
        languages="English",
        speakers="over 3,000; many turns have unknown speakers",
        utterances="267,000 in release 2.0",
        licence="on request, research, no redistribution",
        example="Audios/MSP-PODCAST_0001_0008.wav",
        summary="natural speech from podcasts, votes of listeners, official splits",
    )

    def list(self, source: Store, config: CorpusConfig) -> Listed:
        """The labelled turns. A problem names each row or recording that has no counterpart.

        Raises:
            CorpusError: there is no ``labels_consensus.csv``, or it lacks a column.
        """
        test = read_choice(config, "test", ("test1", "test2", "test3", "all"))
        wanted = wanted_emotions(config, _EIGHT)
        table = find_file([entry.path for entry in source.list()], _TABLE)
        if table is None:
            raise CorpusError(
                f"{source.uri}: there is no {_TABLE}; set runtime.corpus to the folder with Labels and "
                f"Audios"
            )
        columns = ("FileName", "EmoClass", "SpkrID", "Gender", "Split_Set")
        rows = {stem_of(row["FileName"]): row for row in read_rows(source, table, columns)}
        used: set[str] = set()

        def read(path: str, parts: re.Match[str]) -> Utterance | str | None:
            name = stem_of(path)
            used.add(name)
            if name not in rows:
                no_label = f"has no row in {table}; use labels and audio of one release"
                return None if parts["podcast"] == "test3" else no_label
            row = rows[name]
            split = spelling(row["Split_Set"])
            emotion = _EMOTIONS.get(row["EmoClass"])
            if emotion is None or split not in _SPLITS:
                return (
                    f"EmoClass {row['EmoClass']!r} or Split_Set {row['Split_Set']!r} is not known"
                )
            if emotion not in wanted or (_SPLITS[split] == "test" and test not in ("all", split)):
                return None
            speaker, gender = row["SpkrID"], spelling(row["Gender"])
            if spelling(speaker) in ("", _UNKNOWN):
                speaker = f"Unknown_{parts['podcast']}"
            return Utterance(
                utterance_id=name,
                path=path,
                speaker=f"msp_{speaker}",
                gender=cast("Gender", "" if gender == _UNKNOWN else gender),
                emotion=emotion,
                split=_SPLITS[split],
            )

        utterances, problems = list_by_name(source, _NAME, read, example=self.card.example)
        problems += [
            Problem(f"{table}: {row['FileName']}", "has no recording; copy it below runtime.corpus")
            for name, row in rows.items()
            if name not in used
        ]
        return utterances, problems
