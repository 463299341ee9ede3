"""What a tree of IEMOCAP may lack, and that nothing is lost without a word."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.handed import handed_case

from gmp_atl_dist.cli.main import main
from gmp_atl_dist.config import CorpusConfig
from gmp_atl_dist.corpora.reading import CorpusListing, read_corpus
from gmp_atl_dist.corpora.synth import MARKER
from gmp_atl_dist.errors import CorpusError
from gmp_atl_dist.store.filesystem import Store

CODES = ("neu", "hap", "ang", "sad")
DIALOGUE = "Ses01F_impro01"


def vote(name: str, code: str) -> str:
    return f"[1.0000 - 2.0000]\t{name}\t{code}\t[2.5, 2.5, 2.5]\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Five sessions of two dialogues with eight turns each: 80 utterances."""
    for number in range(1, 6):
        for mark in "FM":
            dialogue = f"Ses0{number}{mark}_impro01"
            votes = tmp_path / f"Session{number}/dialog/EmoEvaluation/{dialogue}.txt"
            wavs = tmp_path / f"Session{number}/sentences/wav/{dialogue}"
            votes.parent.mkdir(parents=True, exist_ok=True)
            wavs.mkdir(parents=True)
            lines = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"]
            for speaker in "FM":
                for i, code in enumerate(CODES):
                    name = f"{dialogue}_{speaker}{i:03d}"
                    (wavs / f"{name}.wav").write_bytes(b"RIFF")
                    lines.append(vote(name, code) + "C-E2:\tAnger;\t()\n\n")
            votes.write_text("".join(lines))
    return tmp_path


def evaluation(tree: Path) -> Path:
    return tree / f"Session1/dialog/EmoEvaluation/{DIALOGUE}.txt"


def read(root: Path, **config: object) -> CorpusListing:
    return read_corpus(CorpusConfig.model_validate(config), Store.open(str(root)))


def test_a_smaller_tree_says_how_much_of_the_release_it_holds(tree: Path) -> None:
    listing = read(tree)
    assert (len(listing.utterances), listing.problems) == (80, ())
    (note,) = listing.notes
    assert "10 of 151 dialogues and 80 of 10,039 turns" in note.reason
    assert "Session3 2 of 32" in note.reason


def test_a_synthetic_corpus_is_no_release(tree: Path) -> None:
    (tree / MARKER).write_text("")
    assert read(tree).notes == ()


def rewritten(change: Callable[[str], str], encoding: str) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(change(path.read_text()).encode(encoding))


def same(text: str) -> str:
    return text


@pytest.mark.parametrize(
    "change",
    [
        rewritten(same, "utf-16"),
        rewritten(same, "utf-16-le"),
        rewritten(same, "utf-16-be"),
        rewritten(lambda text: "\ufeff" + text, "utf-16-be"),
        rewritten(same, "utf-8-sig"),
        rewritten(lambda text: text[text.index("[1.0") :], "utf-8-sig"),
        rewritten(lambda text: text.replace("[1.0", "\t[1.0"), "utf-8"),
        rewritten(lambda text: text.replace("[1.0", "  [1.0"), "utf-8"),
        rewritten(lambda text: text.replace("\n", "\r"), "utf-8"),
        lambda path: path.rename(path.with_suffix(".TXT")),
    ],
)
def test_other_forms_of_a_file_with_votes_are_read(
    tree: Path, change: Callable[[Path], object]
) -> None:
    change(evaluation(tree))
    listing = read(tree)
    assert (len(listing.utterances), listing.problems) == (80, ())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda path: path.write_bytes(b""),
            "has no line of votes, so it is empty, cut or no text",
        ),
        (lambda path: path.write_bytes(b"\0" * 4096), "has no line of votes"),
        (lambda path: path.write_bytes(path.read_bytes()[:40]), "has no line of votes"),
        (lambda path: path.unlink(), f"there is no Session1/dialog/EmoEvaluation/{DIALOGUE}.txt"),
        (
            lambda path: path.rename(path.with_name("votes.txt.bak")),
            f"there is no Session1/dialog/EmoEvaluation/{DIALOGUE}.txt",
        ),
    ],
)
def test_recordings_without_labels_are_bad_items(
    tree: Path, change: Callable[[Path], object], reason: str
) -> None:
    change(evaluation(tree))
    with pytest.raises(CorpusError) as caught:
        read(tree)
    assert "8 of 80 utterances are bad" in caught.value.message
    assert reason in caught.value.message
    for speaker in "FM":
        for i in range(4):
            assert f"{DIALOGUE}_{speaker}{i:03d}.wav: has no label" in caught.value.message
    assert len(read(tree, max_bad_fraction=0.1).utterances) == 72


def test_a_cut_file_loses_the_turns_that_it_lacks_by_name(tree: Path) -> None:
    path = evaluation(tree)
    path.write_text(path.read_text().partition(f"{DIALOGUE}_M002")[0])
    listing = read(tree, max_bad_fraction=0.1)
    assert listing.num_bad == 3, "the cut line, which names nothing, and two recordings"
    assert len(listing.utterances) == 78
    assert any("M003.wav: has no label" in str(p) for p in listing.problems)
    assert any(f"{path.name}:" in p.item for p in listing.problems)


def test_two_votes_in_one_line_are_counted_in_a_second_way(tree: Path) -> None:
    path = evaluation(tree)
    first, second = (vote(f"{DIALOGUE}_F00{i}", CODES[i]) for i in (0, 1))
    text = path.read_text().replace(second, "").replace(first, first.strip() + " " + second)
    path.write_text(text)
    with pytest.raises(CorpusError, match="has 8 time spans, but 7 lines that begin with one"):
        read(tree)


def test_votes_without_recordings_of_other_classes_are_no_problem(tree: Path) -> None:
    path = evaluation(tree)
    path.write_text(path.read_text() + vote(f"{DIALOGUE}_F099", "fru"))
    assert len(read(tree).utterances) == 80


@pytest.mark.parametrize("name", ["Session 5", "session5", "Session5 (1)", "Ses05", "Session05"])
def test_a_misnamed_session_is_named(tree: Path, name: str) -> None:
    (tree / "Session5").rename(tree / name)
    with pytest.raises(CorpusError) as caught:
        read(tree)
    assert "Session5 is missing" in caught.value.message
    assert f"folder {name!r}: rename it to Session5" in caught.value.message


def test_missing_sessions_can_be_accepted(tree: Path) -> None:
    (tree / "Session5").rename(tree / "elsewhere")
    (tree / "Session2").rename(tree / "aside")
    with pytest.raises(CorpusError, match="Session2 and Session5 are missing"):
        read(tree)
    listing = read(tree, allow_incomplete=True)
    assert len(listing.utterances) == 48
    assert "Session5 0 of 31" in listing.notes[0].reason


def test_a_session_without_files_is_missing(tree: Path) -> None:
    for path in (tree / "Session4").rglob("*.*"):
        path.unlink()
    with pytest.raises(CorpusError, match="Session4 is missing or without files"):
        read(tree)


def test_the_folder_above_the_release_is_named(
    tree: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    above = tmp_path_factory.mktemp("above")
    tree.rename(above / "IEMOCAP_full_release")
    with pytest.raises(CorpusError, match=r"it has the folders IEMOCAP_full_release"):
        read(above)


def test_the_handed_tree_without_a_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(handed_case("iemocap-session-missing", tmp_path))
    assert main(["corpora", "check", "--config", "c.toml"]) == CorpusError.exit_code
    assert "folder 'Session 5': rename it to Session5" in capsys.readouterr().err


def test_the_handed_dialogue_in_utf16(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(handed_case("iemocap-unlabelled-dialogue", tmp_path))
    assert main(["corpora", "check", "--config", "c.toml"]) == 0
    assert "80 utterances of 10 speakers" in capsys.readouterr().out
