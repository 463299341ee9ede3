"""What holds no signal, and floats that are no floats of full scale 1: refused, with the remedy."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile as sf

from gmp_atl_dist.audio import ChannelsCancelError, decode_pcm16
from gmp_atl_dist.errors import CorpusError
from gmp_atl_dist.samples import is_silent

RATE = 16_000
SPEECH = 0.3 * np.sin(np.arange(RATE) / 9.0)
NOTHING = np.zeros(RATE)


def encoded(
    samples: np.ndarray, subtype: str = "PCM_16", rate_hz: int = RATE, fmt: str = "WAV"
) -> bytes:
    out = io.BytesIO()
    sf.write(out, samples, rate_hz, format=fmt, subtype=subtype)
    return out.getvalue()


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100])
@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT", "ALAW", "ULAW", "PCM_U8"])
def test_digital_silence_is_refused(rate_hz: int, subtype: str) -> None:
    with pytest.raises(CorpusError, match="holds only digital silence"):
        decode_pcm16(encoded(NOTHING, subtype, rate_hz))


def test_a_constant_is_silence_too() -> None:
    for rate_hz in (16_000, 48_000):
        with pytest.raises(CorpusError, match="holds only digital silence"):
            decode_pcm16(encoded(NOTHING + 0.25, rate_hz=rate_hz))


def test_a_silent_segment_is_refused_and_the_rest_of_the_recording_is_not() -> None:
    data = encoded(np.concatenate([SPEECH, NOTHING]))
    assert len(decode_pcm16(data)) == 2 * RATE
    assert len(decode_pcm16(data, end_s=1.0)) == RATE
    with pytest.raises(CorpusError, match="holds only digital silence"):
        decode_pcm16(data, start_s=1.0)


def test_one_bit_of_noise_is_a_signal() -> None:
    noise = np.random.default_rng(0).integers(0, 2, RATE, dtype=np.int16)
    assert len(decode_pcm16(encoded(noise))) == RATE


def test_channels_that_cancel_are_named_as_such() -> None:
    with pytest.raises(ChannelsCancelError, match=r"2 channels cancel .* silent beside"):
        decode_pcm16(encoded(np.stack([SPEECH, -SPEECH], axis=1), "FLOAT"))


def test_a_silent_first_channel_beside_a_loud_one_names_the_key() -> None:
    data = encoded(np.stack([NOTHING, SPEECH], axis=1))
    with pytest.raises(CorpusError, match=r"another one does not; set corpus\.channel = 'loudest'"):
        decode_pcm16(data, channel="first")
    assert np.abs(decode_pcm16(data, channel="loudest")).max() > 9_000
    assert np.abs(decode_pcm16(data)).max() > 4_000


def test_16_bit_values_in_32_bits_are_named() -> None:
    values = (9_000 * SPEECH).astype(np.int32)
    with pytest.raises(CorpusError, match=r"at 16 bits: .* -1\d\d dB .*write them again"):
        decode_pcm16(encoded(values, "PCM_32"))


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
@pytest.mark.parametrize("full_scale", [32_768.0, 128.0, 2.0**31])
def test_floats_of_another_full_scale_are_refused(subtype: str, full_scale: float) -> None:
    with pytest.raises(CorpusError, match=r"go up to .* full scale is 1.*divide them by 32768"):
        decode_pcm16(encoded(SPEECH * full_scale, subtype))


def test_a_quiet_segment_of_integers_saved_as_floats_is_refused() -> None:
    """A pause of such a file has a peak of a few units only."""
    pause = np.random.default_rng(1).integers(-3, 4, RATE).astype(float)
    with pytest.raises(CorpusError, match="go up to 3 and full scale is 1"):
        decode_pcm16(encoded(pause, "FLOAT"))


def test_floats_that_are_only_too_loud_are_clipped() -> None:
    got = decode_pcm16(encoded(10 * SPEECH, "FLOAT"))
    assert got.max() == 32_767
    assert got.min() == -32_768


def test_silence_of_arrays() -> None:
    assert is_silent(np.zeros(0, np.int16))
    assert is_silent(np.full(9, -8, np.int16))
    assert is_silent(np.full(9, 1e-6, np.float32))
    assert not is_silent(np.array([0, 0, 1], np.int16))
    assert not is_silent(np.array([0, 0, 1e-4], np.float32))
