"""The synthetic corpus: the release's shape, the same bytes, and something to learn."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gmp_atl_dist.audio import decode_pcm16, pcm16_to_float
from gmp_atl_dist.config import CorpusConfig
from gmp_atl_dist.corpora.reading import CorpusListing, read_corpus
from gmp_atl_dist.corpora.synth import MARKER, write_synthetic_corpus
from gmp_atl_dist.corpora.voices import MANNERS, Speaker, speak
from gmp_atl_dist.errors import ConfigError, CorpusError
from gmp_atl_dist.store.filesystem import Store


def digests(root: Path) -> dict[str, str]:
    return {
        p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob("*"))
        if p.is_file()
    }


def read(root: Path) -> CorpusListing:
    return read_corpus(CorpusConfig.model_validate({"adapter": "synthetic"}), Store.open(str(root)))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("synthetic") / "corpus"
    assert write_synthetic_corpus(root) == 240
    return root


def test_it_reads_as_iemocap_does(corpus: Path) -> None:
    listing = read(corpus)
    assert Counter(u.emotion for u in listing.utterances) == dict.fromkeys(listing.emotions, 60)
    assert Counter(u.speaker for u in listing.utterances) == {
        f"Ses0{n}{g}": 24 for n in range(1, 6) for g in "FM"
    }
    said = Counter((u.utterance_id[:6], u.gender) for u in listing.utterances)
    assert len(said) == 20, "both genders speak in the dialogues of either prefix"
    assert min(said.values()) >= 8


def test_what_the_four_classes_leave_out_is_there(corpus: Path) -> None:
    votes = "".join(p.read_text() for p in corpus.rglob("EmoEvaluation/*.txt"))
    codes = Counter(line.split("\t")[2] for line in votes.splitlines() if line.startswith("["))
    assert codes == {"neu": 60, "ang": 60, "sad": 60, "hap": 40, "exc": 20, "fru": 10, "xxx": 10}
    assert len(list(corpus.rglob("*.wav"))) == 260


def test_audio_is_as_asked_for(corpus: Path) -> None:
    for u in read(corpus).utterances[::7]:
        pcm16 = decode_pcm16((corpus / u.path).read_bytes())
        assert 16000 <= len(pcm16) <= 2.2 * 16000
        peak = np.abs(pcm16.astype(int)).max()
        assert 300 < peak < 32767, u.utterance_id


def test_a_seed_fixes_every_byte_and_another_changes_every_recording(tmp_path: Path) -> None:
    a, b, c = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    for out, seed in ((a, 3), (b, 3), (c, 4)):
        assert (
            write_synthetic_corpus(
                out, seed=seed, utterances_per_speaker_and_emotion=1, seconds=(0.3, 0.4)
            )
            == 40
        )
    assert digests(a) == digests(b)
    recordings = {path for path in digests(a) if path.endswith(".wav")}
    assert len(recordings) == 60
    assert all(digests(a)[path] != digests(c)[path] for path in recordings)


def test_it_replaces_itself_and_nothing_else(tmp_path: Path) -> None:
    write_synthetic_corpus(tmp_path, utterances_per_speaker_and_emotion=2, seconds=(0.2, 0.3))
    write_synthetic_corpus(tmp_path, utterances_per_speaker_and_emotion=1, seconds=(0.2, 0.3))
    assert len(list(tmp_path.rglob("*.wav"))) == 60
    (tmp_path / MARKER).unlink()
    before = digests(tmp_path)
    with pytest.raises(CorpusError, match="not a synthetic corpus"):
        write_synthetic_corpus(tmp_path)
    assert digests(tmp_path) == before
    with pytest.raises(CorpusError, match="is a file"):
        write_synthetic_corpus(tmp_path / next(iter(before)))


@pytest.mark.parametrize(
    "bad",
    [
        {"seed": -1},
        {"utterances_per_speaker_and_emotion": 0},
        {"seconds": (2.0, 1.0)},
        {"seconds": (0.0, 1.0)},
    ],
)
def test_numbers_that_make_no_sense_are_refused(tmp_path: Path, bad: dict) -> None:
    with pytest.raises(ConfigError, match="a synthetic corpus needs"):
        write_synthetic_corpus(tmp_path / "out", **bad)
    assert not (tmp_path / "out").exists()


def pitch_hz(samples: np.ndarray) -> float:
    """Median over frames of the autocorrelation's peak, in 70 to 450 Hz."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, 800)[::400]
    loud = frames[np.square(frames).mean(axis=1) > np.square(samples).mean()]
    spectrum = np.abs(np.fft.rfft(loud * np.hanning(800), 2048)) ** 2
    correlation = np.fft.irfft(spectrum)[:, 16000 // 450 : 16000 // 70]
    return float(np.median(16000 / (correlation.argmax(axis=1) + 16000 // 450)))


def test_genders_differ_in_pitch_and_emotions_in_level(corpus: Path) -> None:
    pitches: dict[str, list[float]] = {"female": [], "male": []}
    levels: dict[str, list[float]] = {}
    for u in read(corpus).utterances[::2]:
        samples = pcm16_to_float(decode_pcm16((corpus / u.path).read_bytes())).astype(np.float64)
        pitches[u.gender].append(pitch_hz(samples))
        levels.setdefault(u.emotion, []).append(10 * np.log10(np.square(samples).mean()))
    assert 90 < np.median(pitches["male"]) < 160
    assert 180 < np.median(pitches["female"]) < 290
    means = {emotion: np.mean(level) for emotion, level in levels.items()}
    assert means["sad"] + 2 < means["neutral"] < means["angry"] - 2
    # Learnable, not trivial: the classes overlap.
    assert max(levels["neutral"]) > min(levels["angry"])


@pytest.mark.parametrize("more_db", [1.5, -4.0, 30.0])
def test_the_level_of_a_voice_is_in_decibels(more_db: float) -> None:
    speaker = Speaker(pitch_hz=115.0, formant_scale=1.0, level_db=0.0, tilt=0.0)
    louder = replace(speaker, level_db=more_db)
    powers = [
        np.square(speak(16_000, one, MANNERS["neu"], np.random.default_rng(1))).mean()
        for one in (speaker, louder)
    ]
    assert 10 * np.log10(powers[1] / powers[0]) == pytest.approx(more_db, abs=0.02)


def test_emotions_differ_in_the_cues_that_carry_them() -> None:
    """Directions after Scherer (2003), Vocal communication of emotion, table 3."""
    neutral, angry, sad = MANNERS["neu"], MANNERS["ang"], MANNERS["sad"]
    for high in (angry, MANNERS["hap"], MANNERS["exc"], MANNERS["fru"]):
        assert high.pitch > neutral.pitch > sad.pitch
        assert high.pitch_range > neutral.pitch_range > sad.pitch_range
        assert high.level_db > neutral.level_db > sad.level_db
        assert high.syllables_per_s > neutral.syllables_per_s > sad.syllables_per_s
        assert high.tilt < neutral.tilt < sad.tilt, "a lower pole is a brighter voice"
    assert angry.level_db == max(manner.level_db for manner in MANNERS.values())
    assert angry.breath < neutral.breath < sad.breath
    assert angry.pitch_slope < neutral.pitch_slope < MANNERS["exc"].pitch_slope
    assert max(manner.breath for manner in MANNERS.values()) == sad.breath < 0.2
    assert len({*MANNERS.values()}) == len(MANNERS)
