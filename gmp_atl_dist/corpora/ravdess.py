"""RAVDESS, the Ryerson Audio-Visual Database of Emotional Speech and Song (English).

Content: 24 actors (12 women, 12 men) speak 2 sentences in 8 emotions and 2 intensities, twice: 1,440 spoken
recordings. 23 of them also sing: 1,012 recordings. 48 kHz 16-bit.

Source and licence: https://zenodo.org/records/1188976, CC BY-NC-SA 4.0.

Layout: ``Actor_01/03-01-06-01-02-01-12.wav``: modality (03 = audio only), channel (01 = speech, 02 = song),
emotion (01 neutral, 02 calm, 03 happy, 04 sad, 05 angry, 06 fearful, 07 disgusted, 08 surprised), intensity,
sentence, repetition, actor. Odd actors are men, even ones women.

Options: ``corpus.options.channel = "speech"`` (default), ``"song"`` or ``"all"``. Recordings of the other
channel are left out, and so are the videos (01 and 02), whose sound is that of 03 or none.

Known faults:
  - Song has no disgusted and no surprised recordings, and none of actor 18.
  - Calm is close to neutral: many results merge the two, ``corpus.merge = { calm = "neutral" }``.
  - Neutral has one intensity, so half as many recordings as the others (96 of 1,440).
  - Copies from Kaggle hold all files twice, in ``audio_speech_actors_01-24``. Each second copy is a bad item.
  - A few files have two channels.
  - Two sentences: a test sentence was always heard in training.

Cite: Livingstone, S. R. and Russo, F. A. (2018). PLoS ONE 13(5), e0196391.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from gmp_atl_dist.config import CorpusConfig
from gmp_atl_dist.corpora.base import Listed
from gmp_atl_dist.corpora.card import Card, read_choice
from gmp_atl_dist.corpora.file_names import AUDIO_SUFFIXES, list_by_name, stem_of
from gmp_atl_dist.records import Utterance
from gmp_atl_dist.store.filesystem import Store

_EMOTIONS = {
    "01": "neutral",
    "02": "calm",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fearful",
    "07": "disgusted",
    "08": "surprised",
}
_CHANNELS = {"01": "speech", "02": "song"}
_NAME = (
    r"(?P<modality>0[123])-(?P<channel>0[12])-(?P<emotion>0[1-8])-0[12]-0[12]-0[12]"
    r"-(?P<actor>0[1-9]|1\d|2[0-4])"
)


@dataclass(frozen=True)
class Ravdess:
    """Adapter of the folders of actors."""

    name: ClassVar[str] = "ravdess"
    title: ClassVar[str] = "RAVDESS"
    default_emotions: ClassVar[tuple[str, ...]] = tuple(_EMOTIONS.values())
    options: ClassVar[Mapping[str, str]] = {"channel": "speech, song or all"}
    card: ClassVar[Card] = Card(
        title="RAVDESS",
        languages="English",
        speakers="24 (12 female, 12 male)",
        utterances="1,440 spoken, 1,012 sung",
        licence="CC BY-NC-SA 4.0",
        example="Actor_12/03-01-06-01-02-01-12.wav",
        summary="actors, 2 sentences, 8 emotions, speech and song",
    )

    def list(self, source: Store, config: CorpusConfig) -> Listed:
        """All recordings of the chosen channel; a problem names each file with another name."""
        channel = read_choice(config, "channel", ("speech", "song", "all"))

        def read(path: str, parts: re.Match[str]) -> Utterance | str | None:
            if parts["modality"] != "03" or channel not in ("all", _CHANNELS[parts["channel"]]):
                return None
            return Utterance(
                utterance_id=f"ravdess_{stem_of(path)}",
                path=path,
                speaker=f"ravdess_{parts['actor']}",
                gender="male" if int(parts["actor"]) % 2 else "female",
                emotion=_EMOTIONS[parts["emotion"]],
            )

        suffixes = (*AUDIO_SUFFIXES, ".mp4")
        return list_by_name(source, _NAME, read, example=self.card.example, suffixes=suffixes)
