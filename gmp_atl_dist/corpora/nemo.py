"""nEMO (Polish).

Content: 9 actors (4 women, 5 men) speak 90 sentences in 6 emotions: 4,481 recordings, 3.1 h. 24 kHz mono
16-bit as published.

Source and licence: https://github.com/amu-cai/nEMO, CC BY-NC-SA 4.0.

Layout: ``samples/SK0_anger_1.wav``: speaker, emotion (neutral, happiness, anger, sadness, fear, surprised),
sentence. Copies that keep the names, in any folder and container, are read as well. ``data.tsv`` repeats the
labels and adds texts and ages; the adapter does not need it.

Known faults:
  - Speakers MK0 and MP0 recorded fewer sentences (450 and 256 of 540), so classes differ between speakers.
  - All speak the same sentences.
  - The release on the Hugging Face hub has Parquet files instead: use the adapter ``huggingface``.

Cite: Christop, I. (2024). nEMO: Dataset of emotional speech in Polish. LREC-COLING 2024, 12111-12116.
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
    "happiness": "happy",
    "anger": "angry",
    "sadness": "sad",
    "fear": "fearful",
    "surprised": "surprised",
}
_WOMEN = ("EB0", "IC0", "KD0", "MK0")
_MEN = ("KS0", "MP0", "SM0", "TP0", "WR0")
_NAME = rf"(?P<speaker>{'|'.join((*_WOMEN, *_MEN))})_(?P<emotion>{'|'.join(_EMOTIONS)})_\d+"


@dataclass(frozen=True)
class Nemo:
    """Adapter of the folder ``samples``."""

    name: ClassVar[str] = "nemo"
    title: ClassVar[str] = "nEMO"
    default_emotions: ClassVar[tuple[str, ...]] = tuple(_EMOTIONS.values())
    card: ClassVar[Card] = Card(
        title="nEMO",
        languages="Polish",
        speakers="9 (4 female, 5 male)",
        utterances="4,481",
        licence="CC BY-NC-SA 4.0",
        example="samples/EB0_anger_1.wav",
        summary="actors, 90 sentences, 6 emotions",
    )

    def list(self, source: Store, config: CorpusConfig) -> Listed:
        """All recordings; a problem names each file that is not named as published."""
        return list_by_name(source, _NAME, _read, example=self.card.example)


def _read(path: str, parts: re.Match[str]) -> Utterance:
    return Utterance(
        utterance_id=f"nemo_{stem_of(path)}",
        path=path,
        speaker=f"nemo_{parts['speaker']}",
        gender="female" if parts["speaker"] in _WOMEN else "male",
        emotion=_EMOTIONS[parts["emotion"]],
    )
