"""EmoDB, the Berlin Database of Emotional Speech (German), first release.

Content: 10 actors (5 women, 5 men, aged 21 to 35) speak 10 sentences in 7 emotions: 535 utterances that at
least 80 % of the listeners recognized and 60 % judged as natural. 16 kHz mono 16-bit.

Source and licence: TU Berlin, http://emodb.bilderbar.info/. Free to use; the authors ask for the citation.

Layout: ``wav/03a01Fa.wav``: speaker (2 digits), sentence (``a`` or ``b`` and 2 digits), emotion, version.
The letter is of the German word: W angry, L bored, E disgusted, A fearful, F happy, T sad, N neutral.
Companions without audio: ``lablaut``, ``labsilb``, ``silb``, ``erkennung.txt``.

Known faults:
  - Very small: an interval over 10 speakers is wide. 127 angry and 46 disgusted utterances: use UAR.
  - All speak the same 10 sentences, so a test sentence was always heard in training.
  - Many published splits are not speaker-independent. Hold out speakers: ``folds.by = "speaker"``.
  - A copy whose files all last 2.0 s is cut; the originals last 1.2 to 9 s.
  - Emo-DB 2 has other names and more recordings. Read it with the adapter ``table``.

Cite: Burkhardt, F. et al. (2005). A database of German emotional speech. Interspeech 2005, 1517-1520.
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
    "F": "happy",
    "W": "angry",
    "T": "sad",
    "A": "fearful",
    "E": "disgusted",
    "L": "bored",
}
_WOMEN = ("08", "09", "13", "14", "16")
_MEN = ("03", "10", "11", "12", "15")


@dataclass(frozen=True)
class EmoDb:
    """Adapter of the folder ``wav``."""

    name: ClassVar[str] = "emodb"
    title: ClassVar[str] = "EmoDB"
    default_emotions: ClassVar[tuple[str, ...]] = tuple(_EMOTIONS.values())
    card: ClassVar[Card] = Card(
        title="EmoDB",
        languages="German",
        speakers="10 (5 female, 5 male)",
        utterances="535",
        licence="free; citation asked for",
        example="wav/03a01Fa.wav",
        summary="actors, 10 sentences, 7 emotions",
    )

    def list(self, source: Store, config: CorpusConfig) -> Listed:
        """All recordings; a problem names each file that is not named as published."""
        speakers = "|".join((*_WOMEN, *_MEN))
        pattern = rf"(?P<speaker>{speakers})[ab]\d\d(?P<emotion>[{''.join(_EMOTIONS)}])[a-z]"
        return list_by_name(source, pattern, _read, example=self.card.example)


def _read(path: str, parts: re.Match[str]) -> Utterance:
    return Utterance(
        utterance_id=f"emodb_{stem_of(path)}",
        path=path,
        speaker=f"emodb_{parts['speaker']}",
        gender="female" if parts["speaker"] in _WOMEN else "male",
        emotion=_EMOTIONS[parts["emotion"]],
    )
