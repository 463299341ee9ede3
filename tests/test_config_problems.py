"""Every key is described, and no error about a key has the words of the library that checks it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from pydantic import BaseModel

from gmp_atl_dist.cli.main import main
from gmp_atl_dist.config import RunConfig, Scale, Section
from gmp_atl_dist.config.file import load_config, parse_config
from gmp_atl_dist.config.reference import reference
from gmp_atl_dist.errors import ConfigError

LIBRARY = re.compile(
    r"Input should|validation error|type=|https?://errors|pydantic|valid (?:string|integer|number|"
    r"boolean|tuple|dictionary)|Extra inputs|Field required|Value error|Assertion"
)
SHORTEST_DESCRIPTION = 15
WRONG = {
    "date": date(2026, 1, 2),
    "table": {"surely": {"not": 1}},
    "list of tables": [{"a": [True]}],
    "truth": True,
    "negative": -1.5,
    "text": "surely not",
    "nested": [[[["a"]]]],
    "infinite": float("inf"),
}


def keys(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        yield (*path, name)
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from keys(kind, (*path, name))


KEYS = list(keys(RunConfig))


def sections() -> Iterator[type[BaseModel]]:
    below = list(Section.__subclasses__())
    while below:
        section = below.pop()
        if section.__module__.startswith("gmp_atl_dist."):
            yield section
        below += section.__subclasses__()


def document(path: tuple[str, ...], value: object) -> dict[str, object]:
    for name in reversed(path):
        value = {name: value}
    assert isinstance(value, dict)
    return value


def refused(raw: dict[str, object]) -> str:
    """The message, or nothing where the value is one that this key may have."""
    try:
        parse_config(raw, "x.toml")
    except ConfigError as e:
        return e.message
    return ""


def test_every_key_of_every_section_is_described() -> None:
    short = [
        f"{section.__name__}.{name}"
        for section in sections()
        for name, field in section.model_fields.items()
        if not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel))
        and len(field.description or "") < SHORTEST_DESCRIPTION
    ]
    assert not short
    for section in sections():
        assert section.__doc__
        assert '"' not in section.__doc__.replace('"random', ""), section


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_value_of_any_key_is_named_in_our_words(wrong: str) -> None:
    refusals = 0
    for path in KEYS:
        said = refused(document(path, WRONG[wrong]))
        refusals += bool(said)
        if said:
            assert ".".join(path) in said or path[-1] in said, said
            assert not LIBRARY.search(said), said
    assert refusals > len(KEYS) / 5, "most keys refuse it"


@pytest.mark.parametrize("path", KEYS, ids=".".join)
def test_a_date_is_no_value_of_any_key(path: tuple[str, ...]) -> None:
    said = refused(document(path, WRONG["date"]))
    assert f"x.toml: {'.'.join(path)} = 2026-01-02: expected " in said


@pytest.mark.parametrize("name", Scale.model_fields)
def test_keys_of_tables_in_lists_are_named_with_their_place(name: str) -> None:
    scale = {"layer": 6, "k": 5, name: [1]}
    said = refused({"cluster": {"scales": [scale]}, "extract": {"layers": [6]}})
    assert f"x.toml: cluster.scales[0].{name} = [1]: expected " in said
    assert len(said.splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[folds]\nheld_out = ['a', 'b']",
            "folds.held_out = ['a', 'b']: expected a list of lists, each item text; write "
            "held_out = [['a', 'b']] for one group of them all, or held_out = [['a'], ['b']] for a "
            "group each",
        ),
        ("[folds]\nrun = 1", "each item a whole number of at least 1; write run = [1]"),
        (
            "[warmup]\nlrr = 1",
            "warmup.lrr: unknown key; did you mean lr? known here: adam_eps, batch_s, ",
        ),
        ("[warmup]\nBatch-S = 1", "did you mean batch_s?"),
        (
            "[model]\nk = 50",
            "model.k: unknown key; did you mean folds.k or pretrain.k? known here: ",
        ),
        ("[runtime.trian]\ncpus = 1", "runtime.trian: unknown key; did you mean train?"),
        (
            "[runtime.train]\nworkers = 'two'",
            "runtime.train.workers = 'two': expected a whole number of at least 1, or [fewest, most]",
        ),
        ("[warmup]\nepochs = true", "warmup.epochs = true: expected a whole number of at least 1"),
        ("[warmup]\nlr = '1e-4'", "warmup.lr = '1e-4': expected a number above 0"),
        ("[warmup]\nfreeze_conv = 1", "warmup.freeze_conv = 1: expected true or false"),
        ("[model]\nrevision = 17", "text needs quotation marks: revision = '17'"),
        ("[corpus]\nemotions = 'sad'", "each item text; write emotions = ['sad']"),
        (
            "[cluster]\ngender = 'multi_task'",
            "expected 'multitask', 'by_gender' or 'none'; did you mean 'multitask'?",
        ),
        ("[cluster]\nscales = [{ layer = 6 }]", "cluster.scales[0].k: is needed; give a whole "),
        ("[warmup]\nbetas = [0.9]", "a list of 2 values, each a number from 0 to 1"),
        ("[corpus.merge]\na = 3", "corpus.merge.a = 3: expected text"),
        ("[runtime.root]\na = 3", "runtime.root = { a = 3 }: expected text; root is a key and no"),
    ],
)
def test_a_slip_is_answered_with_what_was_probably_meant(text: str, said: str) -> None:
    message = refused(tomllib.loads(text))
    assert said in message
    assert len(message.splitlines()) == 2, message


def test_what_the_command_line_set_is_named_by_its_option(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text("[warmup]\nlr = 'x'\n")
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "x.toml", ["folds.valid=soon", "cluster.scales[0].k=3"])
    assert f"- {tmp_path}/x.toml: warmup.lr = 'x': " in caught.value.message
    assert "- --set folds.valid=soon: folds.valid = 'soon': expected " in caught.value.message
    assert "a list is set as a whole: scales = [...]" in caught.value.message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[model]\nsource = random:mini\n", 'source = random:mini\ntext needs quotation marks: "r'),
        ("[model]\nseed = 1\nseed = 2\n", "(at line 3, column 9)\n  seed = 2"),
        ("[model]\nsource = 'a\nseed = 1\n", "not closed, perhaps in line 2\n  source = 'a"),
        ("[folds]\nrun = [1", "a quotation mark or bracket is not closed"),
    ],
)
def test_the_line_that_is_not_toml_is_shown(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"x\.toml: is not TOML: ") as caught:
        load_config(tmp_path / "x.toml")
    assert said in caught.value.message


def test_the_reference_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "schema", "--markdown"]) == 0
    printed = capsys.readouterr().out
    assert printed == reference()
    for path in KEYS:
        assert f"`{path[-1]}`" in printed or f"`[{'.'.join(path)}]`" in printed
