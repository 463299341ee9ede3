"""Decoding in blocks: the samples of a whole decode, in memory that floats of the whole would not fit."""

from __future__ import annotations

import io
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import soxr

from gmp_atl_dist import audio
from gmp_atl_dist import mono as mono_samples
from gmp_atl_dist.audio import decode_pcm16
from gmp_atl_dist.errors import CorpusError
from gmp_atl_dist.records import Channel

SUBTYPES = {"WAV": ("PCM_16", "PCM_24", "FLOAT", "MS_ADPCM", "ULAW"), "FLAC": ("PCM_16", "PCM_24")}
SUBTYPES |= {"OGG": ("VORBIS", "OPUS"), "MP3": ("MPEG_LAYER_III",), "AIFF": ("PCM_16",)}
FORMATS = [(fmt, subtype) for fmt, subtypes in SUBTYPES.items() for subtype in subtypes]


def encoded(fmt: str, subtype: str, rate_hz: int, channels: int) -> bytes:
    rng = np.random.default_rng(rate_hz + channels)
    samples = 0.2 * rng.normal(size=(rate_hz // 2 + 123, channels)) * np.linspace(0.3, 1, channels)
    out = io.BytesIO()
    sf.write(out, samples, rate_hz, format=fmt, subtype=subtype)
    return out.getvalue()


def at_once(data: bytes, channel: Channel) -> np.ndarray:
    """Read whole, made mono whole, resampled by one call."""

    class Forward(sf.SoundFile):
        def seekable(self) -> bool:
            return False

    with Forward(io.BytesIO(data)) as recording:
        samples, rate_hz = recording.read(recording.frames, always_2d=True), recording.samplerate
    loudest = int(np.mean(samples**2, axis=0).argmax())
    mono = samples.mean(axis=1)
    if channel != "mean":
        mono = np.ascontiguousarray(samples[:, {"first": 0, "loudest": loudest}[channel]])
    if rate_hz != 16_000:
        mono = soxr.resample(mono, rate_hz, 16_000, quality="VHQ")
    return np.clip(np.rint(mono * 32_768), -32_768, 32_767).astype(np.int16)


@pytest.mark.parametrize(("fmt", "subtype"), FORMATS)
@pytest.mark.parametrize("rate_hz", [16_000, 24_000])
def test_blocks_of_any_size_give_the_samples_of_a_whole_decode(
    monkeypatch: pytest.MonkeyPatch, fmt: str, subtype: str, rate_hz: int
) -> None:
    mono = encoded(fmt, subtype, rate_hz, 1)
    stereo = encoded(fmt, subtype, rate_hz, 2)
    for block_bytes, at_once_samples in ((audio._BLOCK_BYTES, mono_samples._AT_ONCE), (8_008, 97)):
        monkeypatch.setattr(audio, "_BLOCK_BYTES", block_bytes)
        monkeypatch.setattr(mono_samples, "_AT_ONCE", at_once_samples)
        np.testing.assert_array_equal(decode_pcm16(mono), at_once(mono, "mean"))
        for channel in ("mean", "first", "loudest"):
            got = decode_pcm16(stereo, channel=channel)
            np.testing.assert_array_equal(got, at_once(stereo, channel))


def test_a_recording_that_cannot_be_decoded_leaves_nothing_to_the_next_one() -> None:
    whole = encoded("FLAC", "PCM_16", 24_000, 1)
    expected = at_once(whole, "mean")
    not_finite = io.BytesIO()
    samples = np.append(0.2 * np.random.default_rng(0).normal(size=30_000), np.nan)
    sf.write(not_finite, samples, 24_000, format="WAV", subtype="FLOAT")
    for bad in (whole[: len(whole) // 2], not_finite.getvalue()):
        with pytest.raises(CorpusError):
            decode_pcm16(bad)
        np.testing.assert_array_equal(decode_pcm16(whole), expected)


def test_threads_resample_different_recordings_at_the_same_time() -> None:
    recordings = [
        encoded("WAV", "PCM_16", rate, 1) for rate in (8_000, 22_050, 24_000, 44_100, 48_000)
    ]
    expected = [at_once(data, "mean") for data in recordings]
    with ThreadPoolExecutor(4) as pool:
        decoded = list(pool.map(decode_pcm16, recordings * 4))
    for got, right in zip(decoded, expected * 4, strict=True):
        np.testing.assert_array_equal(got, right)


@pytest.mark.slow
def test_three_hours_take_the_memory_of_their_bytes_and_samples(tmp_path: Path) -> None:
    """As floats the recording would take 2.1 GB; a process of its own has a peak of its own."""
    rng, hours = np.random.default_rng(0), 3
    minute = (0.1 * rng.normal(size=24_000 * 60)).astype(np.float32)
    path = tmp_path / "long.flac"
    with sf.SoundFile(path, "w", 24_000, 1, subtype="PCM_16") as f:
        for _ in range(60 * hours):
            f.write(minute)
    program = """
        import resource, sys
        from pathlib import Path
        from gmp_atl_dist.audio import decode_pcm16
        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        data = Path(sys.argv[1]).read_bytes()
        before = peak()
        pcm16 = decode_pcm16(data)
        print(len(pcm16), (peak() - before) / pcm16.nbytes)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    samples, peak = done.stdout.split()
    assert int(samples) == hours * 3600 * 16_000
    # The pieces, and the array that they are joined to.
    assert float(peak) < 2.2, f"{float(peak):.1f} times the 16-bit samples"
