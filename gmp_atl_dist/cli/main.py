"""The command line: parse, load the configuration, call, print.

Each command imports heavy libraries itself, so that ``config check`` answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from gmp_atl_dist import __version__
from gmp_atl_dist.cli import codebooks, config, corpora, doctor, features, models, run, submit
from gmp_atl_dist.errors import GmpAtlError

app = typer.Typer(
    help="Train speech-emotion recognisers by GMP-ATL on a cluster or a laptop.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(run.run)
app.command()(run.stage)
app.command()(run.status)
app.command()(run.verify)
app.command()(run.predict)
app.command()(doctor.doctor)
app.command()(submit.submit)
app.add_typer(corpora.app, name="corpora")
app.add_typer(config.app, name="config")
app.add_typer(features.app, name="features")
app.add_typer(codebooks.app, name="codebook")
app.add_typer(models.app, name="model")

_INTERRUPTED = 130


@app.command()
def version() -> int:
    """Print the version."""
    print(__version__)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 0 if it succeeded. Errors of the user's print as text, not as a traceback."""
    try:
        result = app(args=None if argv is None else list(argv), standalone_mode=False)
        code = result if isinstance(result, int) else 0
    except GmpAtlError as e:
        print(f"error: {e}", file=sys.stderr)
        return e.exit_code
    except typer.Exit as e:
        code = e.exit_code
    except typer.Abort:
        code = _INTERRUPTED
    except Exception as e:
        message = getattr(e, "format_message", None)  # click's errors, wherever typer keeps them
        if message is None:
            raise
        print(f"error: {message()}; see --help", file=sys.stderr)
        return 2
    # typer makes this code of a Ctrl-C, and says nothing.
    if code == _INTERRUPTED:
        print("interrupted; what was finished stays finished, run again to go on", file=sys.stderr)
    return code
