"""EMOVO (Italian).

Content: 6 actors (3 women, 3 men) speak 14 sentences in 7 emotions: 588 recordings. 48 kHz 16-bit stereo.

Source and licence: Fondazione Ugo Bordoni; free for research.

Layout: ``f1/dis-f1-b1.wav``: emotion (neu neutral, gio happy, rab angry, tri sad, pau fearful, dis disgusted,
sor surprised), speaker (f1 to f3, m1 to m3), sentence. The folder ``documents`` holds texts.

Known faults:
  - 6 speakers: results over them vary much. Use ``folds.by = "speaker"``, and look at each fold.
  - All actors speak the same 14 sentences, some of which are nonsense by design.
  - Two channels: ``corpus.channel`` says what becomes of them.

Cite: Costantini, G. et al. (2014). EMOVO corpus: an Italian emotional speech database. LREC 2014, 3501-3504.
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
    "neu": "neutral",
    "gio": "happy",
    "rab": "angry",
    "tri": "sad",
    "pau": "fearful",
    "dis": "disgusted",
    "sor": "surprised",
}
_NAME = rf"(?P<emotion>{'|'.join(_EMOTIONS)})-(?P<speaker>[fm][123])-[bdln]\d"


@dataclass(frozen=True)
class Emovo:
    """Adapter of the folders of speakers."""

    name: ClassVar[str] = "emovo"
    title: ClassVar[str] = "EMOVO"
    default_emotions: ClassVar[tuple[str, ...]] = tuple(_EMOTIONS.values())
    card: ClassVar[Card] = Card(
        title="EMOVO",
        languages="Italian",
        speakers="6 (3 female, 3 male)",
        utterances="588",
        licence="free for research",
        example="f1/dis-f1-b1.wav",
        summary="actors, 14 sentences, 7 emotions",
    )

    def list(self, source: Store, config: CorpusConfig) -> Listed:
        """All recordings; a problem names each file that is not named as published."""
        return list_by_name(source, _NAME, _read, example=self.card.example)


def _read(path: str, parts: re.Match[str]) -> Utterance | str:
    folder = path.split("/")[-2:-1]
    if folder and re.fullmatch("[fm][123]", folder[0]) and folder[0] != parts["speaker"]:
        return f"lies in {folder[0]} and is named {parts['speaker']}; use the file of the release"
    return Utterance(
        utterance_id=f"emovo_{stem_of(path)}",
        path=path,
        speaker=f"emovo_{parts['speaker']}",
        gender="female" if parts["speaker"].startswith("f") else "male",
        emotion=_EMOTIONS[parts["emotion"]],
    )
