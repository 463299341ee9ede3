"""``gmp-atl corpora``: list the adapters, check a corpus, write the synthetic one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from gmp_atl_dist.cli.options import ConfigOption, SetOption, load_experiment

app = typer.Typer(help="Corpora: list the adapters, check one, write a synthetic one.")


@app.command("list")
def list_() -> int:
    """Name the corpus adapters that are installed."""
    from gmp_atl_dist.corpora.base import adapter_names

    print("\n".join(adapter_names()))
    return 0


@app.command("check")
def check(config: ConfigOption, set_: SetOption = None) -> int:
    """List a corpus and its folds without reading audio; every bad item at once."""
    from gmp_atl_dist.corpora.base import read_corpus
    from gmp_atl_dist.records import GENDERS, UNKNOWN_GENDER
    from gmp_atl_dist.store.filesystem import Store

    experiment = load_experiment(config, set_, None)
    listing = read_corpus(
        experiment.corpus,
        Store.open(experiment.runtime.corpus),
        gender_needed=experiment.needs_gender,
    )
    untold = any(u.gender == UNKNOWN_GENDER for u in listing.utterances)
    genders = (*GENDERS, UNKNOWN_GENDER) if untold else GENDERS
    table = Table("emotion", *genders, "speakers")
    for emotion in listing.emotions:
        mine = [u for u in listing.utterances if u.emotion == emotion]
        table.add_row(
            emotion,
            *(str(sum(u.gender == g for u in mine)) for g in genders),
            str(len({u.speaker for u in mine})),
        )
    Console().print(table)
    for problem in listing.problems:
        print(f"dropped: {problem}")
    speakers = {u.speaker for u in listing.utterances}
    print(f"{len(listing.utterances)} utterances of {len(speakers)} speakers")
    return 0


@app.command("synth")
def synth(
    out: Annotated[Path, typer.Option(help="folder to write; new, or written by this command")],
    seed: int = 0,
    utterances: Annotated[int, typer.Option(help="per speaker and emotion")] = 6,
) -> int:
    """Write a small licence-free corpus in IEMOCAP's own tree."""
    from gmp_atl_dist.corpora.synth import write_synthetic_corpus

    count = write_synthetic_corpus(out, seed=seed, utterances_per_speaker_and_emotion=utterances)
    print(f"{count} utterances in {out}")
    return 0
