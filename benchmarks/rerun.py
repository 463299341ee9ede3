"""How long ``gmp-atl run`` takes when everything is done, against importing what it imports.

    python -m benchmarks.rerun --config configs/demo.toml --root runs/demo

The root must hold a finished run of that configuration. Without --config a small experiment on a
synthetic corpus is run first, in a temporary folder.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from benchmarks.harness.command import Benchmark, positive
from benchmarks.harness.rounds import MeasurementError, Spread, interleaved

_CLI = (sys.executable, "-m", "gmp_atl_dist.cli")
_IMPORT = "import gmp_atl_dist.pipeline"
KEYS = {
    "run_again_s": "seconds of gmp-atl run when everything is done",
    "status_s": "seconds of gmp-atl status",
    "import_s": "seconds of importing the pipeline alone",
}


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--config", help="of a finished run; --root must be given as well")
    parser.add_argument("--root", help="folder or URI of that run")
    parser.add_argument(
        "--rounds", type=positive, default=7, metavar="N", help="repetitions of every measurement"
    )


def _measure(args: Namespace) -> dict[str, Spread]:
    with _finished_run(args.config, args.root) as experiment:
        commands = {
            "run_again_s": (*_CLI, "run", *experiment),
            "status_s": (*_CLI, "status", *experiment),
            "import_s": (sys.executable, "-c", _IMPORT),
        }
        calls = {name: partial(_seconds, command) for name, command in commands.items()}
        measured = interleaved(calls, args.rounds)
    return {name: Spread.of(seconds) for name, seconds in measured.items()}


@contextmanager
def _finished_run(config: str | None, root: str | None) -> Iterator[list[str]]:
    """Options of the command line that name a finished run."""
    from benchmarks.inputs.small_run import CONFIG, small_run

    if (config is None) != (root is None):
        raise MeasurementError("give both --config and --root, or neither")
    if config is not None and root is not None:
        yield ["--config", config, "--root", root]
        return
    with tempfile.TemporaryDirectory(prefix="gmp-atl-bench-") as folder:
        settings = [word for setting in small_run(folder) for word in ("--set", setting)]
        experiment = ["--config", str(CONFIG), *settings]
        print(f"first run: {_seconds((*_CLI, 'run', *experiment)):.1f} s", flush=True)
        yield experiment


def _seconds(command: Sequence[str]) -> float:
    """Wall time of a command.

    Raises:
        RuntimeError: it failed; shows the end of its output.
    """
    started_s = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started_s
    if done.returncode:
        output = (done.stdout + done.stderr)[-2000:]
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{output}")
    return seconds


BENCHMARK = Benchmark(
    name="rerun",
    about=__doc__,
    keys=KEYS,
    quick={"rounds": 3},
    add_options=_add_options,
    measure=_measure,
)

if __name__ == "__main__":
    raise SystemExit(BENCHMARK.run())
