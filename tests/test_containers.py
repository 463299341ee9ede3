"""Headers that promise more than is there, and headers with placeholders: each kind of container."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from gmp_atl_dist.audio import decode_pcm16, read_header
from gmp_atl_dist.errors import CorpusError

CASES = (
    Path(
        os.environ.get("GMP_ATL_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")
    ).parent
    / "cases"
)
RATE = 16_000
SOUND = np.random.default_rng(0).integers(-9_000, 9_000, RATE, dtype=np.int16)


def wav(data_size: int, riff_size: int, magic: bytes = b"RIFF", behind: bytes = b"") -> bytes:
    """A WAV by hand. RIFX has every number and sample the other way round."""
    order = ">" if magic == b"RIFX" else "<"
    form = struct.pack(order + "HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16)
    head = magic + struct.pack(order + "I", riff_size) + b"WAVE"
    head += b"fmt " + struct.pack(order + "I", 16) + form
    head += b"data" + struct.pack(order + "I", data_size)
    return head + SOUND.astype(order + "i2").tobytes() + behind


def rf64(data_size: int) -> bytes:
    form = struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16)
    riff_size = data_size + 72 if data_size else 0
    sizes = b"ds64" + struct.pack("<IQQQI", 28, riff_size, data_size, data_size // 2, 0)
    head = b"RF64" + b"\xff" * 4 + b"WAVE" + sizes + b"fmt " + struct.pack("<I", 16) + form
    return head + b"data" + b"\xff" * 4 + SOUND.astype("<i2").tobytes()


def w64() -> bytes:
    tail = b"\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
    form = struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16)
    chunks = b"fmt " + tail + struct.pack("<Q", 24 + 16) + form
    chunks += b"data" + tail + struct.pack("<Q", 24 + 2 * RATE) + SOUND.astype("<i2").tobytes()
    riff = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
    return riff + struct.pack("<Q", 40 + len(chunks)) + b"wave" + tail + chunks


def aiff() -> bytes:
    rate = b"\x40\x0c\xfa\x00" + bytes(6)  # 16,000 as an 80-bit float
    common = b"COMM" + struct.pack(">IhIh", 18, 1, RATE, 16) + rate
    sound = b"SSND" + struct.pack(">III", 8 + 2 * RATE, 0, 0) + SOUND.astype(">i2").tobytes()
    return b"FORM" + struct.pack(">I", 4 + len(common + sound)) + b"AIFF" + common + sound


def au(size: int = 2 * RATE) -> bytes:
    return b".snd" + struct.pack(">IIIII", 24, size, 3, RATE, 1) + SOUND.astype(">i2").tobytes()


def sphere() -> bytes:
    lines = [
        *("NIST_1A", "   1024", f"sample_count -i {RATE}", "sample_n_bytes -i 2"),
        *("channel_count -i 1", "sample_byte_format -s2 01", f"sample_rate -i {RATE}"),
        *("sample_coding -s3 pcm", "end_head", ""),
    ]
    return "\n".join(lines).encode().ljust(1024) + SOUND.astype("<i2").tobytes()


WHOLE: dict[str, Callable[[], bytes]] = {
    "RIFF": lambda: wav(2 * RATE, 36 + 2 * RATE),
    "RIFX": lambda: wav(2 * RATE, 36 + 2 * RATE, b"RIFX"),
    "RF64": lambda: rf64(2 * RATE),
    "W64": w64,
    "AIFF": aiff,
    "AU": au,
    "SPHERE": sphere,
}


@pytest.mark.parametrize("kind", WHOLE)
def test_a_file_cut_short_is_refused_in_every_container(kind: str) -> None:
    whole = WHOLE[kind]()
    np.testing.assert_array_equal(decode_pcm16(whole), SOUND)
    for there in (len(whole) // 2, len(whole) - 400):
        with pytest.raises(CorpusError, match=r"cut short: its header says \d+ .*copy the file"):
            decode_pcm16(whole[:there])
    with pytest.raises(CorpusError, match="cut short"):
        read_header(whole[: len(whole) // 2])


@pytest.mark.parametrize("fmt", ["SVX", "CAF", "WAVEX"])
def test_other_containers_that_are_cut_short_are_refused(fmt: str) -> None:
    out = io.BytesIO()
    sf.write(out, SOUND, RATE, format=fmt, subtype="PCM_16")
    whole = out.getvalue()
    np.testing.assert_array_equal(decode_pcm16(whole), SOUND)
    with pytest.raises(CorpusError, match=r"cut short|cannot be decoded"):
        decode_pcm16(whole[: len(whole) // 2])


@pytest.mark.parametrize("subtype", ["ALAW", "ULAW", "IMA_ADPCM", "MS_ADPCM", "PCM_24", "PCM_U8"])
def test_other_codings_of_wav_are_read(subtype: str) -> None:
    out = io.BytesIO()
    tone = 0.3 * np.sin(np.arange(RATE) / 9)
    sf.write(out, tone, RATE, format="WAV", subtype=subtype)
    got = decode_pcm16(out.getvalue())[:RATE]
    assert np.corrcoef(got, tone[: len(got)])[0, 1] > 0.99


@pytest.mark.parametrize(("coding", "share"), [("VORBIS", 0.4), ("OPUS", 0.9)])
def test_an_ogg_whose_last_page_is_not_complete_is_refused(coding: str, share: float) -> None:
    out = io.BytesIO()
    sf.write(out, np.tile(SOUND, 5), RATE, format="OGG", subtype=coding)
    whole = out.getvalue()
    assert len(decode_pcm16(whole)) == 5 * RATE
    for there in (int(share * len(whole)), whole.rfind(b"OggS") + 20, len(whole) - 1):
        with pytest.raises(CorpusError, match="cut short: its last Ogg page"):
            decode_pcm16(whole[:there])


def test_a_data_chunk_that_is_longer_than_its_file_is_refused() -> None:
    with pytest.raises(CorpusError, match="cut short: its header says 64000 bytes"):
        decode_pcm16(wav(4 * RATE, 36 + 2 * RATE))


@pytest.mark.parametrize(
    "data",
    [
        wav(0, 36),
        wav(0, 0),
        wav(0, 0xFFFFFFFF),
        wav(0, 36, b"RIFX"),
        wav(2_000_000_000, 2_000_000_036),
        wav(0x7FFFFFFF - 36, 0x7FFFFFFF),
        wav(0xFFFFFFFF, 0xFFFFFFFF),
        rf64(0),
        au(0xFFFFFFFF),
    ],
)
def test_a_header_with_placeholder_sizes_is_read_to_the_end_of_the_file(data: bytes) -> None:
    np.testing.assert_array_equal(decode_pcm16(data), SOUND)
    assert read_header(data).frames == RATE
    np.testing.assert_array_equal(decode_pcm16(data, start_s=0.5), SOUND[RATE // 2 :])


def test_what_follows_an_empty_data_chunk_is_no_sound() -> None:
    """A chunk behind it, which the size of the file counts."""
    other = b"LIST" + struct.pack("<I", 2 * RATE)
    empty = wav(0, 36 + len(other) + 2 * RATE)
    at = empty.index(b"data") + 8
    with pytest.raises(CorpusError, match="holds no sample"):
        decode_pcm16(empty[:at] + other + empty[at:])


def test_gsm_is_decoded_without_the_padding_behind_its_last_block() -> None:
    out = io.BytesIO()
    t = np.arange(8_000) / 8_000
    sf.write(out, 0.3 * np.sin(2 * np.pi * 300 * t), 8_000, format="WAV", subtype="GSM610")
    data = out.getvalue()
    assert len(data) % 2 == 0, "25 blocks of 65 bytes, and the byte that makes it even"
    assert read_header(data).frames == 8_000
    got = decode_pcm16(data)
    assert len(got) == RATE
    want = 0.3 * 32768 * np.sin(2 * np.pi * 300 * np.arange(RATE) / RATE)
    # The codec delays and is lossy.
    spectrum = np.abs(np.fft.rfft(got))
    assert spectrum.argmax() == 300
    assert np.sqrt(np.mean(got.astype(float) ** 2)) == pytest.approx(
        np.sqrt(np.mean(want**2)), rel=0.1
    )
    assert len(decode_pcm16(data, start_s=0.5)) == RATE // 2


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("gsm610-wav/corpus/gsm.wav", 16_000),
        ("wav-placeholder-sizes/corpus/zero.wav", 16_000),
        ("wav-placeholder-sizes/corpus/two_thousand_million.wav", 16_000),
        ("sphere-cut-short/corpus/sphere_cut.wav", "cut short"),
        ("digital-silence/corpus/silent.wav", "holds only digital silence"),
        ("digital-silence/corpus/inverted.wav", "channels cancel"),
        ("digital-silence/corpus/int16_values_in_32bit.wav", "holds only digital silence"),
        ("float-wav-not-scaled/corpus/scipy_float.wav", r"go up to 9830\.4"),
        ("float-wav-not-scaled/corpus/scipy_double.wav", r"go up to 9830\.4"),
    ],
)
def test_the_handed_cases_are_right(name: str, right: int | str) -> None:
    path = CASES / name
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    if isinstance(right, int):
        assert len(decode_pcm16(path.read_bytes())) == right
    else:
        with pytest.raises(CorpusError, match=right):
            decode_pcm16(path.read_bytes())
