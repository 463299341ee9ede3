"""Commands that run stages or look at a root: run, stage, status, verify, predict."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from gmp_atl_dist.cli.options import ConfigOption, RootOption, SetOption, load_experiment
from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.console import Reporter
from gmp_atl_dist.errors import GmpAtlError
from gmp_atl_dist.tags import Tags

if TYPE_CHECKING:
    from gmp_atl_dist.stages.base import Context


@contextmanager
def run_context(config: RunConfig) -> Iterator[Context]:
    """A context whose errors are reported as log lines of the run."""
    from gmp_atl_dist.execution import open_context

    settings = config.runtime
    reporter = Reporter(log_format=settings.log_format, run=settings.run_name)
    try:
        with open_context(config, reporter) as context:
            yield context
    except GmpAtlError as e:
        reporter.error(str(e))
        raise typer.Exit(e.exit_code) from e


def run(config: ConfigOption, set_: SetOption = None, root: RootOption = None) -> int:
    """Run every stage that was not run yet, up to the report."""
    from gmp_atl_dist.execution import run_pipeline
    from gmp_atl_dist.stages.report import HTML_NAME, JSON_NAME

    experiment = load_experiment(config, set_, root)
    with run_context(experiment) as context:
        report = run_pipeline(experiment, context)
    pooled = json.loads(report.read_file(JSON_NAME))["pooled"]["outcome"]
    scores, intervals = pooled["scores"], pooled["intervals"]
    for name in ("war", "uar"):
        low, high = intervals[name]
        context.reporter.line(
            f"{name.upper()} {100 * scores[name]:.1f} % "
            f"({100 * intervals['confidence']:g} % interval {100 * low:.1f} to {100 * high:.1f})"
        )
    context.reporter.line(f"report: {context.store.uri}/{report.key.prefix}/files/{HTML_NAME}")
    return 0


def stage(
    name: Annotated[str, typer.Argument(help="ingest, backbone, warmup, extract, ...")],
    config: ConfigOption,
    set_: SetOption = None,
    root: RootOption = None,
) -> int:
    """Run one stage for every fold; the stages before it must be done."""
    from gmp_atl_dist.execution import run_stage

    experiment = load_experiment(config, set_, root)
    with run_context(experiment) as context:
        run_stage(experiment, context, name)
    return 0


def status(config: ConfigOption, set_: SetOption = None, root: RootOption = None) -> int:
    """Show where every stage stands. Runs nothing."""
    from gmp_atl_dist.execution import survey

    experiment = load_experiment(config, set_, root)
    with run_context(experiment) as context:
        rows = survey(experiment, context)
    table = Table("stage", "state", "artefact", "detail")
    for row in rows:
        table.add_row(row.label, row.state, row.fingerprint[:12], row.detail)
    Console().print(table)
    return 0


def verify(
    config: Annotated[Path | None, typer.Option("--config", "-c", help="for its root")] = None,
    set_: SetOption = None,
    root: RootOption = None,
) -> int:
    """Re-hash every object of every artefact below the root; 4 if one is damaged."""
    from gmp_atl_dist.errors import ArtifactError, ConfigError
    from gmp_atl_dist.store.artifact import find_artifact, list_artifacts
    from gmp_atl_dist.store.filesystem import Store

    if config is not None:
        root = load_experiment(config, set_, root).runtime.root
    if root is None:
        raise ConfigError("nothing to verify; give --root or --config")
    store, reporter = Store.open(root), Reporter()
    problems: list[str] = []
    keys = list_artifacts(store)
    with reporter.bar(Tags(stage="verify")) as bar:
        for number, key in enumerate(keys):
            artifact = find_artifact(store, key)
            problems += artifact.verify() if artifact is not None else []
            bar.update(number + 1, len(keys))
    if problems:
        raise ArtifactError.of_all(f"{store.uri} is damaged:", problems)
    reporter.line(f"{len(keys)} artefacts below {store.uri} are whole")
    return 0


def predict(
    model: Annotated[str, typer.Argument(help="folder or URI of a fine-tuned model")],
    wavs: Annotated[list[Path], typer.Argument(help="recordings in any common format")],
) -> int:
    """Print the probability of every emotion for each recording."""
    from gmp_atl_dist.predict import predict_files

    for path, probabilities in predict_files(model, wavs):
        words = "  ".join(f"{emotion} {p:.3f}" for emotion, p in probabilities.items())
        print(f"{path}: {words}")
    return 0
