"""ShEMO, the Sharif Emotional Speech Database (Persian).

Content: 3,000 utterances, 3 h 25 min, of 87 speakers (31 women, 56 men) in radio plays, with 6 emotions by
the majority of 12 listeners. 44.1 kHz mono 16-bit.

Source and licence: https://github.com/mansourehk/ShEMO; free for research.

Layout: ``female/F01A01.wav``: gender, speaker (2 digits), emotion (A angry, F fearful, H happy, N neutral,
S sad, W surprised), number. ``transcript`` holds texts.

Known faults:
  - Very uneven: 1,059 angry and 1,028 neutral utterances, 38 fearful ones. Most results leave fear out
    (``corpus.emotions`` without it, and ``ignore_other_emotions = true``). Use UAR.
  - 0.35 to 33 s long.
  - Radio plays: some recordings have music or noise behind the voice.

Cite: Mohamad Nezami, O. et al. (2019). Language Resources and Evaluation 53, 1-16.
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
    "N": "neutral",
    "H": "happy",
    "A": "angry",
    "S": "sad",
    "F": "fearful",
    "W": "surprised",
}
_NAME = rf"(?P<speaker>[FM]\d\d)(?P<emotion>[{''.join(_EMOTIONS)}])\d+"


@dataclass(frozen=True)
class Shemo:
    """Adapter of the folders ``female`` and ``male``."""

    name: ClassVar[str] = "shemo"
    title: ClassVar[str] = "ShEMO"
    default_emotions: ClassVar[tuple[str, ...]] = tuple(_EMOTIONS.values())
    card: ClassVar[Card] = Card(
        title="ShEMO",
        languages="Persian",
        speakers="87 (31 female, 56 male)",
        utterances="3,000",
        licence="free for research",
        example="female/F01A01.wav",
        summary="radio plays, 6 emotions, by vote",
    )

    def list(self, source: Store, config: CorpusConfig) -> Listed:
        """All recordings; a problem names each file that is not named as published."""
        return list_by_name(source, _NAME, _read, example=self.card.example)


def _read(path: str, parts: re.Match[str]) -> Utterance | str:
    gender = "female" if parts["speaker"].startswith("F") else "male"
    folder = path.split("/")[-2:-1]
    if folder in (["female"], ["male"]) and folder != [gender]:
        return f"lies in {folder[0]} and is named as {gender}; use the file of the release"
    return Utterance(
        utterance_id=f"shemo_{stem_of(path)}",
        path=path,
        speaker=f"shemo_{parts['speaker']}",
        gender=gender,
        emotion=_EMOTIONS[parts["emotion"]],
    )
