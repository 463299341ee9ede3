"""A synthetic corpus in IEMOCAP's shape: for tests, demonstrations and sites without a licence.

What: 5 sessions, a female and a male voice in each, dialogues of either prefix in which both speak,
votes in the release's own format, 16 kHz mono 16-bit WAV. How the voices are made and what sets
emotions apart is in :mod:`gmp_atl_dist.corpora.voices`.

Who and licence: made by this project, no recording behind it, free of rights.

Traps: it says nothing about speech. Figures on it test the machinery and are never to be reported
as emotion recognition. Bytes follow from the seed on one machine; another's floating point may
differ in a last bit.
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
from gmp_atl_dist.corpora.iemocap import SESSIONS
from gmp_atl_dist.corpora.voices import MANNERS, Signal, Speaker, act, draw_speaker, speak
from gmp_atl_dist.errors import ConfigError, CorpusError

MARKER = "SYNTHETIC.md"
_MARKER_TEXT = (
    "This folder was written by gmp_atl_dist.corpora.synth: an artificial corpus in the shape of "
    "IEMOCAP, made of synthetic voices, with nothing of IEMOCAP in it. Results on it say nothing "
    "about speech. Writing it again replaces the folders Session1 to Session5.\n"
)

_CLASSES = ("neu", "hap", "ang", "sad")
_LEFT_OUT = ("fru", "xxx")


@dataclass(frozen=True, slots=True)
class _Line:
    """One line of votes."""

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
        out: a folder that is absent, empty, or written by this function.
        seed: same seed, same bytes.
        utterances_per_speaker_and_emotion: of each of 10 speakers and 4 classes.
        seconds: shortest and longest utterance.

    Returns:
        How many utterances the four classes have. Two more per speaker, frustrated and without a
        majority, are there for readers to leave out.

    Raises:
        ConfigError: a number makes no sense.
        CorpusError: ``out`` holds something else.
    """
    if seed < 0 or utterances_per_speaker_and_emotion < 1 or not 0.1 <= seconds[0] <= seconds[1]:
        raise ConfigError(
            f"a synthetic corpus needs seed >= 0 (found {seed}), some utterances per speaker "
            f"and emotion (found {utterances_per_speaker_and_emotion}), and seconds that rise from "
            f"0.1 (found {seconds[0]:g} to {seconds[1]:g})"
        )
    _claim(out)
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


def _claim(out: Path) -> None:
    """Refuse a folder of somebody else's, and mark it as ours before anything else is written."""
    if out.exists() and not out.is_dir():
        raise CorpusError(f"{out} is a file; name a folder for the synthetic corpus")
    if out.is_dir() and any(out.iterdir()) and not (out / MARKER).is_file():
        raise CorpusError(
            f"{out} holds files that are not a synthetic corpus (there is no {MARKER}); name a new "
            f"or an empty folder"
        )
    out.mkdir(parents=True, exist_ok=True)
    (out / MARKER).write_text(_MARKER_TEXT, encoding="utf-8")


def _rng(seed: int, name: str) -> np.random.Generator:
    """Each thing draws from its own stream, so that adding one changes no other."""
    return np.random.default_rng(
        [seed, int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")]
    )


def _dialogues(session: str, count: int, seed: int) -> dict[str, list[tuple[str, str]]]:
    """(utterance id, emotion code) of each dialogue's turns; both genders speak in every one."""
    names = [f"Ses0{session[-1]}{prefix}_impro01" for prefix in "FM"]
    planned: list[tuple[str, str, str]] = []
    for gender in "FM":
        for i in range(count):
            # Every third happy utterance is excited, which the four-class set merges.
            happy = "exc" if i % 3 == 2 else "hap"
            for j, code in enumerate(_CLASSES):
                # Each emotion goes to the two prefixes in turn, so that no prefix stands for one.
                name = names[(i + j) % 2]
                planned.append((name, gender, happy if code == "hap" else code))
        planned += [(name, gender, code) for name, code in zip(names, _LEFT_OUT, strict=True)]
    turns: dict[str, list[tuple[str, str]]] = {name: [] for name in names}
    said: Counter[str] = Counter()
    # In any order, so that an utterance's number does not stand for its emotion either.
    for i in _rng(seed, f"order {session}").permutation(len(planned)):
        name, gender, code = planned[i]
        speaker = f"{name}_{gender}"
        turns[name].append((f"{speaker}{said[speaker]:03d}", code))
        said[speaker] += 1
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
        # Single opinions, which differ from the vote and which a reader must not take for it.
        yield "C-E2:\tNeutral;\t()\nC-E3:\tOther;\t()\nA-E3:\tval 3; act 2; dom  2;\t()\n\n"


def _write_wav(path: Path, signal: Signal) -> None:
    pcm16 = np.clip(np.rint(signal * 32768.0), -32768, 32767).astype("<i2")
    with wave.open(str(path), "wb") as f:
        f.setnchannels(1)
        f.setsampwidth(2)
        f.setframerate(SAMPLE_RATE_HZ)
        f.writeframes(pcm16.tobytes())
