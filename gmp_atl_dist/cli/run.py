"""Commands that run stages or look at a root: run, stage, verify, predict."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperArgument, TyperCommand

from gmp_atl_dist.cli.options import ConfigOption, RootOption, SetOption, load_experiment
from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.console import Reporter, log_line
from gmp_atl_dist.errors import GmpAtlError
from gmp_atl_dist.run_log import FOLDER, RunLog
from gmp_atl_dist.tags import Tags

_UPLOAD_TIMEOUT_S = 10.0

if TYPE_CHECKING:
    from gmp_atl_dist.stages.base import Context


@contextmanager
def run_context(config: RunConfig) -> Iterator[Context]:
    """The context of a command that runs stages. What libraries print goes to the run's log file."""
    from gmp_atl_dist.execution import open_context

    settings = config.runtime
    with RunLog(settings.root) as log:
        reporter = Reporter(
            log_format=settings.log_format, run=settings.run_name, out=log.out, err=log.err
        )
        log.show_warnings(reporter.warning)
        try:
            with open_context(config, reporter) as context:
                yield context
        except GmpAtlError as e:
            reporter.error(str(e), _published(log, settings.root))
            raise typer.Exit(e.exit_code) from e
        except Exception:
            # A defect of ours. Python prints its traceback after this line.
            if place := _published(log, settings.root):
                print(log_line(place), file=log.err)
            raise
        if place := _published(log, settings.root):
            reporter.line(log_line(place))


def _published(log: RunLog, root: str) -> str:
    """Where the log file is; empty if nothing was printed.

    Below a remote root a copy outlives this machine. Without it, the file of this machine is named.
    """
    from gmp_atl_dist.store.filesystem import Store

    if log.is_empty:
        return ""
    if "://" in root and not root.startswith("file://"):
        # A store that does not answer may be why the run failed: ask it briefly.
        with suppress(GmpAtlError):
            store = Store.open(root, timeout_s=_UPLOAD_TIMEOUT_S)
            store.put(f"{FOLDER}/{log.path.name}", log.path.read_bytes())
            return f"{store.uri}/{FOLDER}/{log.path.name}"
    return str(log.path)


def run(config: ConfigOption, set_: SetOption = None, root: RootOption = None) -> int:
    """Run every stage that is not done yet, up to the report."""
    from gmp_atl_dist.execution import run_pipeline
    from gmp_atl_dist.run_names import named
    from gmp_atl_dist.run_recorder import RunRecorder
    from gmp_atl_dist.stages.report import HTML_NAME, JSON_NAME

    experiment = named(load_experiment(config, set_, root), config)
    with (
        run_context(experiment) as context,
        RunRecorder(experiment, context, config) as recorder,
    ):
        report = run_pipeline(experiment, context, [recorder])
        pooled = json.loads(report.read_file(JSON_NAME))["pooled"]["outcome"]
        address = f"{context.store.uri}/{report.key.prefix}/files/{HTML_NAME}"
    reporter = Reporter(log_format=experiment.runtime.log_format, run=experiment.runtime.run_name)
    scores, intervals = pooled["scores"], pooled["intervals"]
    for name in ("war", "uar"):
        low, high = intervals[name]
        reporter.line(
            f"{name.upper()} {100 * scores[name]:.1f} % "
            f"({100 * intervals['confidence']:g} % interval {100 * low:.1f} to {100 * high:.1f})"
        )
    reporter.line(f"report: {address}")
    return 0


class StageCommand(TyperCommand):
    """``gmp-atl stage``, whose help lists the stages of the method."""

    def get_help(self, ctx: Any) -> str:
        from gmp_atl_dist.execution import all_stage_names

        for parameter in self.params:
            if isinstance(parameter, TyperArgument) and parameter.name == "name":
                parameter.help = f"one of: {', '.join(all_stage_names())}"
        return super().get_help(ctx)


def stage(
    name: Annotated[str, typer.Argument(help="name of the stage")],
    config: ConfigOption,
    set_: SetOption = None,
    root: RootOption = None,
) -> int:
    """Run one stage for every fold. The stages before it must be done."""
    from gmp_atl_dist.execution import run_stage
    from gmp_atl_dist.run_names import named
    from gmp_atl_dist.run_recorder import RunRecorder

    experiment = named(load_experiment(config, set_, root), config)
    with (
        run_context(experiment) as context,
        RunRecorder(experiment, context, config) as recorder,
    ):
        run_stage(experiment, context, name, [recorder])
    return 0


def verify(
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="TOML file that names the root")
    ] = None,
    set_: SetOption = None,
    root: RootOption = None,
) -> int:
    """Compute the hash of every object below the root again. Exit code 4 if one is damaged."""
    from gmp_atl_dist.errors import ArtifactError, ConfigError
    from gmp_atl_dist.store.artifact import find_artifact, list_artifacts
    from gmp_atl_dist.store.layout import open_root

    if config is not None:
        root = load_experiment(config, set_, root).runtime.root
    if root is None:
        raise ConfigError("no root to verify; give --root or --config")
    store, reporter = open_root(root), Reporter()
    problems: list[str] = []
    keys = list_artifacts(store)
    with reporter.bar(Tags(stage="verify")) as bar:
        for number, key in enumerate(keys):
            artifact = find_artifact(store, key)
            problems += artifact.verify() if artifact is not None else []
            bar.update(number + 1, len(keys))
    if problems:
        raise ArtifactError.of_all(f"{store.uri} is damaged:", problems)
    reporter.line(f"{len(keys)} artefacts below {store.uri} are intact")
    return 0


def predict(
    model: Annotated[str, typer.Argument(help="folder or URI of a fine-tuned model")],
    wavs: Annotated[list[Path], typer.Argument(help="recordings, in any common format")],
) -> int:
    """Print the probability of each emotion for each recording."""
    from gmp_atl_dist.predict import predict_files

    for path, probabilities in predict_files(model, wavs):
        words = "  ".join(f"{emotion} {p:.3f}" for emotion, p in probabilities.items())
        print(f"{path}: {words}")
    return 0
