"""``gmp-atl config``: list the shipped configurations, write or check one, print the schema."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from gmp_atl_dist.cli.options import (
    ConfigOption,
    SetOption,
    load_experiment_with_notes,
    local_option,
)
from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.errors import ConfigError, CorpusError
from gmp_atl_dist.redaction import say_error
from gmp_atl_dist.shipped import shipped_configs, shipped_sweeps, summary_of

app = typer.Typer(
    help="Configurations: list the shipped ones, write or check one, print the schema."
)


@app.command("list")
def list_() -> int:
    """List the shipped configurations, and the sweeps behind them; --config takes their names."""
    files = shipped_configs() | shipped_sweeps()
    width = max(map(len, files), default=0)
    for name, path in files.items():
        print(f"{name:{width}}  {summary_of(path)}")
    return 0


@app.command("check")
def check(config: ConfigOption, set_: SetOption = None) -> int:
    """Check a configuration and print all of it, defaults included, as JSON."""
    experiment, notes = load_experiment_with_notes(config, set_, None)
    print(experiment.model_dump_json(indent=2))
    for note in notes:
        say_error(f"warning: {note}")
    return 0


@app.command("schema")
def schema(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="print the reference of all keys as Markdown")
    ] = False,
) -> int:
    """Print the JSON schema of a configuration, or a reference of all keys."""
    if markdown:
        from gmp_atl_dist.config.reference import reference

        print(reference(), end="")
        return 0
    print(json.dumps(RunConfig.model_json_schema(), indent=2))
    return 0


@app.command("init")
def init(
    corpus: Annotated[str, typer.Option(help="folder, table or s3:// URI of the recordings")],
    table: Annotated[str, typer.Option(help="table outside --corpus: absolute path or URI")] = "",
    column: Annotated[
        list[str] | None,
        typer.Option(help="our column = the table's, e.g. emotion=arousal_word; may be repeated"),
    ] = None,
    audio_root: Annotated[
        str, typer.Option(help="folder or URI that absolute paths in the table begin with")
    ] = "",
    hours: Annotated[float, typer.Option(min=0.01, help="time that a run may take")] = 1.0,
    out: Annotated[Path, local_option("file to write")] = Path("experiment.toml"),
    root: Annotated[str | None, typer.Option(help="runtime.root; default: runs/NAME")] = None,
    force: Annotated[bool, typer.Option("--force", help="overwrite the file")] = False,
) -> int:
    """Write a configuration for a corpus, for this machine and for a time, with comments.

    Trains models of random weights for some seconds to measure how fast this machine is.
    """
    from gmp_atl_dist.config.file import load_config
    from gmp_atl_dist.corpora.reading import read_corpus
    from gmp_atl_dist.starter.find_corpus import Hints, find_corpus
    from gmp_atl_dist.starter.machine import measured_rate, this_machine
    from gmp_atl_dist.starter.plan import make_plan
    from gmp_atl_dist.starter.write import configuration, summary
    from gmp_atl_dist.store.filesystem import Store

    if out.exists() and not force:
        raise ConfigError(f"--out {out}: is there already; give another name, or --force")
    hints = Hints(table and _absolute(table), _columns(column or ()), audio_root)
    found = find_corpus(corpus, hints)
    if len(found.speakers) < 2:
        raise CorpusError(
            f"--corpus {corpus}: has one speaker only ({', '.join(found.speakers)}); one to train on and one "
            f"to test on are needed"
        )
    machine = this_machine()
    plan = make_plan(found, machine, hours, measured_rate)
    text = configuration(found, machine, plan, hours, root or f"runs/{out.stem}")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    checked = load_config(out)
    read_corpus(
        checked.corpus, Store.open(checked.runtime.corpus), gender_needed=checked.needs_gender
    )
    print("\n".join(summary(found, machine, plan, hours)))
    print(f"Written: {out}. Next: gmp-atl run --config {out}")
    return 0


def _absolute(table: str) -> str:
    return table if "://" in table else str(Path(table).absolute())


def _columns(given: Sequence[str]) -> dict[str, str]:
    """``--column OURS=THEIRS``, each once."""
    from gmp_atl_dist.starter.find_corpus import SPELLINGS

    columns: dict[str, str] = {}
    for text in given:
        ours, equals, theirs = (part.strip() for part in text.partition("="))
        if not (equals and theirs) or ours not in SPELLINGS or ours in columns:
            raise ConfigError(
                f"--column {text}: write OURS=THEIRS, each of ours once; ours are {', '.join(SPELLINGS)}"
            )
        columns[ours] = theirs
    return columns
