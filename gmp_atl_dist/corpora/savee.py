"""SAVEE, Surrey Audio-Visual Expressed Emotion (British English).

Content: 4 men speak 15 sentences in 6 emotions, and 30 neutral ones: 480 recordings. 44.1 kHz mono 16-bit.

Source and licence: University of Surrey, http://kahlan.eps.surrey.ac.uk/savee/. Free for research after
registration; no redistribution.

Layout: ``AudioData/DC/a01.wav``: folder = speaker (DC, JE, JK, KL), letter = emotion (a angry, d disgusted,
f fearful, h happy, n neutral, sa sad, su surprised), sentence. Copies in one folder are named ``DC_a01.wav``.

Known faults:
  - Men alone. A run that uses gender has no female class: set ``warmup.gender_weight = 0`` and
    ``cluster.gender = "none"``.
  - 4 speakers, all of one department: a score says little about others.
  - Neutral has twice as many recordings.

Cite: Haq, S. and Jackson, P. J. B. (2009). Speaker-dependent audio-visual emotion recognition. AVSP 2009.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from gmp_atl_dist.config import CorpusConfig
from gmp_atl_dist.corpora.base import Listed
from gmp_atl_dist.corpora.card import Card
from gmp_atl_dist.corpora.file_names import list_by_name
from gmp_atl_dist.records import Utterance
from gmp_atl_dist.store.filesystem import Store

_EMOTIONS = {
    "n": "neutral",
    "h": "happy",
    "a": "angry",
    "sa": "sad",
    "f": "fearful",
    "d": "disgusted",
    "su": "surprised",
}
_NAME = r"(?P<speaker>DC|JE|JK|KL)[/_](?P<text>(?P<emotion>sa|su|[adfhn])\d\d)"


@dataclass(frozen=True)
class Savee:
    """Adapter of the folder ``AudioData``, and of copies in one folder."""

    name: ClassVar[str] = "savee"
    title: ClassVar[str] = "SAVEE"
    default_emotions: ClassVar[tuple[str, ...]] = tuple(_EMOTIONS.values())
    card: ClassVar[Card] = Card(
        title="SAVEE",
        languages="English",
        speakers="4 (male)",
        utterances="480",
        licence="on request, research, no redistribution",
        example="AudioData/DC/a01.wav",
        summary="four men, 7 emotions",
    )

    def list(self, source: Store, config: CorpusConfig) -> Listed:
        """All recordings; a problem names each file that is not named as published."""
        return list_by_name(source, _NAME, _read, example=self.card.example)


def _read(path: str, parts: re.Match[str]) -> Utterance:
    return Utterance(
        utterance_id=f"savee_{parts['speaker']}_{parts['text']}",
        path=path,
        speaker=f"savee_{parts['speaker']}",
        gender="male",
        emotion=_EMOTIONS[parts["emotion"]],
    )
