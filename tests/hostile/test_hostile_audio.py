"""Recordings that are damaged, lie about themselves, or are made to fill the memory."""

from __future__ import annotations

import io
import queue
import resource
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import soundfile as sf
from support.hostile import RATE_HZ, Case, Place, check, wav_of
from support.one_process import context_of, ingest

from gmp_atl_dist.audio import decode_pcm16
from gmp_atl_dist.audio_bounds import MOST_SECONDS, MOST_VALUES_PER_S
from gmp_atl_dist.errors import CorpusError
from gmp_atl_dist.prediction.decoding_room import DecodingRoom
from gmp_atl_dist.prediction.reading import read_recording
from gmp_atl_dist.prediction.sources import Source

pytest_plugins = ["support.one_process"]

HEADER = "id,path,speaker,gender,emotion,start_s,end_s"
RUN = """[corpus]
adapter = "table"
max_bad_fraction = 0
[folds]
by = "speaker"
[model]
source = "random:tiny"
"""


@cache
def tone(rate_hz: int, channels: int, seconds: float, fmt: str, subtype: str) -> bytes:
    """A block of sound that repeats, which compresses to almost nothing in FLAC and Vorbis."""
    out = io.BytesIO()
    block = np.zeros((1 << 14, channels), np.int16)
    block[:2] = 1_000
    with sf.SoundFile(out, "w", rate_hz, channels, format=fmt, subtype=subtype) as f:
        for _ in range(max(1, round(rate_hz * seconds / len(block)))):
            f.write(block)
    return out.getvalue()


def with_bytes(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def of_bytes(data: bytes, suffix: str = "wav", times: str = ",") -> Callable[[Place], list[str]]:
    """A corpus of one whole recording of each of two speakers, and of this one."""

    def make(place: Place) -> list[str]:
        rng = np.random.default_rng(1)
        rows = [HEADER]
        for number in range(4):
            samples = 0.1 * rng.normal(size=RATE_HZ // 5)
            place.write(f"corpus/u{number}.wav", wav_of(samples))
            emotion = ("happy", "sad")[number % 2]
            rows.append(f"u{number},u{number}.wav,speaker{number // 2},female,{emotion},,")
        place.write(f"corpus/bad.{suffix}", data)
        rows.append(f"bad,bad.{suffix},speaker1,female,sad,{times}")
        place.write("corpus/manifest.csv", "\n".join(rows) + "\n")
        config = place.write("run.toml", RUN)
        corpus, root = (f'runtime.{key}="{place.folder / key}"' for key in ("corpus", "root"))
        return [
            *("corpora", "check", "--audio", "--config", str(config)),
            *("--set", corpus, "--set", root),
        ]

    return make


def missing(place: Place) -> list[str]:
    words = of_bytes(b"")(place)
    (place.folder / "corpus/bad.wav").unlink()
    return words


def outside(place: Place) -> list[str]:
    words = of_bytes(b"")(place)
    place.write("secret.wav", wav_of())
    table = place.folder / "corpus/manifest.csv"
    table.write_text(table.read_text().replace("bad.wav", "../secret.wav"))
    return words


WHOLE = wav_of()
SPHERE = (
    b"NIST_1A\n   1024\nsample_count -i 8000\nchannel_count -i 1\nsample_n_bytes -i 2\n"
    b"sample_rate -i 16000\nsample_byte_format -s2 01\nsample_coding -s3 pcm\nend_head\n"
).ljust(1024)


def sphere_of(count: bytes) -> bytes:
    """A SPHERE file that says it has ``count`` samples."""
    head = SPHERE.rstrip().replace(b"8000", count).replace(b"1024", b"8192")
    return head.ljust(8192) + bytes(99)


OGG = tone(RATE_HZ, 1, 1.0, "OGG", "VORBIS")
FLAC = wav_of(fmt="FLAC")
BAD = "bad (bad.wav)"
REPLACE = "replace the file by a whole wav, flac, ogg or mp3"

CASES = [
    Case("no-bytes", of_bytes(b""), "'bad.wav' is empty (0 bytes)", "copy it again", 3),
    Case("text", of_bytes(b"This is no recording at all.\n" * 9), BAD, REPLACE, 3),
    Case("zeros", of_bytes(bytes(5_000)), BAD, REPLACE, 3),
    Case("html", of_bytes(b"<html><body>404 not found</body></html>"), BAD, REPLACE, 3),
    Case(
        "lfs-pointer",
        of_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        BAD,
        REPLACE,
        3,
    ),
    Case("cut", of_bytes(WHOLE[:3_000]), "is cut short", "copy the file again", 3),
    Case("header-alone", of_bytes(WHOLE[:44]), "is cut short", "copy the file again", 3),
    Case("half-a-header", of_bytes(WHOLE[:30]), BAD, "copy the file again", 3),
    Case("no-samples", of_bytes(wav_of(np.zeros(0))), "holds no sample", "leave it out", 3),
    Case("silence", of_bytes(wav_of(np.zeros(8_000))), "only digital silence", "leave it out", 3),
    Case(
        "not-finite",
        of_bytes(wav_of(np.full(8_000, np.nan), subtype="FLOAT")),
        "not finite",
        "from source",
        3,
    ),
    Case(
        "unscaled",
        of_bytes(wav_of(np.arange(8_000.0), subtype="FLOAT")),
        "full scale is 1",
        "divide them",
        3,
    ),
    Case("rate-0", of_bytes(with_bytes(WHOLE, 24, bytes(4))), BAD, REPLACE, 3),
    Case(
        "rate-1",
        of_bytes(with_bytes(WHOLE, 24, struct.pack("<I", 1))),
        "sample rate is 1 Hz",
        "record at",
        3,
    ),
    Case("channels-0", of_bytes(with_bytes(WHOLE, 22, bytes(2))), BAD, REPLACE, 3),
    Case("channels-65535", of_bytes(with_bytes(WHOLE, 22, b"\xff\xff")), BAD, REPLACE, 3),
    Case(
        "rate-2e9",
        of_bytes(wav_of(rate_hz=2_000_000_011)),
        "at most 384000 Hz",
        "write it again at 16000 Hz",
        3,
    ),
    Case(
        "flac-655-khz",
        of_bytes(tone(655_350, 8, 1.0, "FLAC", "PCM_16"), "flac"),
        "rate is 655350 Hz",
        "at 16000 Hz",
        3,
    ),
    Case(
        "flac-384-khz-9-channels",
        of_bytes(wav_of(np.ones((40_000, 9)) / 9, 384_000), "wav"),
        f"at most {MOST_VALUES_PER_S}",
        "with fewer channels",
        3,
    ),
    Case(
        "vorbis-255-channels",
        of_bytes(tone(RATE_HZ, 255, 0.2, "OGG", "VORBIS"), "ogg"),
        "has 255 channels",
        "write the channel of the speaker",
        3,
    ),
    Case(
        "vorbis-64-channels-at-96-khz",
        of_bytes(tone(96_000, 64, 0.2, "OGG", "VORBIS"), "ogg"),
        "64 channels at 96000 Hz",
        "with fewer channels",
        3,
    ),
    Case("ogg-cut", of_bytes(OGG[:-100], "ogg"), "is cut short", "copy the file again", 3),
    Case(
        "ogg-page-of-nothing", of_bytes(OGG[:27], "ogg"), "bad (bad.ogg)", "copy the file again", 3
    ),
    Case("flac-cut", of_bytes(FLAC[: len(FLAC) // 2], "flac"), "bad (bad.flac)", REPLACE, 3),
    Case(
        "flac-of-hours",
        of_bytes(with_bytes(FLAC, 21, bytes([FLAC[21] | 15])), "flac"),
        "corpus.max_s is 60",
        "leave it out",
        3,
    ),
    Case(
        "sphere-cut",
        of_bytes(SPHERE + bytes(99)),
        "8000 samples and 49 are there",
        "copy the file again",
        3,
    ),
    Case(
        "sphere-huge-count",
        of_bytes(SPHERE.replace(b"8000", b"9" * 4) + bytes(99)),
        "is cut short",
        "copy the file again",
        3,
    ),
    Case("sphere-endless-number", of_bytes(sphere_of(b"9" * 5000)), BAD, REPLACE, 3),
    Case("sphere-superscript-number", of_bytes(sphere_of(b"\xb2")), BAD, "leave it out", 3),
    Case("sphere-no-length", of_bytes(b"NIST_1A\n" + b"9" * 5000), BAD, REPLACE, 3),
    Case(
        "segment-outside",
        of_bytes(WHOLE, times="5,6"),
        "from 5 s to 6 s is not inside",
        "correct start_s",
        3,
    ),
    Case(
        "segment-backwards",
        of_bytes(WHOLE, times="0.2,0.1"),
        "end_s 0.1 is not after start_s 0.2",
        "correct them",
        3,
    ),
    Case(
        "segment-negative",
        of_bytes(WHOLE, times="-1,0.2"),
        "start_s",
        "give seconds from the start",
        3,
    ),
    Case("too-short", of_bytes(wav_of(np.ones(800) / 9)), "corpus.min_s is 0.1", "leave it out", 3),
    Case(
        "too-long",
        of_bytes(tone(RATE_HZ, 1, 61, "FLAC", "PCM_16"), "flac"),
        "corpus.max_s is 60",
        "leave it out",
        3,
    ),
    Case("missing", missing, "'bad.wav' is missing", "copy it there or correct the path", 3),
    Case("outside-the-corpus", outside, "../secret.wav", "give a path relative to its root", 3),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_recording_is_named(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path)


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize(
    ("rate_hz", "channels", "fmt", "subtype"),
    [(384_000, 8, "FLAC", "PCM_16"), (48_000, 64, "OGG", "VORBIS")],
)
def test_a_small_file_within_the_bounds_takes_little_memory(
    rate_hz: int, channels: int, fmt: str, subtype: str
) -> None:
    seconds = 3.0
    data = tone(rate_hz, channels, seconds, fmt, subtype)
    decode_pcm16(wav_of())
    before = peak_bytes()
    samples = len(decode_pcm16(data, channel="first"))
    assert samples == pytest.approx(seconds * RATE_HZ, rel=0.1)
    whole = seconds * rate_hz * channels * 8
    assert whole > 60e6, "as floats it would be large"
    assert peak_bytes() - before < 24e6


def test_ingest_counts_a_bomb_as_a_bad_recording(tmp_path: Path, in_process: None) -> None:
    bomb = tone(655_350, 8, 1.0, "FLAC", "PCM_16")
    of_bytes(bomb, "flac")(Place(tmp_path))
    context = context_of(tmp_path / "root", tmp_path / "corpus")
    with pytest.raises(CorpusError, match=r"bad \(bad.flac\).*655350 Hz and at most 384000 Hz"):
        ingest(context, adapter="table", max_bad_fraction=0)
    stored = ingest(context, adapter="table", max_bad_fraction=0.5)
    assert [problem.item for problem in stored.manifest.problems] == ["bad (bad.flac)"]
    assert "655350 Hz" in stored.manifest.problems[0].reason


def test_predict_refuses_more_than_a_bound_too(tmp_path: Path) -> None:
    whole = bytearray(tone(RATE_HZ, 1, 1.0, "FLAC", "PCM_16"))
    whole[21] |= 15
    (tmp_path / "day.flac").write_bytes(whole)
    read = read_recording(Source(str(tmp_path / "day.flac")))
    assert read.samples is None
    assert f"at most {MOST_SECONDS} s" in read.error


def test_long_recordings_are_decoded_one_after_the_other() -> None:
    room, decoded = DecodingRoom(100), queue.Queue[int]()

    def decode(order: int, num_bytes: int) -> None:
        with room.for_one(order, num_bytes):
            decoded.put(order)

    threads = [Thread(target=decode, args=(n, size)) for n, size in enumerate((90, 90, 5))]
    threads[0].start()
    assert decoded.get(timeout=30) == 0
    threads[1].start()
    threads[2].start()
    # The small one fits beside the first; the second waits until that is taken.
    assert decoded.get(timeout=30) == 2
    assert decoded.empty()
    room.taken()
    assert decoded.get(timeout=30) == 1
    for thread in threads:
        thread.join()


def test_whoever_waits_for_room_goes_on_at_the_end() -> None:
    room = DecodingRoom(100)
    with room.for_one(0, 90):
        pass

    def decode() -> None:
        with room.for_one(1, 90):
            pass

    waiting = Thread(target=decode)
    waiting.start()
    room.close()
    waiting.join(timeout=30)
    assert not waiting.is_alive()


def test_a_recording_that_fails_leaves_its_room() -> None:
    room = DecodingRoom(100)
    with pytest.raises(CorpusError), room.for_one(1, 90):
        raise CorpusError("damaged")
    with room.for_one(2, 90):
        pass
