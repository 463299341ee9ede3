"""Tables and EmoEvaluation files that are damaged, ambiguous, or lead out of the corpus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from support.hostile import Case, Place, check, wav_of

HEADER = "id,path,speaker,gender,emotion"
ROWS = (
    "a,a.wav,s1,female,happy",
    "b,b.wav,s1,female,sad",
    "c,c.wav,s2,male,happy",
    "d,d.wav,s2,male,sad",
)
RUN = """[corpus]
adapter = "{adapter}"
max_bad_fraction = 0
{more}
[folds]
by = "speaker"
[model]
source = "random:tiny"
[runtime]
corpus = "{folder}/corpus"
root = "{folder}/root"
"""


def checked(place: Place, adapter: str, more: str = "") -> list[str]:
    text = RUN.format(adapter=adapter, more=more, folder=place.folder)
    return ["corpora", "check", "--config", str(place.write("run.toml", text))]


def of_table(data: bytes | str, more: str = "") -> Callable[[Place], Sequence[str]]:
    """A corpus of the recordings ``a.wav`` to ``e.wav`` with this table."""

    def make(place: Place) -> Sequence[str]:
        for seed, name in enumerate("abcde"):
            place.write(f"corpus/{name}.wav", wav_of(seed=seed))
        place.write("corpus/manifest.csv", data)
        return checked(place, "table", more)

    return make


def of_rows(*rows: str, header: str = HEADER, more: str = "") -> Callable[[Place], Sequence[str]]:
    return of_table("\n".join([header, *rows]) + "\n", more)


def and_row(row: str) -> Callable[[Place], Sequence[str]]:
    """The good rows, and this one."""
    return of_rows(*ROWS, row)


def without_table(place: Place) -> Sequence[str]:
    words = of_rows(*ROWS)(place)
    (place.folder / "corpus/manifest.csv").unlink()
    return words


def of_parquet(place: Place) -> Sequence[str]:
    of_rows(*ROWS)(place)
    place.write("corpus/t.parquet", b"PAR1" + b"\xff" * 200 + b"PAR1")
    return checked(place, "table", 'table = "t.parquet"')


VOTES = (
    "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
    "[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]\n"
    "C-E2:\tNeutral;\t()\n\n"
    "[10.0100 - 11.3925]\tSes01F_impro01_M000\texc\t[2.5000, 2.5000, 2.5000]\n"
)
TURN = "[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]"


def of_votes(text: str | bytes, *, incomplete: bool = True) -> Callable[[Place], Sequence[str]]:
    """A tree of IEMOCAP with one file of votes."""

    def make(place: Place) -> Sequence[str]:
        session = "corpus/Session1"
        for name in ("F000", "M000"):
            wav = f"{session}/sentences/wav/Ses01F_impro01/Ses01F_impro01_{name}.wav"
            place.write(wav, wav_of())
        place.write(f"{session}/dialog/EmoEvaluation/Ses01F_impro01.txt", text)
        return checked(place, "iemocap", "allow_incomplete = true" if incomplete else "")

    return make


def no_tree(place: Place) -> Sequence[str]:
    place.write("corpus/readme.txt", "Nothing here.")
    return checked(place, "iemocap")


FILE = "Ses01F_impro01.txt"

CASES = [
    Case(
        "no-table",
        without_table,
        "cannot read 'manifest.csv'",
        "name a file below runtime.corpus",
        2,
    ),
    Case("empty-table", of_table(""), "manifest.csv", "write it again as UTF-8", 3),
    Case(
        "header-alone", of_rows(), "", "check runtime.corpus, corpus.adapter and corpus.emotions", 3
    ),
    Case(
        "utf-16",
        of_table("\n".join([HEADER, *ROWS]).encode("utf-16")),
        "manifest.csv",
        "iconv -f UTF-16 -t UTF-8",
        3,
    ),
    Case(
        "latin-1",
        of_table(f"{HEADER}\na,a.wav,M\xfcller,male,sad\n".encode("latin-1")),
        "manifest.csv",
        "iconv -f WINDOWS-1252",
        3,
    ),
    Case("zero-bytes", of_table(b"\0" * 500), "manifest.csv", "write it again as UTF-8", 3),
    Case("binary", of_table(bytes(range(256)) * 20), "manifest.csv", "write it again as UTF-8", 3),
    Case(
        "no-speaker",
        of_rows("a,a.wav,happy", header="id,path,emotion"),
        "column 'speaker'",
        "corpus.columns.speaker",
        2,
    ),
    Case(
        "column-twice",
        of_rows("a,a.wav,s,male,sad,x", header=f"{HEADER},speaker"),
        "'speaker' occurs 2 times",
        "keep one",
        2,
    ),
    Case("short-row", and_row("e,e.wav"), "manifest.csv", "write it again", 3),
    Case("long-row", and_row("e,e.wav,s2,male,sad,more"), "manifest.csv", "write it again", 3),
    Case(
        "open-quote", and_row('"e,e.wav,s2,male,sad'), "manifest.csv", "write it again as UTF-8", 3
    ),
    Case(
        "no-id", and_row(",e.wav,s2,male,sad"), "has no id (its audio is 'e.wav')", "give it one", 3
    ),
    Case("id-twice", and_row("a,e.wav,s2,male,sad"), "'a'", "make ids unique", 3),
    Case(
        "no-emotion",
        and_row("e,e.wav,s2,male,"),
        "row 5 (id 'e')",
        "fill it in or remove the row",
        3,
    ),
    Case("no-path", and_row("e,,s2,male,sad"), "'e'", "give a path relative to its root", 3),
    Case("other-gender", and_row("e,e.wav,s2,robot,sad"), "'robot'", "use female or male", 3),
    Case(
        "path-up",
        and_row("e,../../etc/passwd,s2,male,sad"),
        "'../../etc/passwd' leaves the corpus",
        "give a path relative",
        3,
    ),
    Case(
        "path-absolute", and_row("e,/etc/passwd,s2,male,sad"), "/etc/passwd", "corpus.audio_root", 3
    ),
    Case(
        "path-uri",
        and_row("e,http://x/y.wav,s2,male,sad"),
        "http://x/y.wav",
        "corpus.audio_root",
        3,
    ),
    Case(
        "path-zero",
        of_table("\n".join([HEADER, *ROWS, "e,e\0.wav,s2,male,sad\n"])),
        "line 6, byte 123 is a zero byte",
        "write it again as UTF-8",
        3,
    ),
    Case(
        "path-is-folder", and_row("e,.,s2,male,sad"), "'e'", "give a path relative to its root", 3
    ),
    Case(
        "path-too-long",
        and_row(f"e,{'x' * 5_000}.wav,s2,male,sad"),
        "'e'",
        "copy it there or correct the path",
        3,
    ),
    Case("damaged-parquet", of_parquet, "t.parquet: cannot be read", "as Parquet", 3),
    Case(
        "unknown-suffix",
        of_table("", 'table = "manifest.xlsx"'),
        "'manifest.xlsx' is neither",
        "convert it",
        2,
    ),
    Case(
        "table-is-folder",
        of_table("", 'table = "a.csv/x.csv"'),
        "a.csv/x.csv",
        "name a file below runtime.corpus",
        2,
    ),
    Case(
        "unknown-column",
        of_rows(*ROWS, more='columns = {colour = "x"}'),
        "corpus.columns.colour",
        "known are id, path",
        2,
    ),
    Case(
        "unknown-class",
        of_rows(*ROWS, more='emotions = ["happy"]'),
        "sad",
        "corpus.ignore_other_emotions",
        3,
    ),
    Case("unknown-adapter", lambda place: checked(place, "emodbb"), "corpus.adapter", "emodb", 2),
    Case(
        "unknown-option",
        of_rows(*ROWS, more="options = {x = 1}"),
        "corpus.options",
        "it has no option",
        2,
    ),
    Case(
        "no-iemocap",
        no_tree,
        "there is no SessionN/dialog/EmoEvaluation/*.txt",
        "set runtime.corpus",
        3,
    ),
    Case(
        "one-session", of_votes(VOTES, incomplete=False), "Session2", "corpus.allow_incomplete", 3
    ),
    Case("no-votes", of_votes(""), FILE, "copy that file again from the release", 3),
    Case(
        "votes-binary",
        of_votes(b"\xff\xfe\xff\xff" * 50),
        FILE,
        "copy that file again from the release",
        3,
    ),
    Case("votes-zeros", of_votes(bytes(500)), FILE, "copy that file again from the release", 3),
    Case("vote-cut", of_votes(VOTES[:-50]), FILE, "copy that file again from the release", 3),
    Case(
        "vote-without-times",
        of_votes(VOTES.replace("[6.2901 - 8.2357]", "[]")),
        FILE,
        "cannot be read as '[start - end] utterance emotion",
        3,
    ),
    Case(
        "vote-of-unknown-class",
        of_votes(VOTES.replace("neu", "zzz")),
        "zzz",
        "known are neu, hap",
        3,
    ),
    Case(
        "vote-of-nobody",
        of_votes(VOTES.replace("_F000", "_X000")),
        "X000",
        "such as Ses01F_impro01_M003",
        3,
    ),
    Case("vote-twice", of_votes(VOTES + TURN + "\n"), "Ses01F_impro01_F000", "make ids unique", 3),
    Case(
        "two-votes",
        of_votes(VOTES + TURN.replace("neu", "sad") + "\n"),
        "Ses01F_impro01_F000",
        "make ids unique",
        3,
    ),
    Case(
        "vote-leads-out",
        of_votes(VOTES.replace("Ses01F_impro01_F000", "../../x_F000")),
        "x_F000",
        "such as Ses01F_impro01_M003",
        3,
    ),
    Case(
        "vote-for-nothing",
        of_votes(VOTES.replace("_F000", "_F009")),
        "F009",
        "copy that file again from the release",
        3,
    ),
    Case(
        "vote-infinite-line",
        of_votes(VOTES + "[" + "9" * 200_000 + " - 1]\tx\tneu\t[1,1,1]\n"),
        FILE,
        "such as Ses01F_impro01_M003",
        3,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_labels_are_refused(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path)
