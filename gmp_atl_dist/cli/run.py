"""Commands that run stages: run, stage."""

from __future__ import annotations

import errno
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperArgument, TyperCommand

from gmp_atl_dist import stopping
from gmp_atl_dist.cli.again import same_command
from gmp_atl_dist.cli.options import (
    ConfigOption,
    RootOption,
    SetOption,
    load_experiment,
    load_experiment_with_notes,
)
from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.console import Reporter, log_line
from gmp_atl_dist.errors import GmpAtlError, StoppedError
from gmp_atl_dist.redaction import say_error
from gmp_atl_dist.run_log import FOLDER, RunLog

_UPLOAD_TIMEOUT_S = 10.0
_MOST_BYTES = 32 << 20

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

        def tell(text: str) -> None:
            log.take_over_dead_terminals()
            reporter.stopping(text)

        try:
            with (
                _kept(log, config),
                _stops_told(tell),
                open_context(config, reporter) as context,
            ):
                yield context
        except StoppedError as e:
            # Nothing shall interrupt what is left to say.
            reporter.stopped(e, same_command(), _published(log, settings.root))
            raise
        except GmpAtlError as e:
            reporter.error(str(e), _published(log, settings.root))
            raise typer.Exit(e.exit_code) from e
        except Exception:
            # A defect of ours. Python prints its traceback after this line.
            if place := _published(log, settings.root):
                say_error(log_line(place), log.err)
            raise
        if place := _published(log, settings.root):
            reporter.line(log_line(place))


@contextmanager
def _kept(log: RunLog, config: RunConfig) -> Iterator[None]:
    """Below a remote root, a copy of the log that is a minute old at most, also if this process is killed."""
    from gmp_atl_dist.store.filesystem import Store
    from gmp_atl_dist.store.kept_logs import LogKeeper

    settings = config.runtime
    if not settings.keep_logs or not _is_remote(settings.root):
        yield
        return
    keeper = LogKeeper(
        Store.open(settings.root, timeout_s=_UPLOAD_TIMEOUT_S),
        f"{FOLDER}/{log.path.name}",
        lambda: [("log", log.path)],
        most_bytes=_MOST_BYTES,
    )
    keeper.start()
    try:
        yield
    finally:
        keeper.close()


def _is_remote(root: str) -> bool:
    return "://" in root and not root.startswith("file://")


@contextmanager
def _stops_told(tell: Callable[[str], object]) -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP end the block by a :class:`StoppedError`."""
    with stopping.stoppable(tell) as stop:
        try:
            yield
        except StoppedError:
            raise
        except BaseException as e:
            if stop.signum is None and _is_hung_up(e):
                stop.signum = signal.SIGHUP  # the signal may come after the first failed write
            if stop.signum is None:
                raise
            # Whatever a library makes of an interrupt, the signal is why the run ends.
            detail = "finished stages and parts are kept"
            if not isinstance(e, KeyboardInterrupt | SystemExit):
                detail += f"; on the way out: {type(e).__name__}: {e}"
            raise stopping.stopped(stop.signum, detail) from e


def _is_hung_up(error: BaseException) -> bool:
    """Whether a write failed because the terminal was closed."""
    return isinstance(error, OSError) and error.errno == errno.EIO


def _published(log: RunLog, root: str) -> str:
    """Where the log file is; empty if nothing was printed.

    Below a remote root a copy outlives this machine. Without it, the file of this machine is named.
    """
    from gmp_atl_dist.store.filesystem import Store
    from gmp_atl_dist.store.kept_logs import end_of

    if log.is_empty:
        return ""
    if _is_remote(root):
        # A store that does not answer may be why the run failed: ask it briefly.
        with suppress(GmpAtlError):
            store = Store.open(root, timeout_s=_UPLOAD_TIMEOUT_S)
            store.put(f"{FOLDER}/{log.path.name}", end_of(log.path, _MOST_BYTES).encode())
            return f"{store.uri}/{FOLDER}/{log.path.name}"
    return str(log.path)


def run(config: ConfigOption, set_: SetOption = None, root: RootOption = None) -> int:
    """Run every stage that is not done yet, up to the report."""
    from gmp_atl_dist.cli.ending import Models, say_the_end
    from gmp_atl_dist.execution import run_pipeline
    from gmp_atl_dist.runs.names import named
    from gmp_atl_dist.runs.progress import RunProgress
    from gmp_atl_dist.runs.recorder import RunRecorder

    loaded, notes = load_experiment_with_notes(config, set_, root)
    experiment = named(loaded, config)
    with run_context(experiment) as context:
        for note in notes:
            context.reporter.warning(note)
        progress, models = RunProgress(experiment, context), Models()
        with (
            RunRecorder(experiment, context, config) as recorder,
            context.reporter.whole_run(progress),
        ):
            report = run_pipeline(experiment, context, (recorder, progress, models))
        say_the_end(report, models, experiment.runtime.run_name, context.reporter.line)
    return 0


class StageCommand(TyperCommand):
    """``gmp-atl stage``, whose help lists the stages of the method."""

    def get_help(self, ctx: Any) -> str:
        from gmp_atl_dist.stage_order import all_stage_names

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
    from gmp_atl_dist.runs.names import named
    from gmp_atl_dist.runs.recorder import RunRecorder

    experiment = named(load_experiment(config, set_, root), config)
    with (
        run_context(experiment) as context,
        RunRecorder(experiment, context, config) as recorder,
    ):
        run_stage(experiment, context, name, [recorder])
    return 0
