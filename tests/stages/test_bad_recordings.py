"""One broken file costs itself: what is left out and named, and what stops the run instead."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile as sf
from support.one_process import context_of, finish, ingest

from gmp_atl_dist import audio
from gmp_atl_dist.audio import decode_pcm16
from gmp_atl_dist.config import CorpusConfig
from gmp_atl_dist.errors import ArtifactError, CorpusError
from gmp_atl_dist.stages.base import Context
from gmp_atl_dist.stages.ingest import Ingest
from gmp_atl_dist.store.filesystem import Store, UnreadableError
from gmp_atl_dist.store.readers import AudioReader, audio_part_names, read_utterances

pytest_plugins = ["support.one_process"]

RATE_HZ = 16_000
NUM_UTTERANCES = 2_000
NUM_SAMPLES = RATE_HZ // 5
HEADER = "id,path,speaker,gender,emotion,start_s,end_s"


def wav(samples: np.ndarray, subtype: str = "PCM_16") -> bytes:
    out = io.BytesIO()
    sf.write(out, samples, RATE_HZ, format="WAV", subtype=subtype)
    return out.getvalue()


def sound(i: int, num_samples: int = NUM_SAMPLES) -> np.ndarray:
    """The 16-bit samples of utterance ``i``, its own."""
    return np.random.default_rng(i).integers(-9_000, 9_000, num_samples, dtype=np.int16)


def row(i: int, start_s: str = "", end_s: str = "") -> str:
    emotion = ("happy", "sad")[i % 2]
    return f"u{i:04d},u{i:04d}.wav,speaker{i % 9},{'fm'[i % 2]},{emotion},{start_s},{end_s}"


def without_rate(whole: bytes) -> bytes:
    """A header that says 1 Hz."""
    return whole[:24] + (1).to_bytes(4, "little") + whole[28:]


WAYS: dict[str, Callable[[bytes], bytes | None]] = {
    "is missing": lambda _: None,
    "is empty (0 bytes)": lambda _: b"",
    "is cut short": lambda whole: whole[:3_000],
    "cannot be decoded": lambda whole: whole[44:],
    "lasts 0.050 s, corpus.min_s is 0.1": lambda _: wav(sound(0, RATE_HZ // 20)),
    "holds no sample": lambda _: wav(np.zeros(0)),
    "not finite": lambda _: wav(np.full(NUM_SAMPLES, np.nan), "FLOAT"),
    "sample rate is 1 Hz": without_rate,
}
SEGMENTS = {
    "from 5 s to 6 s is not inside the recording": ("5", "6"),
    "end_s 0.1 is not after start_s 0.2": ("0.2", "0.1"),
}
REASONS = [*WAYS, *SEGMENTS]
BAD = {50 + 100 * n: REASONS[n % len(REASONS)] for n in range(20)}


@dataclass(frozen=True)
class Spoilt:
    """A corpus of 2,000 utterances, 20 of them broken in ten ways."""

    folder: Path

    def context(self, root: Path) -> Context:
        return context_of(root, self.folder)


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Spoilt:
    folder = tmp_path_factory.mktemp("spoilt")
    rows = [HEADER]
    for i in range(NUM_UTTERANCES):
        reason = BAD.get(i, "")
        rows.append(row(i, *SEGMENTS.get(reason, ("", ""))))
        data = WAYS.get(reason, bytes)(wav(sound(i)))
        if data is not None:
            (folder / f"u{i:04d}.wav").write_bytes(data)
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return Spoilt(folder)


def id_of(item: str) -> str:
    (found,) = set(re.findall(r"u\d{4}", item.split(": ")[0]))
    return found


@pytest.mark.usefixtures("in_process")
def test_the_good_come_out_and_the_bad_are_named(
    spoilt: Spoilt, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    context = spoilt.context(tmp_path)
    # Its default, 0.01, is just enough.
    corpus = ingest(context, adapter="table", part_audio_s=100)
    stored = read_utterances(corpus)
    reader = AudioReader(corpus)
    good = [i for i in range(NUM_UTTERANCES) if i not in BAD]

    assert len(good) == 1_980
    assert [u.utterance_id for u in stored] == [f"u{i:04d}" for i in good]
    for i, u in zip(good, stored, strict=True):
        np.testing.assert_array_equal(reader.samples(u), sound(i))
    problems = {id_of(p.item): p.reason for p in corpus.manifest.problems}
    assert len(problems) == len(corpus.manifest.problems)
    assert set(problems) == {f"u{i:04d}" for i in BAD}
    assert all(reason in problems[f"u{i:04d}"] for i, reason in BAD.items())
    (line,) = [text for text in capsys.readouterr().out.splitlines() if "left out" in text]
    assert line.startswith("ingest: 20 of 2000 utterances are bad and were left out; all are ")
    assert f"{context.store.uri}/{corpus.key.manifest_path}: utterance 'u0050': audio file" in line
    assert line.endswith("; ...")
    for part in audio_part_names(corpus):
        written = pq.read_metadata(tmp_path / corpus.key.prefix / f"parts/{part}.parquet")
        groups = [written.row_group(i).num_rows for i in range(written.num_row_groups)]
        assert max(groups) <= 64, "readers take some rows of a part"
        assert len(groups) == -(-written.num_rows // 64)


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("fraction", [0.005, 0.0099])
def test_more_than_the_fraction_stops_the_run_and_names_all(
    spoilt: Spoilt, tmp_path: Path, fraction: float
) -> None:
    context = spoilt.context(tmp_path)
    with pytest.raises(CorpusError) as caught:
        ingest(context, adapter="table", part_audio_s=100, max_bad_fraction=fraction)
    headline, *lines = caught.value.message.splitlines()

    assert headline == (
        f"{context.source.uri}: 20 of 2000 utterances are bad, a fraction of 0.01, and "
        f"corpus.max_bad_fraction is {fraction:g}; repair them, or raise "
        f"that key to leave them out:"
    )
    assert len(lines) == len(BAD)
    told = {id_of(line): line for line in lines}
    assert all(reason in told[f"u{i:04d}"] for i, reason in BAD.items())


@pytest.mark.usefixtures("in_process")
def test_what_the_listing_sees_can_stop_the_run_before_anything_is_read(
    spoilt: Spoilt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = counted_reads(monkeypatch)
    with pytest.raises(CorpusError, match=r"6 of 2000 .* a fraction of 0\.003,"):
        ingest(spoilt.context(tmp_path), adapter="table", max_bad_fraction=0.002)
    assert reads == Counter({"manifest.csv": 1})


def counted_reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file is read from now on."""
    reads: Counter[str] = Counter()
    real = Store.read

    def read(self: Store, path: str) -> bytes:
        reads[path] += 1
        return real(self, path)

    monkeypatch.setattr(Store, "read", read)
    return reads


def few(folder: Path, num: int = 6) -> Path:
    """So many good recordings, three of them a part of 0.6 s."""
    folder.mkdir()
    for i in range(num):
        (folder / f"u{i:04d}.wav").write_bytes(wav(sound(i)))
    (folder / "manifest.csv").write_text("\n".join([HEADER, *map(row, range(num))]) + "\n")
    return folder


CONFIG = CorpusConfig(adapter="table", part_audio_s=0.6, max_bad_fraction=0.2)


@pytest.mark.usefixtures("in_process")
def test_a_store_that_is_down_is_no_bad_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = context_of(tmp_path / "root", few(tmp_path / "corpus"))
    stage = Ingest(CONFIG, context.source)
    with monkeypatch.context() as patch:
        real = Store.read

        def read(self: Store, path: str) -> bytes:
            if path == "u0004.wav":
                raise ArtifactError("cannot read: OSError: connection refused")
            return real(self, path)

        patch.setattr(Store, "read", read)
        with pytest.raises(ArtifactError, match="connection refused"):
            finish(stage, context)

    reads = counted_reads(monkeypatch)
    corpus = finish(stage, context)
    assert corpus.manifest.problems == ()
    assert len(read_utterances(corpus)) == 6
    assert {path for path in reads if path.endswith(".wav")} == {f"u{i:04d}.wav" for i in (3, 4, 5)}


@pytest.mark.usefixtures("in_process")
def test_a_recording_that_went_after_the_listing_is_named(tmp_path: Path) -> None:
    folder = few(tmp_path / "corpus")
    context = context_of(tmp_path / "root", folder)
    stage = Ingest(CONFIG, context.source)
    assert len(stage.listing.utterances) == 6
    (folder / "u0004.wav").unlink()
    corpus = finish(stage, context)
    (problem,) = corpus.manifest.problems
    assert problem.item == "u0004 (u0004.wav)"
    assert problem.reason.endswith("it is not there")


@pytest.mark.usefixtures("in_process")
def test_a_disk_that_was_away_is_forgotten_once_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = few(tmp_path / "corpus")
    context = context_of(tmp_path / "root", folder)
    stage = Ingest(CONFIG, context.source)
    assert len(stage.listing.utterances) == 6
    for i in (4, 5):
        (folder / f"u{i:04d}.wav").rename(tmp_path / f"u{i:04d}.wav")
    with pytest.raises(CorpusError, match=r"2 of 6 .* is 0\.2;(.|\n)*u0004.*it is not there"):
        finish(stage, context)
    for i in (4, 5):
        (tmp_path / f"u{i:04d}.wav").rename(folder / f"u{i:04d}.wav")

    reads = counted_reads(monkeypatch)
    corpus = finish(stage, context)
    assert corpus.manifest.problems == ()
    assert len(read_utterances(corpus)) == 6
    assert "u0000.wav" not in reads, "the part without bad ones is not read again"


@pytest.mark.usefixtures("in_process")
def test_a_corpus_whose_channels_cancel_can_choose_another(tmp_path: Path) -> None:
    """Only a corpus has the key; predict and serve take one recording as it is."""
    folder = few(tmp_path / "corpus")
    stereo = np.stack([sound(4), -sound(4)], axis=1)
    (folder / "u0004.wav").write_bytes(wav(stereo))
    context = context_of(tmp_path / "root", folder)
    (problem,) = finish(Ingest(CONFIG, context.source), context).manifest.problems
    assert id_of(problem.item) == "u0004"
    assert problem.reason.endswith(
        "one channel of it, or set corpus.channel = 'first' or 'loudest'"
    )


@pytest.mark.usefixtures("in_process")
def test_a_long_recording_is_read_once_for_its_consecutive_segments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    whole = {name: sound(i, 20 * NUM_SAMPLES) for i, name in enumerate(("a", "b"))}
    rows = [HEADER]
    for name, samples in whole.items():
        (folder / f"{name}.wav").write_bytes(wav(samples))
        for i in range(20):
            times = f"{i * 0.2:.1f},{(i + 1) * 0.2:.1f}"
            rows.append(f"{name}{i:02d},{name}.wav,s{i % 3},f,{('sad', 'happy')[i % 2]},{times}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    reads = counted_reads(monkeypatch)
    # Parts of 3 segments: what is kept also serves the next part.
    corpus = ingest(context_of(tmp_path / "root", folder), adapter="table", part_audio_s=0.6)

    assert {name: reads[name] for name in ("a.wav", "b.wav")} == {"a.wav": 1, "b.wav": 1}
    reader = AudioReader(corpus)
    for u in read_utterances(corpus):
        name, start = u.utterance_id[0], int(u.utterance_id[1:]) * NUM_SAMPLES
        expected = whole[name][start : start + NUM_SAMPLES]
        np.testing.assert_array_equal(reader.samples(u), expected)


@pytest.mark.parametrize(
    "fault",
    [
        MemoryError(),
        OverflowError("cannot convert float infinity to integer"),
        RuntimeError("soxr: something"),
        ValueError("negative seek value"),
        sf.SoundFileRuntimeError("no"),
    ],
)
def test_whatever_decoding_makes_of_the_bytes_is_the_recordings_fault(
    monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    def read(*_: object) -> None:
        raise fault

    monkeypatch.setattr(audio, "_blocks", read)
    expected = rf"cannot be decoded \({str(fault) or 'MemoryError'}; \d+ bytes\)"
    with pytest.raises(CorpusError, match=expected):
        decode_pcm16(wav(sound(0)))


def test_what_is_too_long_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = wav(sound(0, 3 * RATE_HZ))
    monkeypatch.setattr(audio, "_blocks", None)
    with pytest.raises(CorpusError, match=r"^lasts 3\.000 s, corpus\.max_s is 2\.99; "):
        decode_pcm16(data, max_s=2.99)


@pytest.mark.parametrize("fmt", ["FLAC", "OGG", "MP3"])
def test_what_lies_before_a_segment_is_read_and_not_kept(
    monkeypatch: pytest.MonkeyPatch, fmt: str
) -> None:
    out = io.BytesIO()
    sf.write(out, 0.3 * np.sin(np.arange(RATE_HZ) / 9), RATE_HZ, format=fmt)
    whole = decode_pcm16(out.getvalue())
    monkeypatch.setattr(audio, "_BLOCK_BYTES", 2_000)
    for start, end in ((0, 1_000), (1_000, 2_000), (3_999, 12_345), (15_000, 15_001)):
        cut = decode_pcm16(out.getvalue(), start_s=start / RATE_HZ, end_s=end / RATE_HZ)
        np.testing.assert_allclose(cut, whole[start:end], atol=1)


def test_what_is_not_there_is_told_from_a_store_that_refuses(
    store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(store_uri)
    for name in ("a/b", "a/b2"):
        store.put(name, b"1")
    store.delete("a/b")
    assert [entry.path for entry in store.list()] == ["a/b2"]
    with pytest.raises(UnreadableError, match="it is not there"):
        store.read("a/b")
    if store_uri.startswith("s3://"):
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        with pytest.raises(ArtifactError, match="AWS_") as caught:
            Store.open(store_uri).read("a/b2")
        assert not isinstance(caught.value, UnreadableError)


def test_a_file_closed_to_us_is_one_files_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Closed:
        def open_input_file(self, path: str) -> None:
            raise PermissionError(13, "Permission denied", path)

    store = Store.open(str(tmp_path))
    monkeypatch.setattr(Store, "filesystem", Closed())
    with pytest.raises(UnreadableError, match=r"cannot read 'a\.wav' .* Permission denied"):
        store.read("a.wav")
