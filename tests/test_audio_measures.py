"""Measures of audio against signals whose level, band, offset and clipping are known."""

from __future__ import annotations

import numpy as np
import pytest
import soxr

from gmp_atl_dist.audio import Header
from gmp_atl_dist.audio_measures import (
    AudioTable,
    bandwidth_hz,
    clipped_share,
    level_dbfs,
    measures_of,
    zero_share,
)
from gmp_atl_dist.samples import to_pcm16

RATE = 16_000
HEADER = Header(RATE, 1, RATE, "WAV PCM_16")


def noise(seconds: float = 2.0, rate_hz: int = RATE, level: float = 0.1) -> np.ndarray:
    return level * np.random.default_rng(0).normal(size=round(seconds * rate_hz))


def speechlike(rate_hz: int = RATE) -> np.ndarray:
    """Noise that falls by 40 dB towards high frequencies, in syllables with pauses."""
    white = noise(3.0, rate_hz)
    tilted = np.convolve(white, 0.9 ** np.arange(60), "same")
    t = np.arange(len(white)) / rate_hz
    return 0.3 * tilted * (np.sin(2 * np.pi * 3 * t) > -0.5) + 1e-5 * white


@pytest.mark.parametrize("rate_hz", [8_000, 11_025])
def test_audio_of_a_low_rate_in_a_file_of_16_khz_has_a_narrow_band(rate_hz: int) -> None:
    narrow = soxr.resample(speechlike(rate_hz), rate_hz, RATE, quality="VHQ")
    assert 0.9 * rate_hz / 2 < bandwidth_hz(to_pcm16(narrow)) < 1.05 * rate_hz / 2
    rounded_before = to_pcm16(speechlike(rate_hz)) / 32_768
    again = soxr.resample(rounded_before, rate_hz, RATE, quality="VHQ")
    assert bandwidth_hz(to_pcm16(again)) < 1.05 * rate_hz / 2


@pytest.mark.parametrize("level", [1.0, 0.1, 0.01])
def test_audio_of_16_khz_has_its_whole_band(level: float) -> None:
    assert bandwidth_hz(to_pcm16(level * speechlike())) > 7_500


@pytest.mark.parametrize("seconds", [0.1, 2.0, 90.0])
def test_a_tone_ends_where_it_is_at_any_length(seconds: float) -> None:
    t = np.arange(round(seconds * RATE)) / RATE
    assert bandwidth_hz(to_pcm16(0.3 * np.sin(2 * np.pi * 1_000 * t))) == pytest.approx(
        1_000, abs=400
    )


def test_hum_below_speech_hides_nothing() -> None:
    t = np.arange(2 * RATE) / RATE
    hum = 0.6 * np.sin(2 * np.pi * 50 * t)
    assert bandwidth_hz(to_pcm16(hum + noise(2.0, level=1e-3))) > 7_500


def test_level_clipping_zeros_and_offset() -> None:
    square = np.where(np.arange(RATE) % 100 < 50, 16_384, -16_384).astype(np.int16)
    assert level_dbfs(square) == pytest.approx(-6.0206, abs=1e-4)
    assert np.isneginf(level_dbfs(np.zeros(9, np.int16)))
    full = square.copy()
    full[:160] = 32_767
    full[160:320] = -32_768
    assert clipped_share(full) == 0.02
    assert clipped_share(square) == 0
    half = square.copy()
    half[: RATE // 4] = 0
    assert zero_share(half) == 0.25
    found = measures_of((square // 4 + 3_277).astype(np.int16), HEADER)
    assert found["dc_share"] == pytest.approx(0.1, abs=1e-4)
    assert found["seconds"] == 1.0


def test_a_long_recording_has_an_exact_level() -> None:
    """More squares than fit into the exact sums of one block."""
    loud = np.full(5_000_000, 32_767, np.int16)
    assert level_dbfs(loud) == pytest.approx(20 * np.log10(32_767 / 32_768), abs=1e-12)


def test_a_table_survives_json_and_is_in_the_order_of_ids() -> None:
    rows = [measures_of(to_pcm16(noise(0.5, level=0.01 * (i + 1))), HEADER) for i in range(3)]
    table = AudioTable.concatenated(
        [AudioTable.of(["c", "a"], rows[:2]), AudioTable.of(["b"], rows[2:])]
    )
    assert table.ids == ("a", "b", "c")
    again = AudioTable.from_json(table.to_json())
    assert again.ids == table.ids
    assert again.columns.keys() == table.columns.keys()
    assert all(np.array_equal(again.columns[n], table.columns[n]) for n in table.columns)
    assert again.only({"b"}).columns["level_dbfs"] == rows[2]["level_dbfs"]
