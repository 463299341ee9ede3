"""Names that look the same are the same; tables in other encodings are refused with the place."""

from __future__ import annotations

import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from support.handed import handed_case

from gmp_atl_dist.cli.main import main
from gmp_atl_dist.config import CorpusConfig, FoldsConfig
from gmp_atl_dist.corpora.canonical import canonical_text
from gmp_atl_dist.corpora.folds import plan_folds
from gmp_atl_dist.corpora.reading import CorpusListing, read_corpus
from gmp_atl_dist.errors import ConfigError, CorpusError
from gmp_atl_dist.store.filesystem import Store

HEADER = "id,path,speaker,gender,emotion,session,split,text"
COMPOSED = "Jos\u00e9"
DECOMPOSED = "Jose\u0301"


def read(root: Path, text: str | bytes, **config: object) -> CorpusListing:
    (root / "manifest.csv").write_bytes(text.encode() if isinstance(text, str) else text)
    for name in ("a.wav", "b.wav", "c.wav", "d.wav"):
        if not (root / name).exists():
            (root / name).write_bytes(b"RIFF")
    checked = CorpusConfig.model_validate({"adapter": "table", **config})
    return read_corpus(checked, Store.open(str(root)))


def table(*rows: str) -> str:
    return "\n".join([HEADER, *rows]) + "\n"


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("s01", "s01"),
        (" s01\t", "s01"),
        (DECOMPOSED, COMPOSED),
        ("a\u200bb", "ab"),
        ("e\u200b\u0301", "\u00e9"),
        ("\ufeffjoy\u200d", "joy"),
        ("very\u00a0sad", "very sad"),
        ("a\u034fb\ufe0f", "ab"),
        ("S\uff11", "S\uff11"),
        ("\u5f20\u4e09", "\u5f20\u4e09"),
    ],
)
def test_canonical_text(text: str, canonical: str) -> None:
    assert canonical_text(text) == canonical
    assert canonical_text(canonical) == canonical


def test_one_name_in_several_forms_is_one_speaker_one_session_and_one_class(tmp_path: Path) -> None:
    listing = read(
        tmp_path,
        table(
            f"u1,a.wav,{COMPOSED},m,w\u00fctend,S\u00e91,,x",
            f"u2,a.wav,{DECOMPOSED},m,Wu\u0308tend,Se\u03011,,x",
            f"u3,a.wav,{COMPOSED}\u200b,m,w\u00fct\u00adend,S\u00e91,,x",
        ),
    )
    assert {u.speaker for u in listing.utterances} == {COMPOSED}
    assert {u.session for u in listing.utterances} == {"S\u00e91"}
    assert listing.emotions == ("w\u00fctend",)
    notes = "\n".join(map(str, listing.notes))
    assert f"speaker '{COMPOSED}': is also written" in notes
    assert ascii(DECOMPOSED) in notes
    assert "U+200B ZERO WIDTH SPACE" in notes
    assert "U+00AD SOFT HYPHEN" in notes
    assert "session 'S\u00e91'" in notes


def test_plain_names_need_no_note(tmp_path: Path) -> None:
    assert read(tmp_path, table(f"u1,a.wav, {COMPOSED} ,m,Sad,S1,train,x")).notes == ()


def test_classes_of_the_configuration_are_compared_in_the_same_form(tmp_path: Path) -> None:
    rows = table("u1,a.wav,s,m,w\u00fctend,,,x", "u2,b.wav,s,m,froh,,,x")
    listing = read(tmp_path, rows, emotions=["wu\u0308tend", "froh"])
    assert {u.emotion for u in listing.utterances} == set(listing.emotions)
    with pytest.raises(ConfigError, match="is listed twice"):
        read(tmp_path, rows, emotions=["w\u00fctend", "wu\u0308tend", "froh"])


def test_held_out_names_are_compared_in_the_same_form(tmp_path: Path) -> None:
    rows = table(f"u1,a.wav,{DECOMPOSED},m,sad,,,", "u2,b.wav,t,m,sad,,,")
    folds = FoldsConfig(by="speaker", held_out=((DECOMPOSED,),))
    (fold,) = plan_folds(read(tmp_path, rows).utterances, folds)
    assert fold.test_speakers == (COMPOSED,)


def test_ids_that_look_alike_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="its id occurs more than once"):
        read(tmp_path, table(f"{COMPOSED},a.wav,s,m,sad,,,", f"{DECOMPOSED},a.wav,s,m,sad,,,"))


@pytest.mark.parametrize(("on_disk", "in_table"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_recording_is_found_under_the_other_form_of_its_name(
    tmp_path: Path, on_disk: str, in_table: str
) -> None:
    stored = unicodedata.normalize(on_disk, f"{COMPOSED}.wav")  # pyright: ignore[reportArgumentType]
    named = unicodedata.normalize(in_table, f"{COMPOSED}.wav")  # pyright: ignore[reportArgumentType]
    (tmp_path / stored).write_bytes(b"RIFF")
    (u,) = read(tmp_path, table(f"u1,{named},s,m,sad,,,")).utterances
    assert u.path == stored, "the bytes that the file system knows"


def test_two_recordings_that_look_alike_are_kept_apart(tmp_path: Path) -> None:
    for name in (COMPOSED, DECOMPOSED):
        (tmp_path / f"{name}.wav").write_bytes(b"RIFF")
    rows = (f"u1,{COMPOSED}.wav,s,m,sad,,,", f"u2,{DECOMPOSED}.wav,s,m,sad,,,")
    listing = read(tmp_path, table(*rows))
    assert [u.path for u in listing.utterances] == [f"{COMPOSED}.wav", f"{DECOMPOSED}.wav"]


def test_a_speaker_with_two_genders_is_named(tmp_path: Path) -> None:
    listing = read(
        tmp_path,
        table(
            "u1,a.wav,s,f,sad,,,",
            "u2,b.wav,s,m,sad,,,",
            "u3,c.wav,s,f,sad,,,",
            "u4,d.wav,t,m,sad,,,",
        ),
    )
    (note,) = listing.notes
    assert note.item == "speaker 's'"
    assert "female in 2 (first: 'u1') and male in 1 (first: 'u2')" in note.reason


def test_speakers_that_differ_in_case_alone_are_named(tmp_path: Path) -> None:
    listing = read(tmp_path, table("u1,a.wav,Anna,f,sad,,,", "u2,b.wav,anna,f,sad,,,"))
    assert {u.speaker for u in listing.utterances} == {"Anna", "anna"}
    assert "'Anna', 'anna'" in listing.notes[0].item


@pytest.mark.parametrize(
    ("data", "place", "remedy"),
    [
        (
            b"id,path,speaker,gender,emotion,Gr\xf6\xdfe\n",
            "line 1, byte 34",
            "iconv -f WINDOWS-1252",
        ),
        (f"{HEADER}\nu1,a.wav,s,f,sad,,,Gr\u00fc\u00dfe\n".encode("latin-1"), "line 2", "as UTF-8"),
        (table("u1,a.wav,s,f,sad,,,x").encode("utf-16"), "UTF-16 text", "iconv -f UTF-16"),
        (
            table("u1,a.wav,s,f,sad,,,x").encode("utf-16-le"),
            "line 1, byte 2 is a zero byte",
            "UTF-16LE",
        ),
        (b"\x1f\x8b\x08\x00,\xff\n", "gzip data", "gunzip"),
        (b"PK\x03\x04rest", "a zip archive", "export it as UTF-8 CSV"),
        (b"PAR1rest", "a Parquet file", "name it .parquet"),
        (table("u1,a.wav,s,f,sad,,,x").encode() + b"\xe2\x82", "line 3, byte", "as UTF-8"),
    ],
)
def test_other_encodings_are_refused_with_place_and_remedy(
    tmp_path: Path, data: bytes, place: str, remedy: str
) -> None:
    with pytest.raises(CorpusError) as caught:
        read(tmp_path, data)
    assert "manifest.csv: cannot be read" in caught.value.message
    assert place in caught.value.message
    assert remedy in caught.value.message


def test_the_place_of_a_bad_byte_is_right_in_a_long_table(tmp_path: Path) -> None:
    rows = "".join(f"u{i},a.wav,s,f,sad,,,\u00e9\u00e9\u00e9\n" for i in range(60_000))
    data = f"{HEADER}\n{rows}".encode()
    bad = data + b"\xff\n"
    with pytest.raises(CorpusError, match=f"line 60002, byte {len(data) + 1} "):
        read(tmp_path, bad)


@pytest.mark.parametrize("case", ["latin1-header"])
def test_the_handed_header_in_latin1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    monkeypatch.chdir(handed_case(case, tmp_path))
    assert main(["corpora", "check", "--config", "c.toml"]) == CorpusError.exit_code
    err = capsys.readouterr().err
    assert "manifest.csv" in err
    assert "write it again as UTF-8" in err


def test_the_handed_speaker_in_two_forms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(handed_case("speaker-in-nfc-and-nfd", tmp_path))
    assert main(["corpora", "check", "--config", "c.toml"]) == ConfigError.exit_code
    captured = capsys.readouterr()
    assert "6 utterances of 1 speaker\n" in captured.out
    assert f"has only one speaker ({COMPOSED})" in captured.err


def in_an_ascii_locale(folder: Path) -> subprocess.CompletedProcess[bytes]:
    locale = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    repository = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "gmp_atl_dist.cli", "corpora", "check", "--config", "c.toml"]
    environment = {**os.environ, **locale, "PYTHONPATH": str(repository)}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, timeout=300, check=False
    )


def test_a_letter_that_the_locale_cannot_show_is_a_question_mark(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    rows = ("u1,a.wav,s,m,w\u00fctend,,,x", "u2,b.wav,t,m,w\u00fctend,,,x")
    read(corpus, table(*rows))
    config = '[corpus]\nadapter = "table"\n[folds]\nby = "speaker"\n[runtime]\ncorpus = "corpus"\n'
    (tmp_path / "c.toml").write_text(config)
    done = in_an_ascii_locale(tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"w?tend" in done.stdout
    assert b"2 utterances of 2 speakers" in done.stdout


def test_the_handed_class_in_an_ascii_locale(tmp_path: Path) -> None:
    done = in_an_ascii_locale(handed_case("locale-not-utf8", tmp_path))
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"w?tend" in done.stdout
