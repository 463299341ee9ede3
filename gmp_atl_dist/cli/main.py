"""The command line: it parses, loads the configuration, calls the library and prints.

Each command imports heavy libraries itself, so that ``config check`` starts quickly.
"""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Sequence

import typer

from gmp_atl_dist import __version__, stopping
from gmp_atl_dist.cli import (
    audit,
    codebooks,
    compare,
    config,
    corpora,
    damage,
    doctor,
    features,
    models,
    predict,
    run,
    runs,
    serve,
    space,
    status,
    submit,
    sweep,
)
from gmp_atl_dist.cli.again import remember_command
from gmp_atl_dist.errors import GmpAtlError, StoppedError, WorkerError
from gmp_atl_dist.redaction import say_error, show_traceback

app = typer.Typer(
    help="Train speech-emotion recognition models by GMP-ATL, on a cluster or on one machine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(run.run)
app.command()(sweep.sweep)
app.command(cls=run.StageCommand)(run.stage)
app.command()(status.status)
app.command()(compare.compare)
app.command()(damage.verify)
app.command()(damage.repair)
app.command()(space.gc)
app.command()(space.du)
app.command()(predict.predict)
app.command()(serve.serve)
app.command()(doctor.doctor)
app.command()(audit.audit)
app.command()(submit.submit)
app.add_typer(runs.app, name="runs")
app.add_typer(corpora.app, name="corpora")
app.add_typer(config.app, name="config")
app.add_typer(features.app, name="features")
app.add_typer(codebooks.app, name="codebook")
app.add_typer(models.app, name="model")

_INTERRUPTED = 130
_BROKEN_PIPE = 141


@app.command()
def version() -> int:
    """Print the version."""
    print(__version__)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code. A user's errors are printed as text, without a traceback.

    Without ``argv`` the command is that of this process. After a stop, or without workers, the process then
    ends here: threads of Ray and torch that were interrupted may abort it when Python ends, with an exit
    code of their own. The same holds after any error without Ray: a command that ends early can meet
    threads of Arrow that have only begun.
    """
    if argv is None:
        sys.excepthook = show_traceback
    code = _main(argv)
    abrupt = code in (*stopping.EXIT_CODES, WorkerError.exit_code)
    if argv is None and (abrupt or (code != 0 and "ray" not in sys.modules)):
        stopping.leave(code)
    return code


def _main(argv: Sequence[str] | None) -> int:
    remember_command(argv)
    _show_what_can_be_shown()
    try:
        result = app(args=None if argv is None else list(argv), standalone_mode=False)
        code = result if isinstance(result, int) else 0
        sys.stdout.flush()
    except StoppedError as e:
        return e.exit_code  # the run has said what there is to say
    except GmpAtlError as e:
        say_error(f"error: {e}")
        return e.exit_code
    except typer.Exit as e:
        code = e.exit_code
    except typer.Abort:
        code = _INTERRUPTED
    except (BrokenPipeError, SystemExit) as e:
        # typer makes SystemExit(1) of a closed pipe.
        if isinstance(e, SystemExit) and not isinstance(e.__context__, BrokenPipeError):
            raise
        # Whoever read the output has enough, such as head. Python would complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)
        return _BROKEN_PIPE
    except Exception as e:
        message = getattr(e, "format_message", None)  # an error of click, which typer may vendor
        if message is None:
            raise
        say_error(f"error: {message()}; see --help")
        return 2
    # typer returns this code after a Ctrl-C, without a message.
    if code == _INTERRUPTED:
        say_error(
            "interrupted; finished stages and parts are kept, run the same command again to continue"
        )
    return code


def _show_what_can_be_shown() -> None:
    """Print ``?`` for a letter that the locale cannot show. Names of a corpus may have any letters."""
    for stream in (sys.stdout, sys.stderr):
        # A stream of a test or a notebook may have another type.
        if not isinstance(stream, io.TextIOWrapper) or stream.errors == "replace":
            continue
        if stream.errors == "strict" or codecs.lookup(stream.encoding).name != "utf-8":
            stream.reconfigure(errors="replace")
