"""SUBESCO, the SUST Bangla Emotional Speech Corpus.

Content: 20 actors (10 women, 10 men) speak 10 sentences in 7 emotions, 5 times: 7,000 recordings, 7 h 40 min.
48 kHz mono 16-bit.

Source and licence: https://zenodo.org/records/4526477, CC BY 4.0.

Layout: ``F_02_MONIKA_S_1_NEUTRAL_5.wav``: gender, number and name of the speaker, ``S`` and the sentence,
emotion (ANGRY, DISGUST, FEAR, HAPPY, NEUTRAL, SAD, SURPRISE), take.

Known faults:
  - Numbers of speakers begin again for each gender: ``F_01`` and ``M_01`` are two people.
  - All speak the same 10 sentences, each 5 times in each emotion: takes must not be on two sides of a fold.
    Hold out speakers.

Cite: Sultana, S. et al. (2021). SUST Bangla Emotional Speech Corpus (SUBESCO). PLoS ONE 16(4), e0250173.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from gmp_atl_dist.config import CorpusConfig
from gmp_atl_dist.corpora.base import Listed
from gmp_atl_dist.corpora.card import Card
from gmp_atl_dist.corpora.file_names import list_by_name, stem_of
from gmp_atl_dist.records import Utterance
from gmp_atl_dist.store.filesystem import Store

_EMOTIONS = {
    "NEUTRAL": "neutral",
    "HAPPY": "happy",
    "ANGRY": "angry",
    "SAD": "sad",
    "FEAR": "fearful",
    "DISGUST": "disgusted",
    "SURPRISE": "surprised",
}
_NAME = rf"(?P<speaker>[FM]_\d\d)_[A-Z]+_S_\d+_(?P<emotion>{'|'.join(_EMOTIONS)})_\d+"


@dataclass(frozen=True)
class Subesco:
    """Adapter of the recordings in any folder."""

    name: ClassVar[str] = "subesco"
    title: ClassVar[str] = "SUBESCO"
    default_emotions: ClassVar[tuple[str, ...]] = tuple(_EMOTIONS.values())
    card: ClassVar[Card] = Card(
        title="SUBESCO",
        languages="Bangla",
        speakers="20 (10 female, 10 male)",
        utterances="7,000",
        licence="CC BY 4.0",
        example="F_02_MONIKA_S_1_NEUTRAL_5.wav",
        summary="actors, 10 sentences, 7 emotions, 5 takes",
    )

    def list(self, source: Store, config: CorpusConfig) -> Listed:
        """All recordings; a problem names each file that is not named as published."""
        return list_by_name(source, _NAME, _read, example=self.card.example)


def _read(path: str, parts: re.Match[str]) -> Utterance:
    return Utterance(
        utterance_id=f"subesco_{stem_of(path)}",
        path=path,
        speaker=f"subesco_{parts['speaker']}",
        gender="female" if parts["speaker"].startswith("F") else "male",
        emotion=_EMOTIONS[parts["emotion"]],
    )
