"""ESD, the Emotional Speech Dataset (Mandarin and English).

Content: 10 speakers of Mandarin (0001 to 0010) and 10 of English (0011 to 0020), 5 women and 5 men each, read
350 sentences in 5 emotions: 35,000 recordings, 29 h. 16 kHz mono 16-bit.

Source and licence: https://github.com/HLTSingapore/Emotional-Speech-Data; free for research, on request.

Layout: ``0001/Angry/0001_000351.wav``: speaker, emotion, and a number that determines the emotion: 350 in
a row are Neutral, Angry, Happy, Sad, Surprise. Some releases have the folders ``train``, ``evaluation`` and
``test`` below the emotion; they become the split. ``0001/0001.txt`` holds texts, in several encodings; it is
not read.

Options: ``corpus.options.language = "all"`` (default), ``"mandarin"`` or ``"english"``.

Known faults:
  - The published split (300, 20 and 30 sentences) has all speakers on all sides, and was made for voice
    conversion. A speaker-independent run holds out speakers: ``folds.by = "speaker"``.
  - A file in the folder of another emotion than its number says is a bad item.
  - The sentences are the same in all emotions, and for all speakers of a language.

Cite: Zhou, K. et al. (2021). Seen and unseen emotional style transfer for voice conversion with a new
emotional speech dataset. ICASSP 2021, 920-924.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from gmp_atl_dist.config import CorpusConfig
from gmp_atl_dist.corpora.base import Listed
from gmp_atl_dist.corpora.card import Card, read_choice
from gmp_atl_dist.corpora.file_names import list_by_name, stem_of
from gmp_atl_dist.records import Utterance
from gmp_atl_dist.store.filesystem import Store

_FOLDERS = ("Neutral", "Angry", "Happy", "Sad", "Surprise")
"""In the order of the numbers."""
_EMOTIONS = {
    "Neutral": "neutral",
    "Angry": "angry",
    "Happy": "happy",
    "Sad": "sad",
    "Surprise": "surprised",
}
_SENTENCES = 350
_WOMEN = (1, 2, 3, 7, 9, 15, 16, 17, 18, 19)
_LAST_OF_MANDARIN = 10
_SPLITS = {"train": "train", "evaluation": "valid", "test": "test", None: ""}
_NAME = (
    rf"(?P<folder>{'|'.join(_FOLDERS)})/(?:(?P<split>train|evaluation|test)/)?"
    r"(?P<speaker>00(?:0[1-9]|1\d|20))_(?P<number>\d{6})"
)


@dataclass(frozen=True)
class Esd:
    """Adapter of the folders of speakers."""

    name: ClassVar[str] = "esd"
    title: ClassVar[str] = "ESD"
    default_emotions: ClassVar[tuple[str, ...]] = tuple(_EMOTIONS.values())
    options: ClassVar[Mapping[str, str]] = {"language": "all, mandarin or english"}
    card: ClassVar[Card] = Card(
        title="ESD",
        languages="Mandarin, English",
        speakers="20 (10 female, 10 male)",
        utterances="35,000",
        licence="on request, research",
        example="0001/Angry/0001_000351.wav",
        summary="read sentences, 5 emotions, made for voice conversion",
    )

    def list(self, source: Store, config: CorpusConfig) -> Listed:
        """All recordings of the chosen language; a problem names each file that is misplaced."""
        language = read_choice(config, "language", ("all", "mandarin", "english"))

        def read(path: str, parts: re.Match[str]) -> Utterance | str | None:
            speaker, number = int(parts["speaker"]), int(parts["number"])
            spoken = "mandarin" if speaker <= _LAST_OF_MANDARIN else "english"
            if language not in ("all", spoken):
                return None
            place = (number - 1) // _SENTENCES
            if not 0 <= place < len(_FOLDERS) or _FOLDERS[place] != parts["folder"]:
                first = _FOLDERS.index(parts["folder"]) * _SENTENCES + 1
                return (
                    f"lies in {parts['folder']}, which holds the numbers {first} to "
                    f"{first + _SENTENCES - 1}; move it to its folder in the release"
                )
            return Utterance(
                utterance_id=f"esd_{stem_of(path)}",
                path=path,
                speaker=f"esd_{parts['speaker']}",
                gender="female" if speaker in _WOMEN else "male",
                emotion=_EMOTIONS[parts["folder"]],
                split=_SPLITS[parts["split"]],
            )

        return list_by_name(source, _NAME, read, example=self.card.example)
