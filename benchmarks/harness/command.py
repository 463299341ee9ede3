"""The command line of a benchmark, and the JSON object in the last line that it prints.

A benchmark names the keys of its figures once. Whatever it was asked for, the last line has all of them, null
where nothing was measured; so a quick run and a full run have the same keys.
"""

from __future__ import annotations

import importlib
import json
import math
import pkgutil
import signal
import sys
import time
from argparse import (
    Action,
    ArgumentDefaultsHelpFormatter,
    ArgumentParser,
    ArgumentTypeError,
    Namespace,
    RawDescriptionHelpFormatter,
)
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import benchmarks
from benchmarks.harness.machine import Machine, this_machine
from benchmarks.harness.rounds import MeasurementError, Spread

_DIGITS = 4
_COMMON = ("benchmark", "quick", "date", "wall_s", "settings", "machine", "spread")


class _HelpFormatter(ArgumentDefaultsHelpFormatter, RawDescriptionHelpFormatter):
    """Descriptions as they are written, and the default of every option that has one."""

    def _get_help_string(self, action: Action) -> str | None:
        return super()._get_help_string(action) if action.default else action.help


@dataclass(frozen=True)
class Benchmark:
    """One command.

    Attributes:
        name: of its module.
        about: the module's docstring: first line what is measured, then how.
        keys: what each figure of the last line is, with its unit.
        quick: the values that ``--quick`` gives to options; an option that is given wins.
        add_options: adds the options, with the defaults of a full run.
        measure: runs it and prints tables; the figures by key, as numbers or as spreads over rounds.
        exit_code: of the figures, for a benchmark of several parts of which some may fail.
    """

    name: str
    about: str | None
    keys: Mapping[str, str]
    quick: Mapping[str, object]
    add_options: Callable[[ArgumentParser], None]
    measure: Callable[[Namespace], Mapping[str, float | Spread | None]]
    exit_code: Callable[[Mapping[str, float | Spread | None]], int] = lambda _: 0

    def __post_init__(self) -> None:
        if clash := set(self.keys) & set(_COMMON):
            raise ValueError(
                f"{self.name}: {sorted(clash)} are in the last line of every benchmark"
            )

    @property
    def summary(self) -> str:
        """One line."""
        return (self.about or "").partition("\n")[0]

    def parser(self) -> ArgumentParser:
        """The options of a full run."""
        keys = "\n".join(f"  {key:32} {what}" for key, what in self.keys.items())
        parser = ArgumentParser(
            prog=f"python -m benchmarks.{self.name}",
            description=self.about,
            epilog=f"keys of the last line, beside {', '.join(_COMMON)}:\n{keys}",
            formatter_class=_HelpFormatter,
            allow_abbrev=False,
        )
        values = " ".join(f"{_option(name)} {_text(value)}" for name, value in self.quick.items())
        parser.add_argument(
            "--quick",
            action="store_true",
            help=f"at most 3 minutes on two slow cores, the same keys in the last line; sets {values}",
        )
        self.add_options(parser)
        return parser

    def parse(self, argv: Sequence[str] | None = None) -> Namespace:
        """The options; with ``--quick`` those that were not given have its values."""
        parser = self.parser()
        if "--quick" in (sys.argv[1:] if argv is None else argv):
            parser.set_defaults(**self.quick)
        return parser.parse_args(argv)

    def last_line(
        self,
        args: Namespace,
        machine: Machine,
        wall_s: float,
        figures: Mapping[str, float | Spread | None],
    ) -> dict[str, object]:
        """The JSON object: the same keys for whatever was measured.

        Raises:
            ValueError: a figure has a name that the benchmark does not list.
        """
        if unknown := set(figures) - set(self.keys):
            raise ValueError(f"{self.name}: {sorted(unknown)} are not in its list of keys")
        values = {key: figures.get(key) for key in self.keys}
        spreads = {key: _ends(value) for key, value in values.items()}
        return {
            "benchmark": self.name,
            "quick": args.quick,
            "date": f"{datetime.now(UTC):%Y-%m-%d}",
            "wall_s": round(wall_s, 1),
            "settings": {name: value for name, value in vars(args).items() if name != "quick"},
            "machine": asdict(machine),
            **{key: _rounded(value) for key, value in values.items()},
            "spread": spreads,
        }

    def run(self, argv: Sequence[str] | None = None) -> int:
        """Parse, measure, print; 0 or :attr:`exit_code`, or 1 when there was too little to measure.

        SIGTERM ends it as Ctrl-C does: with all processes that it has started.
        """
        args = self.parse(argv)
        signal.signal(signal.SIGTERM, _end)
        started_s = time.monotonic()
        machine = this_machine()
        print(machine.text(), flush=True)
        try:
            figures = self.measure(args)
        except MeasurementError as e:
            print(f"error: {e}", file=sys.stderr)
            return 1
        self._print_table(figures)
        line = self.last_line(args, machine, time.monotonic() - started_s, figures)
        print(json.dumps(line, allow_nan=False))
        return self.exit_code(figures)

    def _print_table(self, figures: Mapping[str, float | Spread | None]) -> None:
        print("\nmedian (smallest to largest) over rounds:")
        for key, what in self.keys.items():
            value = figures.get(key)
            text = "not measured" if value is None else f"{value:.{_DIGITS}g}"
            print(f"  {key:32} {text:28} {what}")


def _end(signum: int, _frame: object) -> None:
    raise SystemExit(128 + signum)


def all_benchmarks() -> dict[str, Benchmark]:
    """Every benchmark by the name of its module."""
    names = [m.name for m in pkgutil.iter_modules(benchmarks.__path__) if not m.ispkg]
    modules = {n: importlib.import_module(f"benchmarks.{n}") for n in names if n != "__main__"}
    return {name: module.BENCHMARK for name, module in modules.items()}


def positive(text: str) -> int:
    """A whole number from 1, for ``add_argument(type=...)``."""
    return at_least(1)(text)


def at_least(smallest: int) -> Callable[[str], int]:
    """A whole number from ``smallest``, for ``add_argument(type=...)``."""

    def whole_number(text: str) -> int:
        number = int(text)
        if number < smallest:
            raise ArgumentTypeError(f"{number} is below {smallest}")
        return number

    return whole_number


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _text(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _rounded(value: float | Spread | None) -> float | None:
    """The median, to four digits; None instead of a number that JSON cannot hold."""
    number = value.median if isinstance(value, Spread) else value
    if number is None or not math.isfinite(number):
        return None
    return number if isinstance(number, int) else float(f"{number:.{_DIGITS}g}")


def _ends(value: float | Spread | None) -> list[float | None] | None:
    if not isinstance(value, Spread):
        return None
    return [_rounded(value.smallest), _rounded(value.largest)]
