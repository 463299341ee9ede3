"""A synthetic corpus in IEMOCAP's layout: for tests, demonstrations and sites without a licence.

Content: 5 sessions with a female and a male voice each, dialogues with either prefix in which both
voices speak, votes in the format of the release, 16 kHz mono 16-bit WAV.
:mod:`gmp_atl_dist.corpora.voices` describes the voices and what distinguishes the emotions.

Source and licence: made by this project without any recording; free of rights.

Pitfalls: the corpus says nothing about speech. Scores on it test the software. Never report them as
emotion recognition. On one machine the seed determines the bytes; on another machine floating-point
results may differ in the last bit.
"""

from __future__ import annotations

import hashlib
import shutil
import wave
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gmp_atl_dist.audio import SAMPLE_RATE_HZ
from gmp_atl_dist.corpora.iemocap_release import MARKER, SESSIONS
from gmp_atl_dist.corpora.voices import MANNERS, Signal, Speaker, act, draw_speaker, speak
from gmp_atl_dist.errors import ConfigError, CorpusError

_MARKER_TEXT = (
    "gmp_atl_dist.corpora.synth wrote this folder: an artificial corpus in the layout of IEMOCAP, made "
    "of synthetic voices. It contains no part of IEMOCAP. Results on it say nothing about speech. "
    "Writing it again replaces the folders Session1 to Session5.\n"
)

_CLASSES = ("neu", "hap", "ang", "sad")
_LEFT_OUT = ("fru", "xxx")


@dataclass(frozen=True, slots=True)
class _Line:
    """One line with a vote."""

    utterance_id: str
    code: str
    start_s: float
    end_s: float


def write_synthetic_corpus(
    out: Path,
    *,
    seed: int = 0,
    utterances_per_speaker_and_emotion: int = 6,
    seconds: tuple[float, float] = (1.0, 2.2),
) -> int:
    """Write the corpus to the folder ``out``, replacing an earlier one.

    Args:
        out: a folder that does not exist, is empty, or was written by this function.
        seed: the same seed gives the same bytes.
        utterances_per_speaker_and_emotion: for each of 10 speakers and 4 classes.
        seconds: durations of the shortest and the longest utterance.

    Returns:
        The number of utterances in the four classes. There are two more per speaker, one frustrated
        and one without a majority, which readers must leave out.

    Raises:
        ConfigError: a number is out of range.
        CorpusError: ``out`` contains other files.
    """
    if seed < 0 or utterances_per_speaker_and_emotion < 1 or not 0.1 <= seconds[0] <= seconds[1]:
        raise ConfigError(
            f"a synthetic corpus needs a seed of at least 0 (got {seed}), at least 1 utterance per "
            f"speaker and emotion (got {utterances_per_speaker_and_emotion}), and increasing "
            f"durations of at least 0.1 s (got {seconds[0]:g} to {seconds[1]:g})"
        )
    _prepare_folder(out)
    for session in SESSIONS:
        if (out / session).exists():
            shutil.rmtree(out / session)
        speakers = {
            gender: draw_speaker(_rng(seed, f"speaker {session} {gender}"), gender)
            for gender in "FM"
        }
        planned = _dialogues(session, utterances_per_speaker_and_emotion, seed)
        for dialogue, turns in planned.items():
            _write_dialogue(out / session, dialogue, turns, speakers, seed, seconds)
    return len(SESSIONS) * 2 * len(_CLASSES) * utterances_per_speaker_and_emotion


def _prepare_folder(out: Path) -> None:
    """Refuse a folder with other files, and write the marker before any other file."""
    if out.exists() and not out.is_dir():
        raise CorpusError(f"{out} is a file; name a folder for the synthetic corpus")
    if out.is_dir() and any(out.iterdir()) and not (out / MARKER).is_file():
        raise CorpusError(
            f"{out} contains files that are not a synthetic corpus (there is no {MARKER}); name a "
            f"new or an empty folder"
        )
    out.mkdir(parents=True, exist_ok=True)
    (out / MARKER).write_text(_MARKER_TEXT, encoding="utf-8")


def _rng(seed: int, name: str) -> np.random.Generator:
    """A separate random stream for each name, so that a new one changes no other."""
    return np.random.default_rng(
        [seed, int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")]
    )


def _dialogues(session: str, count: int, seed: int) -> dict[str, list[tuple[str, str]]]:
    """(utterance id, emotion code) of the turns of each dialogue. Both genders speak in each."""
    names = [f"Ses0{session[-1]}{prefix}_impro01" for prefix in "FM"]
    planned: list[tuple[str, str, str]] = []
    for gender in "FM":
        for i in range(count):
            # Every third happy utterance is excited, which the four-class set merges into happy.
            happy = "exc" if i % 3 == 2 else "hap"
            for j, code in enumerate(_CLASSES):
                # Emotions alternate between the prefixes, so that a prefix does not reveal an emotion.
                name = names[(i + j) % 2]
                planned.append((name, gender, happy if code == "hap" else code))
        planned += [(name, gender, code) for name, code in zip(names, _LEFT_OUT, strict=True)]
    turns: dict[str, list[tuple[str, str]]] = {name: [] for name in names}
    num_turns: Counter[str] = Counter()
    # In random order, so that the number of an utterance does not reveal its emotion.
    for i in _rng(seed, f"order {session}").permutation(len(planned)):
        name, gender, code = planned[i]
        speaker = f"{name}_{gender}"
        turns[name].append((f"{speaker}{num_turns[speaker]:03d}", code))
        num_turns[speaker] += 1
    return turns


def _write_dialogue(
    folder: Path,
    dialogue: str,
    turns: list[tuple[str, str]],
    speakers: dict[str, Speaker],
    seed: int,
    seconds: tuple[float, float],
) -> None:
    audio = folder / "sentences" / "wav" / dialogue
    votes = folder / "dialog" / "EmoEvaluation"
    audio.mkdir(parents=True, exist_ok=True)
    votes.mkdir(parents=True, exist_ok=True)
    lines: list[_Line] = []
    now_s = 1.0
    for utterance_id, code in turns:
        rng = _rng(seed, utterance_id)
        num_samples = round(rng.uniform(*seconds) * SAMPLE_RATE_HZ)
        speaker = speakers[utterance_id.rpartition("_")[2][0]]
        signal = speak(num_samples, speaker, act(rng, MANNERS[code]), rng)
        _write_wav(audio / f"{utterance_id}.wav", signal)
        end_s = now_s + num_samples / SAMPLE_RATE_HZ
        lines.append(_Line(utterance_id, code, now_s, end_s))
        now_s = end_s + 0.5
    (votes / f"{dialogue}.txt").write_text("".join(_vote_text(lines)), encoding="utf-8")


def _vote_text(lines: list[_Line]) -> Iterator[str]:
    yield "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
    for line in lines:
        span = f"[{line.start_s:.4f} - {line.end_s:.4f}]"
        yield f"{span}\t{line.utterance_id}\t{line.code}\t[2.5000, 2.5000, 2.5000]\n"
        # Single opinions. They differ from the vote, and a reader must not use them.
        yield "C-E2:\tNeutral;\t()\nC-E3:\tOther;\t()\nA-E3:\tval 3; act 2; dom  2;\t()\n\n"


def _write_wav(path: Path, signal: Signal) -> None:
    pcm16 = np.clip(np.rint(signal * 32768.0), -32768, 32767).astype("<i2")
    with wave.open(str(path), "wb") as f:
        f.setnchannels(1)
        f.setsampwidth(2)
        f.setframerate(SAMPLE_RATE_HZ)
        f.writeframes(pcm16.tobytes())
