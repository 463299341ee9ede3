"""TESS, the Toronto Emotional Speech Set (English).

Content: two women (26 and 64 years old) speak 200 words in "Say the word ..." in 7 emotions: 2,800
recordings. 24.4 kHz mono 16-bit.

Source and licence: University of Toronto, https://doi.org/10.5683/SP2/E8H2MF, CC BY-NC-ND 4.0.

Layout: ``OAF_Fear/OAF_back_fear.wav``: speaker (OAF = the older, YAF = the younger woman), word, emotion
(neutral, happy, angry, sad, fear, disgust, ps = pleasant surprise). The folders may be missing.

Known faults:
  - Two speakers: with one held out, one is left for training. Scores near 100 % come from splits in which
    both women are on both sides. Use it as training data beside other corpora.
  - Women alone: a run that uses gender has no male class.
  - ``OA_bite_neutral`` lacks a letter; it is of OAF, and read.
  - ``YAF_germ_angry`` and ``YAF_neat_fear`` are damaged in some copies; ``ingest`` names them then.
  - Copies from Kaggle hold all files twice, in a second folder. Each second copy is a bad item.

Cite: Pichora-Fuller, M. K. and Dupuis, K. (2020). Toronto emotional speech set (TESS). Borealis.
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
    "neutral": "neutral",
    "happy": "happy",
    "angry": "angry",
    "sad": "sad",
    "fear": "fearful",
    "disgust": "disgusted",
    "ps": "surprised",
}
_MISNAMED = "OA_bite_neutral"
_NAME = rf"(?P<speaker>OAF|YAF|OA(?=_bite_neutral))_[a-z]+_(?P<emotion>{'|'.join(_EMOTIONS)})"


@dataclass(frozen=True)
class Tess:
    """Adapter of the recordings, with or without their folders."""

    name: ClassVar[str] = "tess"
    title: ClassVar[str] = "TESS"
    default_emotions: ClassVar[tuple[str, ...]] = tuple(_EMOTIONS.values())
    card: ClassVar[Card] = Card(
        title="TESS",
        languages="English",
        speakers="2 (female)",
        utterances="2,800",
        licence="CC BY-NC-ND 4.0",
        example="OAF_Fear/OAF_back_fear.wav",
        summary="two women, 200 words in one sentence, 7 emotions",
    )

    def list(self, source: Store, config: CorpusConfig) -> Listed:
        """All recordings; a problem names each file that is not named as published."""
        return list_by_name(source, _NAME, _read, example=self.card.example)


def _read(path: str, parts: re.Match[str]) -> Utterance:
    stem = stem_of(path)
    return Utterance(
        utterance_id=f"tess_{stem.replace('OA_', 'OAF_') if stem == _MISNAMED else stem}",
        path=path,
        speaker=f"tess_{parts['speaker'].removesuffix('F')}F",
        gender="female",
        emotion=_EMOTIONS[parts["emotion"]],
    )
