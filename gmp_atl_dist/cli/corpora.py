"""``gmp-atl corpora``: list the adapters, check a corpus, write the synthetic one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from gmp_atl_dist.cli.options import ConfigOption, SetOption, load_experiment, local_option
from gmp_atl_dist.cli.tables import print_table
from gmp_atl_dist.errors import ConfigError
from gmp_atl_dist.wording import counted

if TYPE_CHECKING:
    from gmp_atl_dist.config import RunConfig
    from gmp_atl_dist.fold import Fold
    from gmp_atl_dist.records import Utterance

_SHOWN_FOLDS = 20
_SHOWN_SPEAKERS = 6

app = typer.Typer(help="Corpora: list the adapters, check one, write a synthetic one.")


@app.command("list")
def list_() -> int:
    """The corpus adapters that are installed, with languages, speakers and licence of each corpus."""
    from gmp_atl_dist.corpora.cards import all_cards

    rows = [
        (name, card.languages, card.speakers, card.utterances, card.licence, card.summary)
        if card is not None
        else (name, "", "", "", "", "its package has no card")
        for name, card in ((listing.name, listing.card) for listing in all_cards())
    ]
    print_table(("adapter", "languages", "speakers", "utterances", "licence", "what"), rows)
    return 0


@app.command("check")
def check(
    config: ConfigOption,
    set_: SetOption = None,
    audio: Annotated[
        bool, typer.Option("--audio", help="decode every recording too, and print the audio audit")
    ] = False,
) -> int:
    """List a corpus and its folds; every bad item at once. Reads audio only with --audio."""
    from gmp_atl_dist.corpora.reading import read_corpus
    from gmp_atl_dist.records import GENDERS, UNKNOWN_GENDER
    from gmp_atl_dist.stages.planned_folds import cost_warning, folds_of_listing
    from gmp_atl_dist.store.filesystem import Store

    experiment = load_experiment(config, set_, None)
    if experiment.corpora:
        if audio:
            raise ConfigError(
                "--audio checks one corpus at a time; give the configuration of one of [[corpora]]"
            )
        return _check_sources(experiment)
    source = Store.open(experiment.runtime.corpus)
    listing = read_corpus(experiment.corpus, source, gender_needed=experiment.needs_gender)
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
    for note in listing.notes:
        print(f"note: {note}")
    speakers = {u.speaker for u in listing.utterances}
    print(f"{counted(len(listing.utterances), 'utterance')} of {counted(len(speakers), 'speaker')}")
    folds = folds_of_listing(experiment, listing.utterances)
    durations: Mapping[str, float] = {}
    bad = None
    if audio:
        from gmp_atl_dist.cli.corpora_audio import check_and_print

        durations, bad = check_and_print(experiment, listing, source)
    _print_folds(listing.utterances, folds, listing.emotions, durations)
    _print_notes(folds, cost_warning(experiment, len(folds)))
    _check_leaks(experiment, folds)
    if bad is not None:
        raise bad
    return 0


def _check_sources(experiment: RunConfig) -> int:
    """Each of several corpora, the classes in each, and the folds over the labelled ones."""
    from gmp_atl_dist.corpora.sources import list_sources
    from gmp_atl_dist.stages.planned_folds import cost_warning, folds_of_listing

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
    for f in found:
        for note in f.listing.notes:
            print(f"note: {f.source.name}: {note}")
    labelled = [u for f in found if f.source.is_labelled for u in f.utterances]
    folds = folds_of_listing(experiment, labelled)
    _print_folds(labelled, folds, experiment.corpus.emotions)
    _print_notes(folds, cost_warning(experiment, len(folds)))
    _check_leaks(experiment, folds)
    print(
        "A recording that two sources share is found by its samples, once both are ingested: "
        "gmp-atl run refuses it by name."
    )
    return 0


def _check_leaks(experiment: RunConfig, folds: Sequence[Fold]) -> None:
    """Refuse a start model or a codebook that knows test speech; print what is known after ingest only."""
    from gmp_atl_dist.doctor.lineage import LATER, known_of, refuse_leaks

    known = known_of(experiment)
    if known is not None:
        for line in refuse_leaks(experiment, known, lambda: folds):
            print(f"warning: {line}; {LATER}")


def _print_folds(
    utterances: Sequence[Utterance],
    folds: Sequence[Fold],
    emotions: Sequence[str],
    durations: Mapping[str, float] | None = None,
) -> None:
    """Each fold that a run would make. ``durations`` are seconds by utterance id, where known."""
    from gmp_atl_dist.corpora.fold_plan import count_folds

    counts = count_folds(utterances, folds[:_SHOWN_FOLDS], emotions, durations)
    rows = [
        (
            count.fold.name,
            *(str(count.side(name) or "") for name in ("training", "validation", "test")),
            count.absent(),
            ", ".join(count.fold.test_speakers[:_SHOWN_SPEAKERS])
            + (", ..." if len(count.fold.test_speakers) > _SHOWN_SPEAKERS else ""),
        )
        for count in counts
    ]
    headings = ("fold", "training", "validation", "test", "absent classes", "test speakers")
    print_table(headings, rows)
    if len(folds) > _SHOWN_FOLDS:
        print(f"... and {len(folds) - _SHOWN_FOLDS} more folds")


def _print_notes(folds: Sequence[Fold], cost: str | None) -> None:
    """What one should know about the folds, and what many of them cost."""
    for fold in folds:
        shared = {*fold.shared_speakers("train", "test"), *fold.shared_speakers("valid", "test")}
        if shared:
            print(
                f"warning: {fold.name}: {len(shared)} of {len(fold.test_speakers)} test speakers are in "
                f"training or validation too; scores are no estimate for unknown speakers"
            )
        for note in fold.notes:
            print(f"{fold.name}: {note}")
    if cost is not None:
        print(f"warning: {cost}")


@app.command("synth")
def synth(
    out: Annotated[
        Path,
        local_option("folder to write; new, or written by this command"),
    ],
    seed: int = 0,
    utterances: Annotated[int, typer.Option(help="per speaker and emotion")] = 6,
) -> int:
    """Write a small licence-free corpus in IEMOCAP's own tree."""
    from gmp_atl_dist.corpora.synth import write_synthetic_corpus

    count = write_synthetic_corpus(out, seed=seed, utterances_per_speaker_and_emotion=utterances)
    print(f"{counted(count, 'utterance')} in {out}")
    return 0
