"""Decoding: exact where it can be, refused where it must be; and HuBERT's frame count."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile as sf
from hypothesis import given
from hypothesis import strategies as st

from gmp_atl_dist import audio
from gmp_atl_dist.audio import (
    FRAME_HOP_SAMPLES,
    MIN_SAMPLES,
    decode_pcm16,
    frame_levels_db,
    num_frames,
    pcm16_to_float,
)
from gmp_atl_dist.errors import CorpusError

DATA = Path(
    os.environ.get("GMP_ATL_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")
)


def tone(num_samples: int, rate_hz: int = 16000, hz: float = 440.0) -> npt.NDArray[np.float64]:
    return 0.4 * np.sin(2 * np.pi * hz * np.arange(num_samples) / rate_hz)


def noise16(num_samples: int, channels: int = 1) -> npt.NDArray[np.int16]:
    rng = np.random.default_rng(0)
    return rng.integers(-32768, 32768, (num_samples, channels), dtype=np.int16)


def encoded(samples: np.ndarray, rate_hz: int, fmt: str, subtype: str | None = None) -> bytes:
    out = io.BytesIO()
    sf.write(out, samples, rate_hz, format=fmt, subtype=subtype)
    return out.getvalue()


@pytest.mark.parametrize(
    ("samples", "frames"),
    [(0, 0), (399, 0), (400, 1), (719, 1), (720, 2), (16000, 49), (190_800, 596)],
)
def test_num_frames_is_huberts(samples: int, frames: int) -> None:
    assert num_frames(samples) == frames


@given(st.integers(-10, 10**8))
def test_frames_fit_and_no_further_one_would(samples: int) -> None:
    n = num_frames(samples)
    used = MIN_SAMPLES + (n - 1) * FRAME_HOP_SAMPLES if n else 0
    assert n >= 0
    assert used <= max(samples, 0)
    assert samples < MIN_SAMPLES + n * FRAME_HOP_SAMPLES


@pytest.mark.parametrize("fmt", ["WAV", "FLAC"])
def test_16_khz_mono_16_bit_comes_through_bit_for_bit(fmt: str) -> None:
    samples = noise16(5000)
    got = decode_pcm16(encoded(samples, 16000, fmt, "PCM_16"))
    assert got.dtype == np.int16
    assert got.shape == (5000,)
    np.testing.assert_array_equal(got, samples[:, 0])


def test_float_file_rounds_to_the_same_samples_and_clips() -> None:
    samples = noise16(5000)[:, 0]
    data = encoded(samples / 32768.0, 16000, "WAV", "DOUBLE")
    np.testing.assert_array_equal(decode_pcm16(data), samples)
    loud = encoded(np.array([1.5, -1.5, 0.0]), 16000, "WAV", "FLOAT")
    np.testing.assert_array_equal(decode_pcm16(loud), [32767, -32768, 0])


def test_channels_are_averaged() -> None:
    stereo = noise16(3000, channels=2)
    got = decode_pcm16(encoded(stereo, 16000, "WAV", "PCM_16"))
    want = np.rint(stereo.astype(np.float64).mean(axis=1))
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("rate_hz", [8000, 22050, 44100, 48000])
def test_any_rate_is_resampled(rate_hz: int) -> None:
    data = encoded(tone(rate_hz, rate_hz), rate_hz, "WAV", "FLOAT")
    got = decode_pcm16(data)
    assert abs(len(got) - 16000) <= 1
    inner = slice(2000, 14000)
    want = tone(16000) * 32768
    assert np.abs(got[: len(want)] - want[: len(got)])[inner].max() < 20
    np.testing.assert_array_equal(got, decode_pcm16(data))


def test_what_16_khz_cannot_hold_does_not_fold_back() -> None:
    got = decode_pcm16(encoded(tone(48000, 48000, hz=10_000.0), 48000, "WAV", "FLOAT"))
    assert np.abs(got[1000:-1000]).max() <= 1


@pytest.mark.parametrize(("fmt", "subtype"), [("OGG", "VORBIS"), ("MP3", None)])
def test_lossy_formats_decode_to_about_the_same(fmt: str, subtype: str | None) -> None:
    samples = tone(16000)
    got = decode_pcm16(encoded(samples, 16000, fmt, subtype))
    assert abs(len(got) - 16000) < 2500
    n = min(len(got), 16000)
    assert np.corrcoef(got[:n], samples[:n])[0, 1] > 0.95


@pytest.mark.parametrize("fmt", ["FLAC", "OGG"])
def test_a_segment_is_that_part_of_the_whole(fmt: str) -> None:
    data = encoded(tone(16000), 16000, fmt)
    whole = decode_pcm16(data)
    got = decode_pcm16(data, start_s=0.25, end_s=0.5)
    np.testing.assert_array_equal(got, whole[4000:8000])
    np.testing.assert_array_equal(decode_pcm16(data, start_s=0.75), whole[12000:])
    np.testing.assert_array_equal(decode_pcm16(data, end_s=0.125), whole[:2000])


def test_a_segment_is_cut_before_resampling() -> None:
    samples = noise16(8000)
    part = encoded(samples[2000:4000], 8000, "WAV", "PCM_16")
    whole = encoded(samples, 8000, "WAV", "PCM_16")
    got = decode_pcm16(whole, start_s=0.25, end_s=0.5)
    np.testing.assert_array_equal(got, decode_pcm16(part))


def test_an_end_rounded_up_to_hundredths_is_the_recordings_end() -> None:
    data = encoded(noise16(16001), 16000, "WAV", "PCM_16")
    assert len(decode_pcm16(data, end_s=1.01)) == 16001


@pytest.mark.parametrize(
    ("start_s", "end_s"),
    [
        (None, 1.02),
        (-0.1, 0.5),
        (0.5, 0.5),
        (0.6, 0.5),
        (1.0, None),
        (0.5, 0.500001),
        (float("nan"), 0.5),
        (0.0, float("nan")),
        (0.0, float("inf")),
    ],
)
def test_a_segment_outside_is_refused(start_s: float | None, end_s: float | None) -> None:
    data = encoded(noise16(16000), 16000, "WAV", "PCM_16")
    with pytest.raises(CorpusError, match="not inside the recording"):
        decode_pcm16(data, start_s=start_s, end_s=end_s)


def test_damaged_bytes_are_refused() -> None:
    flac = encoded(noise16(16000), 16000, "FLAC", "PCM_16")
    for bad in (b"", b"not audio at all" * 50, flac[: len(flac) // 2]):
        with pytest.raises(CorpusError, match=r"cannot be decoded .*; replace"):
            decode_pcm16(bad)


def test_files_cut_short_are_refused() -> None:
    wav = encoded(noise16(16000), 16000, "WAV", "PCM_16")
    with pytest.raises(CorpusError, match="cut short: its header says 32036 bytes"):
        decode_pcm16(wav[:20000])
    mp3 = encoded(tone(32000), 16000, "MP3")
    with pytest.raises(CorpusError, match="cut short"):
        decode_pcm16(mp3[: len(mp3) // 2])


def test_a_wav_from_a_pipe_whose_header_has_no_size_is_read() -> None:
    samples = noise16(1000)
    wav = bytearray(encoded(samples, 16000, "WAV", "PCM_16"))
    wav[4:8] = wav[40:44] = b"\xff\xff\xff\xff"
    np.testing.assert_array_equal(decode_pcm16(bytes(wav)), samples[:, 0])


def test_a_flac_of_unknown_length_is_refused_and_not_made_room_for() -> None:
    flac = bytearray(encoded(noise16(1000), 16000, "FLAC", "PCM_16"))
    # The low 36 bits of bytes 21 to 25 are the number of samples; 0 says unknown.
    flac[21] &= 0xF0
    flac[22:26] = bytes(4)
    with pytest.raises(CorpusError, match="does not say how long it is"):
        decode_pcm16(bytes(flac))


def test_a_header_that_claims_hours_takes_no_memory_for_them() -> None:
    flac = bytearray(encoded(noise16(1000), 16000, "FLAC", "PCM_16"))
    flac[21] |= 0x0F
    with pytest.raises(CorpusError, match=r"cut short|cannot be decoded|lasts 4026532 s"):
        decode_pcm16(bytes(flac))


def test_long_recordings_are_read_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = noise16(5000)
    monkeypatch.setattr(audio, "_BLOCK_BYTES", 1_536)
    for fmt in ("WAV", "FLAC"):
        data = encoded(samples, 16000, fmt, "PCM_16")
        np.testing.assert_array_equal(decode_pcm16(data), samples[:, 0])
        np.testing.assert_array_equal(decode_pcm16(data, start_s=0.125), samples[2000:, 0])


def test_empty_and_non_finite_recordings_are_refused() -> None:
    with pytest.raises(CorpusError, match="holds no sample"):
        decode_pcm16(encoded(np.zeros(0), 16000, "WAV", "PCM_16"))
    for value in (np.nan, np.inf):
        samples = np.zeros(1000)
        samples[500] = value
        with pytest.raises(CorpusError, match="not finite"):
            decode_pcm16(encoded(samples, 16000, "WAV", "FLOAT"))


def test_a_damaged_rate_is_refused_before_it_fills_the_memory() -> None:
    with pytest.raises(CorpusError, match="sample rate is 1 Hz"):
        decode_pcm16(encoded(noise16(100), 1, "WAV", "PCM_16"))


def test_float_samples_keep_every_value() -> None:
    every = np.arange(-32768, 32768).astype(np.int16)
    got = pcm16_to_float(every)
    assert got.dtype == np.float32
    assert got[0] == -1.0
    assert got[-1] < 1.0
    np.testing.assert_array_equal((got.astype(np.float64) * 32768).astype(np.int16), every)


@pytest.mark.parametrize("corpus", ["emodb2s", "nemo"])
def test_real_recordings_decode_to_their_published_digest(corpus: str) -> None:
    table = DATA / corpus / "manifest.csv"
    if not table.is_file():
        pytest.skip(f"{table} is not there")
    with table.open(encoding="utf-8", newline="") as f:
        rows = list(csv.DictReader(f))[::60]
    for row in rows:
        got = decode_pcm16((DATA / corpus / row["path"]).read_bytes())
        assert len(got) == int(row["n_samples"])
        assert hashlib.sha256(got.tobytes()).hexdigest() == row["pcm_sha256"], row["utt_id"]


def test_levels_are_below_the_loudest_frame() -> None:
    t = np.arange(16_000)
    pcm16 = (10_000 * np.sin(t / 5)).astype(np.int16)
    pcm16[8_000:] //= 100
    pcm16[12_000:] = 0
    levels = frame_levels_db(pcm16)
    assert len(levels) == num_frames(len(pcm16))
    assert levels.max() == 0
    first, quiet, silent = levels[:24], levels[26:36], levels[38:]
    assert (first > -1).all()
    np.testing.assert_allclose(quiet, -40, atol=1.5)
    assert np.isneginf(silent).all()
    # The power of the 400 samples that the frame sees.
    power = [np.square(pcm16[i * 320 : i * 320 + 400].astype(float)).sum() for i in range(20)]
    np.testing.assert_allclose(levels[:20], 10 * np.log10(power / max(power)), atol=0.01)


def test_levels_of_silence_and_of_nothing() -> None:
    assert np.isneginf(frame_levels_db(np.zeros(2_000, np.int16))).all()
    assert frame_levels_db(np.ones(399, np.int16)).shape == (0,)
