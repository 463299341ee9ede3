"""CREMA-D, the Crowd-sourced Emotional Multimodal Actors Dataset (English).

Content: 91 actors (43 women, 48 men, aged 20 to 74) speak 12 sentences in 6 emotions, one of the sentences
in three intensities: 7,442 recordings. 16 kHz mono 16-bit.

Source and licence: https://github.com/CheyneyComputerScience/CREMA-D, Open Database License.

Layout: ``AudioWAV/1001_DFA_ANG_XX.wav``: actor, sentence, emotion, intensity (LO, MD, HI, XX = not given).
``VideoDemographics.csv`` (columns ActorID and Sex) tells the gender; without it, gender is unknown. The label
is the emotion that the actor was asked for, not the vote of the listeners (``processedResults``).
Videos (``VideoFlash``) and ``AudioMP3`` hold the same recordings; they are left out.

Known faults, of the release:
  - ``1076_MTI_SAD_XX`` has no sound, and ``1064_IEO_DIS_MD`` holds all emotions of its sentence, in one
    minute. Both are named as bad items, and left out.
  - ``1040_ITH_SAD_X`` lacks a letter in its name. It is read.
  - A clone without Git LFS holds small text files in place of the recordings. ``ingest`` names each of them.
  - Listeners agree with the asked emotion in 41 % of the cases from audio alone.
  - All speak the same 12 sentences. EmoBox's published split shares speakers; hold out speakers.

Cite: Cao, H. et al. (2014). IEEE Transactions on Affective Computing 5(4), 377-390.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, cast

from gmp_atl_dist.config import CorpusConfig
from gmp_atl_dist.corpora.base import Listed
from gmp_atl_dist.corpora.card import Card
from gmp_atl_dist.corpora.file_names import AUDIO_SUFFIXES, list_by_name, stem_of
from gmp_atl_dist.corpora.label_files import find_file, read_rows
from gmp_atl_dist.records import Gender, Utterance
from gmp_atl_dist.store.filesystem import Store

_EMOTIONS = {
    "NEU": "neutral",
    "HAP": "happy",
    "ANG": "angry",
    "SAD": "sad",
    "FEA": "fearful",
    "DIS": "disgusted",
}
_FAULTS = {
    "1076_MTI_SAD_XX": "it has no sound",
    "1064_IEO_DIS_MD": "it holds all emotions of its sentence",
}
_SENTENCES = "DFA|IEO|IOM|ITH|ITS|IWL|IWW|MTI|TAI|TIE|TSI|WSI"
_NAME = rf"(?P<actor>1\d\d\d)_(?:{_SENTENCES})_(?P<emotion>{'|'.join(_EMOTIONS)})_(?:LO|MD|HI|XX?)"


@dataclass(frozen=True)
class CremaD:
    """Adapter of the folder ``AudioWAV``."""

    name: ClassVar[str] = "cremad"
    title: ClassVar[str] = "CREMA-D"
    default_emotions: ClassVar[tuple[str, ...]] = tuple(_EMOTIONS.values())
    card: ClassVar[Card] = Card(
        title="CREMA-D",
        languages="English",
        speakers="91 (43 female, 48 male)",
        utterances="7,442",
        licence="ODbL 1.0",
        example="AudioWAV/1001_DFA_ANG_XX.wav",
        summary="actors of many ages, 12 sentences, 6 emotions",
    )

    def list(self, source: Store, config: CorpusConfig) -> Listed:
        """All recordings; a problem names each file that is not named as published."""
        files = [entry.path for entry in source.list()]
        table = find_file(files, "VideoDemographics.csv")
        rows = read_rows(source, table, ("ActorID", "Sex")) if table else []
        genders = {row["ActorID"]: row["Sex"] for row in rows}

        def read(path: str, parts: re.Match[str]) -> Utterance | None:
            if {"AudioMP3", "VideoFlash"} & set(path.split("/")):
                return None
            return Utterance(
                utterance_id=f"cremad_{stem_of(path)}",
                path=path,
                speaker=f"cremad_{parts['actor']}",
                gender=cast("Gender", genders.get(parts["actor"], "")),
                emotion=_EMOTIONS[parts["emotion"]],
            )

        suffixes = (*AUDIO_SUFFIXES, ".flv")
        return list_by_name(
            source, _NAME, read, example=self.card.example, suffixes=suffixes, faults=_FAULTS
        )
