"""``gmp-atl compare``: runs of any roots, with intervals and paired tests."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from gmp_atl_dist.cli.options import local_option
from gmp_atl_dist.cli.tables import print_table
from gmp_atl_dist.errors import ArtifactError, ConfigError

if TYPE_CHECKING:
    from gmp_atl_dist.comparison.comparing import ComparedRuns
    from gmp_atl_dist.statistics.breakdown import By

_BREAKDOWNS = ("fold", "class", "gender", "speaker", "corpus")


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="two or more: the name of a run, ROOT/runs/NAME, a report.json, a configuration, or the "
            "fingerprint of an evaluate artefact; or a sweep, for all of its arms, or SWEEP:ARM",
        ),
    ],
    root: Annotated[
        list[str] | None,
        typer.Option(
            help="folder or URI (s3://, gs://, az://) where names are looked up; repeatable"
        ),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="the run that the others are compared with; the first")
    ] = None,
    no_group: Annotated[
        bool,
        typer.Option("--no-group", help="runs that differ in seeds only are arms of their own"),
    ] = False,
    across_protocols: Annotated[
        bool, typer.Option("--across-protocols", help="compare different protocols, and mark it")
    ] = False,
    by: Annotated[
        str | None, typer.Option(help=f"also show the scores by one of {', '.join(_BREAKDOWNS)}")
    ] = None,
    samples: Annotated[int, typer.Option(min=100, help="resamples of the bootstrap")] = 10_000,
    confidence: Annotated[float, typer.Option(help="of the intervals, between 0 and 1")] = 0.95,
    seed: Annotated[int, typer.Option(help="random seed of the resampling")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="for machines; everything")] = False,
    csv: Annotated[Path | None, local_option("write the table as CSV")] = None,
    latex: Annotated[Path | None, local_option("write the table as LaTeX")] = None,
    markdown: Annotated[Path | None, local_option("write the table as Markdown")] = None,
) -> int:
    """Compare runs: scores with intervals, differences to the first, paired tests, seeds grouped."""
    from gmp_atl_dist.comparison import tables
    from gmp_atl_dist.comparison.comparing import ONE_RUN, compare_runs
    from gmp_atl_dist.statistics.bootstrap import Resampling
    from gmp_atl_dist.sweeps.compared import resolve_all

    breakdown = _breakdown(by)
    if not 0 < confidence < 1:
        raise ConfigError(f"--confidence {confidence:g}: give a value between 0 and 1, e.g. 0.95")
    named = [run for reference in runs for run in resolve_all(reference, root or ())]
    if len(named) < 2:
        raise ConfigError(ONE_RUN)
    found = compare_runs(
        named,
        Resampling(samples, confidence, seed),
        baseline=baseline,
        by_seed=not no_group,
        across_protocols=across_protocols,
    )
    files: list[tuple[Path | None, Callable[[ComparedRuns], bytes]]] = [
        (csv, tables.to_csv),
        (latex, tables.to_latex),
        (markdown, tables.to_markdown),
    ]
    for path, made in files:
        if path is not None:
            _write(path, made(found))
    if as_json:
        print(json.dumps(tables.as_json(found), allow_nan=False))
        return 0
    _show(found, breakdown)
    return 0


def _show(found: ComparedRuns, by: By | None) -> None:
    from gmp_atl_dist.comparison import tables

    comparison = found.comparison
    console = Console(highlight=False)
    console.print(
        Text(
            f"{len(comparison.arms)} arms on the same {comparison.num_utterances:,} test utterances of "
            f"{comparison.num_speakers} speakers; {100 * comparison.confidence:g} % intervals"
        ),
        soft_wrap=True,
    )
    print_table(tables.headings(found), tables.rows(found))
    if by is not None:
        shown = tables.part_rows(found, by)
        if shown:
            console.print(Text(tables.part_note(by)), soft_wrap=True)
            print_table(tables.part_headings(found, by), shown)
        else:
            console.print(Text(f"No {by} is known of these utterances."), soft_wrap=True)
    for sentence in comparison.sentences:
        console.print(Text(f"- {sentence}"), soft_wrap=True)


def _breakdown(by: str | None) -> By | None:
    from gmp_atl_dist.statistics.breakdown import BREAKDOWNS

    for known in BREAKDOWNS:
        if by == known:
            return known
    if by is not None:
        raise ConfigError(f"--by {by}: give one of {', '.join(BREAKDOWNS)}")
    return None


def _write(path: Path, data: bytes) -> None:
    """Completely or not at all, over an older file."""
    temporary = path.with_name(f".{path.name}.tmp-{uuid.uuid4().hex[:8]}")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as e:
        temporary.unlink(missing_ok=True)
        raise ArtifactError(f"{path}: cannot be written ({e.strerror})") from e
