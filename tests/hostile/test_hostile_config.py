"""Configurations that are damaged, wrong or made to break the reader."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from support.hostile import Case, Place, check

FINE = '[corpus]\nadapter = "table"\n[model]\nsource = "random:tiny"\n'


def of_text(text: str | bytes) -> Callable[[Place], Sequence[str]]:
    return lambda place: ["config", "check", "--config", str(place.write("run.toml", text))]


def of_set(*settings: str) -> Callable[[Place], Sequence[str]]:
    def make(place: Place) -> Sequence[str]:
        words = ["config", "check", "--config", str(place.write("run.toml", FINE))]
        return [*words, *(word for setting in settings for word in ("--set", setting))]

    return make


def chain(length: int) -> Callable[[Place], Sequence[str]]:
    """Files of which each extends the next."""

    def make(place: Place) -> Sequence[str]:
        for number in range(length):
            place.write(f"c{number}.toml", f'extends = "c{number + 1}.toml"\n')
        place.write(f"c{length}.toml", FINE)
        return ["config", "check", "--config", str(place.folder / "c0.toml")]

    return make


def of_file(name: str, *words: str) -> Callable[[Place], Sequence[str]]:
    return lambda place: ["config", "check", "--config", str(place.folder / name), *words]


DEEP = "a = " + "[" * 50_000
KEYS = ".".join(["a"] * 1_500)

CASES = [
    Case(
        "no-file",
        of_file("absent.toml"),
        "absent.toml: cannot be read",
        "give an existing TOML file",
        2,
    ),
    Case(
        "a-folder", of_file(""), "cannot be read (Is a directory)", "give an existing TOML file", 2
    ),
    Case(
        "no-toml",
        of_text("corpus"),
        "run.toml: is not TOML: Expected '='",
        "a quotation mark or bracket is not closed",
        2,
    ),
    Case(
        "no-quotes",
        of_text("[model]\nsource = random:tiny\n"),
        "is not TOML",
        "text needs quotation marks",
        2,
    ),
    Case("open-quote", of_text('[model]\nsource = "random'), "is not TOML", "line 2", 2),
    Case(
        "not-utf-8", of_text(b"# M\xfcller\n"), "byte 3 is not UTF-8", "save the file as UTF-8", 2
    ),
    Case(
        "utf-16", of_text(FINE.encode("utf-16")), "byte 0 is not UTF-8", "save the file as UTF-8", 2
    ),
    Case("zero-bytes", of_text("[model]\nseed = 1\x00\n"), "is not TOML", "line 2", 2),
    Case("key-twice", of_text("[model]\nseed = 1\nseed = 2\n"), "is not TOML", "line 3", 2),
    Case("section-twice", of_text("[model]\n[model]\n"), "is not TOML", "line 2", 2),
    Case(
        "deep-lists",
        of_text(DEEP),
        "run.toml: its brackets are nested too deeply",
        "remove the others",
        2,
    ),
    Case(
        "deep-tables",
        of_text("a = " + "{a = " * 50_000),
        "nested too deeply",
        "remove the others",
        2,
    ),
    Case("deep-set", of_set("model.seed=" + "[" * 50_000), "--set", "remove the others", 2),
    Case("deep-keys", of_text(f"{KEYS} = 1\n"), "nested too deeply", "remove the others", 2),
    Case(
        "deep-set-keys", of_set(f"{KEYS}=1"), "--set: a key of 1500 steps", "remove the others", 2
    ),
    Case(
        "huge-number",
        of_text(f"[model]\nseed = {'9' * 5000}\n"),
        "run.toml: is not TOML",
        "at most",
        2,
    ),
    Case("huge-set", of_set(f"model.seed={'9' * 5000}"), "--set", "at most", 2),
    Case("unknown-section", of_text(FINE + "[modell]\nseed = 1\n"), "modell", "model", 2),
    Case(
        "unknown-key",
        of_text(FINE + "[warmup]\nlearning_rate = 1\n"),
        "warmup.learning_rate: unknown key",
        "known here: adam_eps",
        2,
    ),
    Case(
        "text-for-number",
        of_set('warmup.epochs="many"'),
        "warmup.epochs",
        "expected a whole number",
        2,
    ),
    Case(
        "fraction-for-number",
        of_set("warmup.epochs=1.5"),
        "warmup.epochs",
        "expected a whole number",
        2,
    ),
    Case("list-for-text", of_set("model.source=[1]"), "model.source", "expected text", 2),
    Case("date-for-text", of_set("model.source=2020-01-01"), "model.source", "expected text", 2),
    Case("value-for-section", of_text('corpus = "emodb"\n'), "corpus", "expected a section", 2),
    Case(
        "not-a-number", of_set("warmup.lr=nan"), "warmup.lr = nan", "expected a number above 0", 2
    ),
    Case("infinite", of_set("warmup.lr=inf"), "warmup.lr = inf", "expected a number above 0", 2),
    Case("negative", of_set("warmup.lr=-1"), "warmup.lr = -1", "expected a number above 0", 2),
    Case("no-equals", of_set("warmup.lr"), "--set warmup.lr", "of the form a.b=c", 2),
    Case("empty-step", of_set("warmup..lr=1"), "--set warmup..lr=1", "of the form a.b=c", 2),
    Case(
        "value-as-section",
        of_set("model.seed.x=1"),
        "model.seed = { x = 1 }",
        "expected a whole number",
        2,
    ),
    Case(
        "extends-itself",
        of_text('extends = "run.toml"\n'),
        "closes a circle",
        "remove one of them",
        2,
    ),
    Case(
        "extends-number",
        of_text("extends = 3\n"),
        "extends = 3",
        "expected the path of a TOML file",
        2,
    ),
    Case(
        "extends-nothing",
        of_text('extends = "gone.toml"\n'),
        "gone.toml",
        "give an existing TOML file",
        2,
    ),
    Case("extends-long-chain", chain(600), "extends", "at most", 2),
    Case(
        "empty-source",
        of_set('model.source=""'),
        "model.source",
        "look whether a variable is unset",
        2,
    ),
    Case(
        "hub-uri-as-model",
        of_set('model.source="hf:/x"'),
        "'hf:/x' is no model",
        "e.g. OWNER/NAME",
        2,
    ),
    Case(
        "hub-uri-of-model",
        of_set('model.source="hf://a/b"'),
        "'hf://a/b' is no model",
        "e.g. a/b",
        2,
    ),
    Case("one-slash", of_set('runtime.root="s3:/b/x"'), "runtime.root", "write s3://b/x", 2),
    Case("zero-in-path", of_set('runtime.root="a\\u0000b"'), "runtime.root", "zero byte", 2),
    Case(
        "no-workers",
        of_set("runtime.train.workers=0"),
        "runtime.train.workers = 0",
        "expected a whole number of at least 1",
        2,
    ),
    Case(
        "share-above-1",
        of_set("corpus.max_bad_fraction=2"),
        "corpus.max_bad_fraction = 2",
        "expected a number from 0 to 1",
        2,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_configuration_is_refused(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path)
