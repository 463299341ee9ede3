"""``corpora check --audio``: what is bad ends it with 3, and what is odd is named."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import soxr

from gmp_atl_dist.cli.main import main
from gmp_atl_dist.config import AuditConfig, CorpusConfig
from gmp_atl_dist.corpora.audio_check import AudioCheck, check_audio
from gmp_atl_dist.corpora.reading import read_corpus
from gmp_atl_dist.report.audio_content import audit_of
from gmp_atl_dist.store.filesystem import Store

RATE = 16_000


def sound(seed: int, seconds: float = 0.5, rate_hz: int = RATE, level: float = 0.1) -> np.ndarray:
    return level * np.random.default_rng(seed).normal(size=round(seconds * rate_hz))


def write(folder: Path, waves: dict[str, np.ndarray]) -> Path:
    """One recording per emotion in turn, all of one speaker but for those whose name begins with b."""
    folder.mkdir()
    lines = ["id,path,speaker,gender,emotion"]
    for i, (name, wave) in enumerate(waves.items()):
        sf.write(folder / f"{name}.wav", wave, RATE)
        speaker = "berta" if name.startswith("b") else "anna"
        lines.append(f"{name},{name}.wav,{speaker},f,{('sad', 'happy')[i % 2]}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder


def checked(folder: Path, threads: int = 2) -> AudioCheck:
    config = CorpusConfig(adapter="table", max_bad_fraction=1.0)
    source = Store.open(str(folder))
    return check_audio(read_corpus(config, source), source, config, threads=threads)


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """150 recordings, some of them odd, none of them bad."""
    waves = {f"u{i:03d}": sound(i) for i in range(150)}
    waves["u010"] = sound(10, level=1e-3)
    waves["u020"] = 9 * sound(20)
    waves["u030"] = sound(30) + 0.3
    waves["u040"][:7000] = 0
    waves["u050"] = soxr.resample(sound(50, rate_hz=8_000), 8_000, RATE)
    waves["b"] = sound(1_000)
    return write(tmp_path / "corpus", waves)


def test_outliers_are_found_by_id_and_limit(odd: Path) -> None:
    found = checked(odd)
    assert found.problems == ()
    emotions = {u.utterance_id: u.emotion for u in found.used}
    audit = audit_of(found.table, emotions, AuditConfig())
    assert {f.code: [name for name, _ in f.shown] for f in audit.findings} == {
        "quiet": ["u010"],
        "level": ["u010"],
        "clipped": ["u020"],
        "offset": ["u030"],
        "partly_silent": ["u040"],
        "narrow_band": ["u050"],
    }
    assert [(g.name, g.count) for g in audit.emotions] == [("happy", 75), ("sad", 76)]
    assert audit.measures[1].lowest_id == "u010"
    strict = audit_of(found.table, emotions, AuditConfig(quiet_dbfs=-15.0))
    (quiet,) = [f for f in strict.findings if f.code == "quiet"]
    assert quiet.count == 149
    assert len(quiet.shown) == 20
    assert quiet.shown[0][0] == "u010", "the worst first"


def test_any_number_of_threads_gives_the_same(odd: Path) -> None:
    one, many = checked(odd, 1), checked(odd, 5)
    assert one.table.to_json() == many.table.to_json()
    assert one.used == many.used


def config_of(folder: Path) -> Path:
    path = folder.parent / "check.toml"
    path.write_text(
        f"[corpus]\nadapter = 'table'\n[folds]\nby = 'speaker'\n[runtime]\ncorpus = '{folder}'\n"
    )
    return path


def test_the_command_names_outliers_and_succeeds(
    odd: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["corpora", "check", "--config", str(config_of(odd)), "--audio"]) == 0
    out = capsys.readouterr().out
    assert "warning: narrow_band: 1 utterance: no sound above 4200 Hz" in out
    narrow = next(line for line in out.splitlines() if "narrow_band" in line)
    assert re.search(r": u050 \(\d+ Hz\)$", narrow)


def test_the_command_ends_with_3_and_names_all_that_is_bad(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    waves = {name: sound(i) for i, name in enumerate(("a0", "a1", "a2", "b0", "b1"))}
    waves |= {"a3": np.zeros(RATE), "b2": waves["a0"]}
    folder = write(tmp_path / "corpus", waves)
    whole = (folder / "b1.wav").read_bytes()
    (folder / "b1.wav").write_bytes(whole[:9_000])
    assert main(["corpora", "check", "--config", str(config_of(folder))]) == 0, "labels are right"
    capsys.readouterr()

    assert main(["corpora", "check", "--config", str(config_of(folder)), "--audio"]) == 3
    captured = capsys.readouterr()
    assert "4 of 7 utterances are bad" in captured.err
    for name, reason in (
        ("a3", "holds only digital silence"),
        ("b1", "is cut short"),
        ("a0", "has the same audio as 'b2' with another speaker ('anna', 'berta')"),
        ("b2", "has the same audio as 'a0' with another speaker ('anna', 'berta')"),
    ):
        (line,) = [
            e
            for e in captured.err.splitlines()
            if e.startswith((f"  - {name} ", f"  - utterance '{name}'"))
        ]
        assert reason in line
    assert "Bandwidth (Hz)" in captured.out, "the audit of the others is printed first"
