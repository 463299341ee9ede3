"""Recordings into the store: what is refused, what is converted, what makes identity."""

from __future__ import annotations

import io
import json
import os
import shutil
import wave
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given
from hypothesis import strategies as st
from support.one_process import Tiny, context_of, ingest

from gmp_atl_dist.audio import decode_pcm16
from gmp_atl_dist.audio_measures import AudioTable
from gmp_atl_dist.config import AuditConfig, CorpusConfig, Json, RunConfig, digest
from gmp_atl_dist.corpora.reading import CorpusListing
from gmp_atl_dist.errors import CorpusError
from gmp_atl_dist.records import (
    AUDIO_SCHEMA,
    StoredUtterance,
    Utterance,
    utterances_from_table,
    utterances_to_table,
)
from gmp_atl_dist.stages import ingest as ingest_module
from gmp_atl_dist.stages.base import Context, run_and_seal
from gmp_atl_dist.stages.ingest import Ingest, plan_parts
from gmp_atl_dist.stages.planned_folds import folds_of_corpus
from gmp_atl_dist.stages.report_audio import audio_content
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.audio_paths import read_audio_paths
from gmp_atl_dist.store.readers import (
    AudioReader,
    audio_part_names,
    pcm16_sha256,
    read_audio_measures,
    read_audio_part,
    read_emotions,
    read_utterances,
)

pytest_plugins = ["support.one_process"]

RATE_HZ = 16_000


def tone(seconds: float, rate_hz: int = RATE_HZ, hz: float = 220.0) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate_hz)) / rate_hz)


def write_wav(
    path: Path, samples: np.ndarray, rate_hz: int = RATE_HZ, subtype: str = "PCM_16"
) -> None:
    sf.write(path, samples, rate_hz, subtype=subtype)


def write_table(folder: Path, emotions: dict[str, str]) -> None:
    lines = ["id,path,speaker,gender,emotion"]
    for i, (name, emotion) in enumerate(sorted(emotions.items())):
        gender = ("female", "male")[i % 2]
        lines.append(f"{name},{name}.wav,speaker{i % 3},{gender},{emotion}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """Six recordings of two emotions."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    for i in range(6):
        write_wav(folder / f"u{i}.wav", tone(0.3 + i / 10, hz=200 + 20 * i))
    write_table(folder, {f"u{i}": ("sad", "happy")[i % 2] for i in range(6)})
    return folder


def spoil(folder: Path) -> dict[str, str]:
    """Add recordings that cannot be used; what each will be told."""
    (folder / "garbage.wav").write_bytes(b"this is no recording at all" * 40)
    with wave.open(str(folder / "hollow.wav"), "wb") as f:
        f.setnchannels(1)
        f.setsampwidth(2)
        f.setframerate(RATE_HZ)
    not_finite = tone(0.5)
    not_finite[100] = np.nan
    write_wav(folder / "nan.wav", not_finite, subtype="FLOAT")
    write_wav(folder / "brief.wav", tone(0.02))
    write_wav(folder / "endless.wav", tone(3.0))
    whole = (folder / "u0.wav").read_bytes()
    (folder / "cut.wav").write_bytes(whole[: len(whole) // 2])
    told = {
        "garbage": "cannot be decoded",
        "hollow": "holds no sample",
        "nan": "not finite",
        "brief": "lasts 0.020 s, corpus.min_s is 0.1",
        "endless": "lasts 3.000 s, corpus.max_s is 2",
        "cut": "cut short",
    }
    write_table(
        folder, {f"u{i}": ("sad", "happy")[i % 2] for i in range(6)} | dict.fromkeys(told, "sad")
    )
    return told


def table_of(root: Path, folder: Path) -> Context:
    return context_of(root, folder)


@pytest.mark.usefixtures("in_process")
def test_all_bad_recordings_are_told_at_once(good: Path, tmp_path: Path) -> None:
    told = spoil(good)
    context = table_of(tmp_path / "root", good)
    with pytest.raises(CorpusError, match=r"^file://.*: 6 of 12 .*max_bad_fraction is 0;") as error:
        ingest(context, adapter="table", max_s=2.0, part_audio_s=1.0, max_bad_fraction=0)

    lines = error.value.message.splitlines()[1:]
    assert len(lines) == len(told)
    for name, reason in told.items():
        (line,) = [line for line in lines if f"{name} ({name}.wav)" in line]
        assert reason in line


@pytest.mark.usefixtures("in_process")
def test_dropped_recordings_are_listed_in_the_manifest(good: Path, tmp_path: Path) -> None:
    told = spoil(good)
    corpus = ingest(
        table_of(tmp_path / "root", good), adapter="table", max_s=2.0, max_bad_fraction=0.5
    )

    assert [u.utterance_id for u in read_utterances(corpus)] == [f"u{i}" for i in range(6)]
    problems = {p.item: p.reason for p in corpus.manifest.problems}
    assert list(problems) == sorted(f"{name} ({name}.wav)" for name in told)
    assert all(told[item.split(" ")[0]] in reason for item, reason in problems.items())


@pytest.mark.usefixtures("in_process")
def test_a_class_that_lost_all_its_recordings_stops_the_run(good: Path, tmp_path: Path) -> None:
    for i in range(0, 6, 2):
        (good / f"u{i}.wav").write_bytes(b"broken")
    with pytest.raises(CorpusError, match="no utterance of sad is left"):
        ingest(table_of(tmp_path / "root", good), adapter="table", max_bad_fraction=0.5)


@pytest.mark.usefixtures("in_process")
def test_nothing_usable_is_an_error_whatever_may_be_bad(good: Path, tmp_path: Path) -> None:
    for path in good.glob("*.wav"):
        path.write_bytes(b"broken")
    with pytest.raises(CorpusError, match="no utterance of the corpus can be used"):
        ingest(table_of(tmp_path / "root", good), adapter="table", max_bad_fraction=1.0)


@pytest.mark.usefixtures("in_process")
def test_any_rate_and_channels_become_16_khz_mono(good: Path, tmp_path: Path) -> None:
    stereo = np.stack([tone(0.5, 44_100, 300.0), np.zeros(22_050)], axis=1)
    write_wav(good / "u0.wav", stereo, 44_100)
    corpus = ingest(table_of(tmp_path / "root", good), adapter="table")
    first = read_utterances(corpus)[0]
    samples = AudioReader(corpus).samples(first) / 32768

    assert first.num_samples == len(samples) == 8_000
    # The mean of both channels, away from the borders where the filter rings.
    inner = slice(400, -400)
    np.testing.assert_allclose(samples[inner], 0.5 * tone(0.5, hz=300.0)[inner], atol=2e-3)


def test_samples_come_through_bit_for_bit(tiny: Tiny) -> None:
    reader = AudioReader(tiny.corpus)
    wavs = {p.stem: p for p in tiny.folder.rglob("*.wav")}
    utterances = read_utterances(tiny.corpus)

    assert len(utterances) == 40
    for u in utterances[::5]:
        expected = decode_pcm16(wavs[u.utterance_id].read_bytes())
        np.testing.assert_array_equal(reader.samples(u), expected)
        assert u.audio_sha256 == pcm16_sha256(expected)
        assert not reader.samples(u).flags.writeable


def test_gender_is_the_speakers_and_not_the_dialogues(tiny: Tiny) -> None:
    utterances = read_utterances(tiny.corpus)
    assert all(u.gender[0].upper() == u.utterance_id.split("_")[-1][0] for u in utterances)
    assert any(u.gender[0].upper() != u.utterance_id[5] for u in utterances)


def test_the_index_is_what_the_parts_hold(tiny: Tiny) -> None:
    names = audio_part_names(tiny.corpus)
    held = [u for name in names for u in read_audio_part(tiny.corpus, name).utterances]

    assert len(names) > 2
    assert tuple(sorted(held, key=lambda u: u.utterance_id)) == read_utterances(tiny.corpus)
    assert read_emotions(tiny.corpus) == ("neutral", "happy", "angry", "sad")


def identities(corpus: Artifact) -> tuple[str, str]:
    return corpus.key.fingerprint, corpus.identity


@pytest.mark.usefixtures("in_process")
def test_a_moved_corpus_is_looked_at_again_and_is_the_same(good: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(good, moved)
    for path in moved.iterdir():
        os.utime(path, ns=(10**18, 10**18))
    root = tmp_path / "root"
    old = ingest(table_of(root, good), adapter="table")
    new = ingest(table_of(root, moved), adapter="table")

    assert old.key.fingerprint != new.key.fingerprint
    assert old.identity == new.identity


@pytest.mark.usefixtures("in_process")
def test_what_is_heard_and_labelled_makes_the_identity(good: Path, tmp_path: Path) -> None:
    context = table_of(tmp_path / "root", good)
    found = {"as it was": identities(ingest(context, adapter="table"))}
    again = identities(ingest(context, adapter="table"))
    table = good / "manifest.csv"
    text = table.read_text()
    table.write_text(text.replace("u1.wav,speaker1,male,happy", "u1.wav,speaker1,male,sad"))
    found["another label"] = identities(ingest(context, adapter="table"))
    table.write_text(text.replace("u1.wav,speaker1", "u1.wav,speaker2"))
    found["another speaker"] = identities(ingest(context, adapter="table"))
    table.write_text(text)
    write_wav(good / "u1.wav", tone(0.4, hz=500))
    found["another sound"] = identities(ingest(context, adapter="table"))

    assert again == found["as it was"]
    assert len({fingerprint for fingerprint, _ in found.values()}) == 4
    assert len({identity for _, identity in found.values()}) == 4


@pytest.mark.usefixtures("in_process")
def test_another_container_of_the_same_sound_is_the_same(good: Path, tmp_path: Path) -> None:
    flac = tmp_path / "flac"
    flac.mkdir()
    shutil.copy(good / "manifest.csv", flac)
    for path in good.glob("*.wav"):
        buffer = io.BytesIO()
        data, rate_hz = sf.read(path, dtype="int16")
        sf.write(buffer, data, rate_hz, format="FLAC")
        (flac / path.name).write_bytes(buffer.getvalue())
    a = ingest(table_of(tmp_path / "root", good), adapter="table")
    b = ingest(table_of(tmp_path / "root", flac), adapter="table")
    assert a.identity == b.identity


def listing(sizes: list[int]) -> CorpusListing:
    utterances = tuple(
        Utterance(f"u{i:03d}", f"u{i:03d}.wav", "s", "female", "sad") for i in range(len(sizes))
    )
    return CorpusListing(
        utterances=utterances,
        sizes={u.path: size for u, size in zip(utterances, sizes, strict=True)},
        stamp="",
        emotions=("sad",),
        problems=(),
    )


@given(sizes=st.lists(st.integers(1, 400_000), min_size=1, max_size=40), part_s=st.floats(0.1, 20))
def test_parts_hold_every_utterance_once_in_order(sizes: list[int], part_s: float) -> None:
    corpus = listing(sizes)
    tasks = plan_parts(corpus, part_s)
    members = [[fields["utterance_id"] for fields in json.loads(t.payload)] for t in tasks]

    assert [i for part in members for i in part] == [u.utterance_id for u in corpus.utterances]
    assert [t.name for t in tasks] == [f"part-{i:05d}" for i in range(len(tasks))]
    for part in members:
        held = sum(corpus.sizes[f"{i}.wav"] for i in part[:-1])
        assert held < part_s * 32_000, "a part was closed too late"


def test_a_segment_counts_by_its_length_and_not_its_file() -> None:
    corpus = listing([10**9] * 4)
    cut = replace(
        corpus,
        utterances=tuple(replace(u, start_s=0.0, end_s=1.0) for u in corpus.utterances),
    )
    assert len(plan_parts(corpus, 2.0)) == 4
    assert len(plan_parts(cut, 2.0)) == 2


@pytest.mark.usefixtures("in_process")
def test_what_has_a_receipt_is_not_decoded_again(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gmp_atl_dist.stages import ingest_worker as module

    context = table_of(tmp_path / "root", good)
    config = CorpusConfig(adapter="table", part_audio_s=0.5)
    stage = Ingest(config, context.source)
    whole = ingest(context, adapter="table", part_audio_s=0.5)
    parts = audio_part_names(whole)
    # As if it had been killed with one part undone: the manifest and that receipt are missing.
    (tmp_path / "root" / stage.key.manifest_path).unlink()
    (tmp_path / "root" / stage.key.prefix / f"receipts/parts/{parts[1]}.parquet.json").unlink()
    decoded: list[str] = []
    real = module.PartDecoder.__call__

    def noted(self: module.PartDecoder, task: module.Task) -> str:
        decoded.append(task.name)
        return real(self, task)

    monkeypatch.setattr(module.PartDecoder, "__call__", noted)
    again = ingest(context, adapter="table", part_audio_s=0.5)

    assert decoded == [parts[1]]
    assert again.manifest == whole.manifest


@pytest.mark.usefixtures("in_process")
def test_segments_of_a_recording(tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    folder.mkdir()
    write_wav(folder / "long.wav", tone(2.0))
    (folder / "manifest.csv").write_text(
        "id,path,speaker,gender,emotion,start_s,end_s\n"
        "a,long.wav,s1,f,sad,0,0.5\n"
        "b,long.wav,s2,m,happy,1.0,\n"
    )
    corpus = ingest(context_of(tmp_path / "root", folder), adapter="table")
    reader = AudioReader(corpus)
    pcm16 = decode_pcm16((folder / "long.wav").read_bytes())
    a, b = read_utterances(corpus)
    np.testing.assert_array_equal(reader.samples(a), pcm16[:8_000])
    np.testing.assert_array_equal(reader.samples(b), pcm16[16_000:])


@pytest.mark.usefixtures("in_process")
def test_each_part_has_the_measures_of_its_utterances(good: Path, tmp_path: Path) -> None:
    write_wav(good / "u0.wav", np.outer(tone(0.5, 8_000), [1, 0.5]), 8_000)
    write_wav(good / "u1.wav", np.sign(tone(0.5)))
    (good / "u2.wav").write_bytes(b"broken")
    corpus = ingest(
        table_of(tmp_path / "root", good), adapter="table", part_audio_s=0.5, max_bad_fraction=0.5
    )
    stored = read_audio_measures(corpus)
    assert stored is not None
    assert len(stored) == len(audio_part_names(corpus)) > 1
    assert {prefix for prefix, _ in stored} == {""}
    table = AudioTable.concatenated(AudioTable.from_json(data) for _, data in stored)
    assert table.ids == ("u0", "u1", "u3", "u4", "u5")
    assert table.columns["rate_hz"].tolist() == [8_000, *[16_000] * 4]
    assert table.columns["channels"].tolist() == [2, 1, 1, 1, 1]
    assert table.columns["clipped_share"][1] > 0.9
    assert table.columns["clipped_share"][2] == 0
    lengths = [u.num_samples / RATE_HZ for u in read_utterances(corpus)]
    np.testing.assert_allclose(table.columns["seconds"], lengths, atol=1e-3)


@pytest.mark.usefixtures("in_process")
def test_an_artefact_of_an_earlier_release_has_no_measures(good: Path, tmp_path: Path) -> None:
    corpus = ingest(table_of(tmp_path / "root", good), adapter="table")
    receipts = tuple(r for r in corpus.manifest.receipts if not r.name.startswith("files/audio/"))
    earlier = replace(corpus, manifest=corpus.manifest.model_copy(update={"receipts": receipts}))
    assert read_audio_measures(earlier) is None
    assert audio_content(earlier, AuditConfig()) is None
    audit = audio_content(corpus, AuditConfig(quiet_dbfs=-5.0))
    assert audit is not None
    assert audit.num_utterances == 6
    (finding,) = [f for f in audit.findings if f.code == "quiet"]
    assert finding.count == 6


@pytest.mark.usefixtures("in_process")
def test_lists_find_stored_utterances_by_the_paths_of_their_audio(
    good: Path, tmp_path: Path
) -> None:
    lines = ["id,path,speaker,gender,emotion"]
    lines += [f"{i},u{i}.wav,s{i % 3},female,{('sad', 'happy')[i % 2]}" for i in range(6)]
    (good / "manifest.csv").write_text("\n".join(lines) + "\n")
    lists = tmp_path / "lists"
    lists.mkdir()
    sides = {"train": (0, 1, 3, 4), "test": (2, 5)}
    for side, numbers in sides.items():
        (lists / f"{side}.csv").write_text("wav\n" + "".join(f"/disk/u{i}.wav\n" for i in numbers))
    context = table_of(tmp_path / "root", good)
    corpus = run_and_seal(Ingest(CorpusConfig(adapter="table"), context.source), context)

    assert read_audio_paths(corpus) == {str(i): f"u{i}.wav" for i in range(6)}
    config = RunConfig.model_validate({"folds": {"lists": str(lists)}})
    (fold,) = folds_of_corpus(config, corpus)
    assert (fold.train_speakers, fold.test_speakers) == (("s0", "s1"), ("s2",))

    # A corpus that an earlier release stored has no paths, and its ids are in no list.
    left = tuple(r for r in corpus.manifest.receipts if r.name != "files/paths.parquet")
    older = replace(corpus, manifest=corpus.manifest.model_copy(update={"receipts": left}))
    with pytest.raises(CorpusError, match=r"an earlier release stored .* delete its artifacts/ing"):
        folds_of_corpus(config, older)


def test_the_identity_is_the_digest_of_all_utterances(monkeypatch: pytest.MonkeyPatch) -> None:
    # It is computed in pieces, and stores of earlier releases have the digest of the whole.
    monkeypatch.setattr(ingest_module, "_ROWS_AT_ONCE", 2)
    for count in (1, 2, 5):
        stored = [
            StoredUtterance(f"é{i}", "s", "female", "sad", "", "", i, "0" * 64, "part-0", i)
            for i in range(count)
        ]
        rows: list[Json] = [list(asdict(u).values()) for u in stored]
        whole = digest({"utterances": rows, "emotions": ["sad", "ärger"]})
        assert ingest_module._identity(stored, ("sad", "ärger")) == whole


def test_equal_names_of_stored_utterances_are_one_string() -> None:
    stored = [
        StoredUtterance(f"u{i}", f"s{i % 2}", "female", "sad", "", "test", 9, "0" * 64, "part-0", i)
        for i in range(4)
    ]
    again = utterances_from_table(utterances_to_table(stored))
    assert again == tuple(stored)
    assert again[0].speaker is again[2].speaker
    assert again[0].part is again[3].part


def test_rows_of_a_part_are_a_table_of_its_utterances_in_one_array_or_several(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from gmp_atl_dist.stages import ingest_worker as module

    rng = np.random.default_rng(0)
    decoded = [
        module.DecodedUtterance(
            Utterance(f"u{i}", f"{i}.wav", "s", "female", "sad", session="1"),
            rng.integers(-100, 100, 50 + i).astype(np.int16),
            f"sha{i}",
            {},
        )
        for i in range(5)
    ]
    expected = [
        {
            "utterance_id": f"u{i}",
            **{"speaker": "s", "gender": "female", "emotion": "sad", "session": "1", "split": ""},
            **{"num_samples": 50 + i, "audio_sha256": f"sha{i}", "part": "part-1", "row": i},
            "pcm16": one.pcm16.astype("<i2").tobytes(),
        }
        for i, one in enumerate(decoded)
    ]
    for most_bytes in (module._MOST_BYTES, 10):
        monkeypatch.setattr(module, "_MOST_BYTES", most_bytes)
        table = module.table_of_part("part-1", decoded)
        assert table.schema.equals(AUDIO_SCHEMA)
        assert table.to_pylist() == expected
    assert module.table_of_part("part-1", []).num_rows == 0
