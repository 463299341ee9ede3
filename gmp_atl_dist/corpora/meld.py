"""MELD, the Multimodal EmotionLines Dataset (English).

Content: 13,708 utterances of 1,433 dialogues of the series Friends, as video clips, with 7 emotions by the
majority of three annotators, and the published split (9,989, 1,109 and 2,610 utterances).

Source and licence: https://github.com/declare-lab/MELD, GPL-3.0 for the annotations. The clips are cut from
a television series, whose rights belong to its owner.

Layout: ``train_sent_emo.csv``, ``dev_sent_emo.csv`` and ``test_sent_emo.csv`` (Speaker, Emotion, Dialogue_ID,
Utterance_ID), anywhere below the corpus, and clips ``dia0_utt3.mp4`` in folders whose names hold train, dev
or test (``train_splits``, ``dev_splits_complete``, ``output_repeated_splits_test``). Audio files with these
names are read as well. FFmpeg decodes the video containers; it must be installed on every worker.

Emotions: neutral, joy (happy), anger (angry), sadness (sad), surprise (surprised), fear (fearful), disgust
(disgusted).

Known faults:
  - The split shares speakers: the six friends speak on every side. It is not speaker-independent.
  - Gender is known of the six friends alone. The others count as unknown, so do without gender.
  - Speakers are names such as Joey; crowds ("All", "Both") are names too.
  - ``dia125_utt3`` of train is damaged, and named as a bad item. ``dia110_utt7`` of dev does not exist.
  - Clips named ``final_videos_test*`` are other cuts of utterances that also exist under their usual name.
    They and hidden files (``._dia*``) are left out.
  - Some clips are cut wrongly: a few last minutes, and are bad items above ``corpus.max_s``.
  - Laughter of the audience and music lie behind the voices.

Cite: Poria, S. et al. (2019). MELD: a multimodal multi-party dataset for emotion recognition in
conversations. ACL 2019, 527-536.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, cast

from gmp_atl_dist.config import CorpusConfig
from gmp_atl_dist.corpora.base import Listed
from gmp_atl_dist.corpora.card import Card
from gmp_atl_dist.corpora.checks import spelling
from gmp_atl_dist.corpora.file_names import AUDIO_SUFFIXES, list_by_name
from gmp_atl_dist.corpora.label_files import find_file, read_rows
from gmp_atl_dist.corpora.video import VIDEO_SUFFIXES
from gmp_atl_dist.errors import CorpusError
from gmp_atl_dist.records import Gender, Problem, Utterance
from gmp_atl_dist.store.filesystem import Store

_EMOTIONS = {
    "neutral": "neutral",
    "joy": "happy",
    "anger": "angry",
    "sadness": "sad",
    "surprise": "surprised",
    "fear": "fearful",
    "disgust": "disgusted",
}
_SPLITS = {"train": "train", "dev": "valid", "test": "test"}
_FRIENDS = {
    **dict.fromkeys(("Monica", "Phoebe", "Rachel"), "female"),
    **dict.fromkeys(("Chandler", "Joey", "Ross"), "male"),
}
_NAME = (
    r"[^/]*(?P<split>train|dev|test)[^/]*/"
    r"(?P<other>final_videos_test)?dia(?P<dialogue>\d+)_utt(?P<number>\d+)"
)
_DAMAGED = ("train", 125, 3)


@dataclass(frozen=True)
class Meld:
    """Adapter of the three tables and the clips."""

    name: ClassVar[str] = "meld"
    title: ClassVar[str] = "MELD"
    default_emotions: ClassVar[tuple[str, ...]] = tuple(_EMOTIONS.values())
    card: ClassVar[Card] = Card(
        title="MELD",
        languages="English",
        speakers="about 300; six of them speak most",
        utterances="13,708",
        licence="GPL-3.0 (annotations); clips of a television series",
        example="train_splits/dia0_utt0.mp4",
        summary="clips of a series, 7 emotions, official splits; needs FFmpeg",
    )

    def list(self, source: Store, config: CorpusConfig) -> Listed:
        """The annotated clips. A problem names each row or clip that has no counterpart.

        Raises:
            CorpusError: one of the three tables is missing, or lacks a column.
        """
        rows = _rows(source)
        used: set[tuple[str, int, int]] = set()

        def read(path: str, parts: re.Match[str]) -> Utterance | str | None:
            key = (parts["split"], int(parts["dialogue"]), int(parts["number"]))
            if parts["other"]:
                return None
            used.add(key)
            if key == _DAMAGED:
                return "known fault of the release: it is damaged"
            if key not in rows:
                return f"has no row in {key[0]}_sent_emo.csv; move it away"
            speaker, emotion = rows[key]["Speaker"], spelling(rows[key]["Emotion"])
            if emotion not in _EMOTIONS:
                return f"its emotion {emotion!r} is not known; known are {', '.join(_EMOTIONS)}"
            return Utterance(
                utterance_id="meld_{}_dia{}_utt{}".format(*key),
                path=path,
                speaker=f"meld_{speaker}" if speaker else "",
                gender=cast("Gender", _FRIENDS.get(speaker, "")),
                emotion=_EMOTIONS[emotion],
                split=_SPLITS[key[0]],
            )

        utterances, problems = list_by_name(
            source,
            _NAME,
            read,
            example=self.card.example,
            suffixes=(*AUDIO_SUFFIXES, *VIDEO_SUFFIXES),
        )
        problems += [
            Problem("{}: dia{}_utt{}".format(*key), "has no clip; copy it below runtime.corpus")
            for key in rows
            if key not in used
        ]
        return utterances, problems


def _rows(source: Store) -> dict[tuple[str, int, int], dict[str, str]]:
    """The rows of the three tables by split, dialogue and utterance."""
    files = [entry.path for entry in source.list()]
    rows: dict[tuple[str, int, int], dict[str, str]] = {}
    for split in _SPLITS:
        name = f"{split}_sent_emo.csv"
        table = find_file(files, name)
        if table is None:
            raise CorpusError(
                f"{source.uri}: there is no {name}; copy it from the release, below runtime.corpus"
            )
        columns = ("Speaker", "Emotion", "Dialogue_ID", "Utterance_ID")
        for number, row in enumerate(read_rows(source, table, columns), 1):
            try:
                key = (split, int(row["Dialogue_ID"]), int(row["Utterance_ID"]))
            except ValueError as e:
                raise CorpusError(f"{table}: row {number}: Dialogue_ID or Utterance_ID: {e}") from e
            rows[key] = row
    return rows
