"""``gmp-atl corpora``: list the adapters, check a corpus, write the synthetic one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from gmp_atl_dist.cli.options import ConfigOption, SetOption, load_experiment
from gmp_atl_dist.cli.tables import print_table

if TYPE_CHECKING:
    from gmp_atl_dist.config import RunConfig
    from gmp_atl_dist.records import Fold, Utterance

_SHOWN_FOLDS = 20
_SHOWN_SPEAKERS = 6

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
    from gmp_atl_dist.corpora.folds import plan_folds
    from gmp_atl_dist.records import GENDERS, UNKNOWN_GENDER
    from gmp_atl_dist.store.filesystem import Store

    experiment = load_experiment(config, set_, None)
    if experiment.corpora:
        return _check_sources(experiment)
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
    _print_folds(listing.utterances, plan_folds(listing.utterances, experiment.folds))
    return 0


def _check_sources(experiment: RunConfig) -> int:
    """Each of several corpora, the classes in each, and the folds over the labelled ones."""
    from gmp_atl_dist.corpora.folds import plan_folds
    from gmp_atl_dist.corpora.sources import list_sources

    found = list_sources(experiment)
    rows = [
        (
            f.source.name,
            f.source.role,
            str(len(f.utterances)),
            str(len({u.speaker for u in f.utterances})),
            ", ".join(
                f"{emotion} {sum(u.emotion == emotion for u in f.utterances)}"
                for emotion in experiment.corpus.emotions
            )
            if f.source.is_labelled
            else "",
        )
        for f in found
    ]
    print_table(("source", "role", "utterances", "speakers", "classes"), rows)
    for problem in (p for f in found for p in f.problems):
        print(f"dropped: {problem}")
    labelled = [u for f in found if f.source.is_labelled for u in f.utterances]
    _print_folds(labelled, plan_folds(labelled, experiment.folds))
    print(
        "A recording that two sources share is found by its samples, once both are ingested: "
        "gmp-atl run refuses it by name."
    )
    return 0


def _print_folds(utterances: Sequence[Utterance], folds: Sequence[Fold]) -> None:
    """Each fold that a run would make, with the speakers that it is tested on."""
    count = Counter(u.speaker for u in utterances)
    rows = [
        (
            fold.name,
            *(
                f"{sum(count[s] for s in side)} utterances, {len(side)} speakers" if side else ""
                for side in (fold.train_speakers, fold.valid_speakers, fold.test_speakers)
            ),
            ", ".join(fold.test_speakers[:_SHOWN_SPEAKERS])
            + (", ..." if len(fold.test_speakers) > _SHOWN_SPEAKERS else ""),
        )
        for fold in folds[:_SHOWN_FOLDS]
    ]
    print_table(("fold", "training", "validation", "test", "test speakers"), rows)
    if len(folds) > _SHOWN_FOLDS:
        print(f"... and {len(folds) - _SHOWN_FOLDS} more folds")


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
