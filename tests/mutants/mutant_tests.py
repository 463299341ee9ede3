"""Which tests execute which lines, and the tests that a mutant is run against."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

LEFT_OUT = frozenset(
    {"integration", "faults", "gpu", "benchmarks", "deploy", "docs_examples", "fuzz", "mutants"}
)
"""Folders of tests that start a Ray, need a GPU, or test other things than the package."""
_OTHER = frozenset({"test_docs", "test_house", "test_imports", "test_packaging"})
_IMPORT = "import"
_OPTIONS = ("-q", "--no-header", "--tb=short", "-W", "ignore", "--hypothesis-seed=0")
_PLUGINS = ("-p", "no:cacheprovider", "-p", "no:xdist")
_LEAST_S = 5.0
_MOST_S = 90.0
_GRACE_S = 5.0


@dataclass(frozen=True)
class Recorded:
    """One module of tests, run once without a mutation.

    Attributes:
        seconds: by test that passed, with its fixtures. The tracer of lines makes it longer.
        failed: tests that fail without any mutation.
        reached: by module of the package and line, the tests that execute it.
        loaded: modules of the package that were imported.
        left_out_s: it took longer than so many seconds, and nothing is recorded.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    reached: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    loaded: list[str] = field(default_factory=list)
    left_out_s: float = 0.0


@dataclass(frozen=True)
class Chosen:
    """The tests for one mutant, in the order in which they run.

    Attributes:
        tests: their ids, and paths of modules of which all tests run.
        limits: seconds for each of them, and for each test of these modules.
        of: so many tests touch the module; fewer are chosen if they would take too long.
        reached: whether any test executes the line.
    """

    tests: list[str]
    limits: dict[str, float]
    of: int
    reached: bool

    @property
    def whole(self) -> list[str]:
        """The modules of tests that run as a whole."""
        return [test for test in self.tests if "::" not in test]


def test_modules(root: Path, packages: Iterable[str]) -> list[str]:
    """Paths of the test modules that import from one of ``packages``."""
    names = "|".join(packages)
    asks = re.compile(rf"gmp_atl_dist(\.| import \(?)({names})\b")
    return sorted(
        path.relative_to(root).as_posix()
        for path in (root / "tests").rglob("test_*.py")
        if path.parent.name not in LEFT_OUT
        and path.stem not in _OTHER
        and asks.search(path.read_text())
    )


def imports(root: Path, module: str) -> set[str]:
    """Dotted names of what a module of tests imports from the package, directly or by ``tests/support``."""
    found: set[str] = set()
    ahead, seen = [root / module], set[Path]()
    while ahead:
        path = ahead.pop()
        if path in seen or not path.is_file():
            continue
        seen.add(path)
        names: list[str] = []
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names += [one.name for one in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names += [node.module, *(f"{node.module}.{one.name}" for one in node.names)]
        found |= {name for name in names if name.startswith("gmp_atl_dist")}
        support = {name.split(".")[1] for name in names if name.startswith("support.")}
        ahead += [root / "tests" / "support" / f"{name}.py" for name in support]
    return found


class _Recorder:
    """A plugin of pytest: tells the tracer of lines which test runs, and takes the times."""

    def __init__(self, tracer: Any) -> None:
        self._tracer = tracer
        self._now = [_IMPORT]
        self.seconds: dict[str, float] = {}
        self.failed: dict[str, None] = {}
        self.skipped: set[str] = set()
        self.fixtures: dict[str, list[str]] = {}

    def _enter(self, context: str) -> None:
        self._now.append(context)
        self._tracer.switch_context(context)

    def _leave(self) -> None:
        self._now.pop()
        self._tracer.switch_context(self._now[-1])

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        for name in getattr(item, "fixturenames", ()):
            self.fixtures.setdefault(name, []).append(item.nodeid)
        self._enter(item.nodeid)
        started = time.monotonic()
        try:
            return (yield)
        finally:
            self.seconds[item.nodeid] = time.monotonic() - started
            self._leave()

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        if fixturedef.scope == "function":
            return (yield)
        # Its lines are executed once, for all tests that use it.
        self._enter(f"fixture {fixturedef.argname}")
        try:
            return (yield)
        finally:
            self._leave()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed[report.nodeid] = None
        if report.skipped:
            self.skipped.add(report.nodeid)


def record(copy: Path, module: str, packages: Sequence[str]) -> dict[str, Any]:
    """Run one module of tests with a tracer of lines, see ``Recorded``. In a fork: it imports the package."""
    import coverage  # pyright: ignore[reportMissingImports]

    sources = [copy / "gmp_atl_dist" / name for name in packages]
    include = [str(path / "*") if path.is_dir() else f"{path}.py" for path in sources]
    tracer = coverage.Coverage(data_file=None, config_file=False, include=include)
    tracer.set_option("run:core", "ctrace")
    tracer.start()
    tracer.switch_context(_IMPORT)
    recorder = _Recorder(tracer)
    pytest.main([*_OPTIONS, *_PLUGINS, module], plugins=[recorder])
    tracer.stop()
    passed = {
        test: seconds
        for test, seconds in recorder.seconds.items()
        if test not in recorder.failed and test not in recorder.skipped
    }
    reached: dict[str, dict[str, list[str]]] = {}
    data = tracer.get_data()
    for file in data.measured_files():
        lines = reached.setdefault(Path(file).relative_to(copy).as_posix(), {})
        for line, contexts in data.contexts_by_lineno(file).items():
            tests: set[str] = set()
            for context in contexts:
                name = context.removeprefix("fixture ")
                tests |= {context} if name == context else set(recorder.fixtures.get(name, ()))
            lines[str(line)] = sorted(tests & passed.keys())
    loaded = [
        Path(str(module.__file__)).relative_to(copy).as_posix()
        for name, module in list(sys.modules.items())
        if name.startswith("gmp_atl_dist.") and getattr(module, "__file__", None)
    ]
    made = Recorded(passed, list(recorder.failed), reached, sorted(loaded))
    return vars(made)


def record_key(copy: Path, module: str, packages: Sequence[str]) -> str:
    """Changes when the module of tests, or any module that is altered, changes."""
    digest = hashlib.sha256((copy / module).read_bytes())
    for name in packages:
        path = copy / "gmp_atl_dist" / name
        files = sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
        for file in files:
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def choose(
    records: Mapping[str, Recorded],
    module: str,
    lines: range,
    package: str,
    most_s: float,
    whole: Sequence[str] = (),
) -> Chosen:
    """The tests for a mutant of ``module``.

    First those that execute one of its lines, of ``tests/PACKAGE`` before others, and modules of tests
    that take less time before those that take more. Then the other tests that execute anything of the
    module, for what caches and processes hide from the tracer. For a line that only an import executes,
    all of these.

    Args:
        records: by module of tests.
        module: the altered one.
        lines: its altered lines.
        package: the folder of tests that mirrors it.
        most_s: tests after that many seconds are left out, as recorded.
        whole: modules of tests that could not be recorded, and run after the others.
    """
    groups: list[tuple[tuple[int, float], str, list[str]]] = []
    touching: set[str] = set()
    any_reached = at_import = False
    for name, recorded in records.items():
        there = recorded.reached.get(module, {})
        touched = {test for tests in there.values() for test in tests}
        reached = {test for line in lines for test in there.get(str(line), ())}
        at_import |= any(str(line) in there and not there[str(line)] for line in lines)
        mirrored = name.startswith((f"tests/{package}/", f"tests/test_{package}"))
        if mirrored and module in recorded.loaded:
            touched |= set(recorded.seconds)
        any_reached |= bool(reached)
        touching |= touched
        for rank, members in ((0, reached), (2, touched - reached)):
            order = [test for test in recorded.seconds if test in members]
            if order:
                cost = sum(recorded.seconds[test] for test in order)
                groups.append(((rank + (not mirrored), cost), name, order))
    groups.sort()
    seconds = {test: s for recorded in records.values() for test, s in recorded.seconds.items()}
    longest = {name: max(r.seconds.values(), default=0.0) for name, r in records.items()}
    tests: list[str] = []
    limits: dict[str, float] = {}
    total_s = 0.0
    for _, name, order in groups:
        for test in order:
            total_s += seconds[test]
            if tests and total_s > most_s:
                total_s -= seconds[test]
                continue
            tests.append(test)
            # It may be the one that makes what its module shares.
            limits[test] = min(_LEAST_S + 5 * seconds[test] + 2 * longest[name], _MOST_S)
    tests += whole
    limits |= dict.fromkeys(whole, _MOST_S)
    any_reached |= bool(whole) or (at_import and bool(touching))
    return Chosen(tests, limits, len(touching), any_reached)


class _Runner:
    """A plugin of pytest: keeps the chosen tests in their order, and notes what fails first."""

    def __init__(self, chosen: Chosen) -> None:
        self._chosen = chosen
        self.failed: list[str] = []
        self.said = ""
        self.timed_out = False
        self.seconds: dict[str, float] = {}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        place = {test: rank for rank, test in enumerate(self._chosen.tests)}
        # A mutant may rename cases, if a parameter is made of what it alters.
        for missing in place.keys() - {item.nodeid for item in items}:
            place.setdefault(_function(missing), place[missing])
        found = [(_place(place, item.nodeid), item) for item in items]
        kept = sorted(((at, i) for at, i in found if at is not None), key=lambda one: one[0])
        items[:] = [item for _, item in kept]
        for at, item in kept:
            limit_s = self._chosen.limits[self._chosen.tests[at]]
            item.add_marker(pytest.mark.timeout(limit_s), append=False)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[object]:
        """Hypothesis takes a failure of pytest-timeout for an example, and runs it again without a limit."""
        at = _place({test: rank for rank, test in enumerate(self._chosen.tests)}, item.nodeid)
        limit_s = self._chosen.limits[self._chosen.tests[at]] if at is not None else _MOST_S
        timer = threading.Timer(limit_s + _GRACE_S, self._interrupt, (item.nodeid,))
        timer.daemon = True
        timer.start()
        try:
            return (yield)
        finally:
            timer.cancel()

    def _interrupt(self, test: str) -> None:
        self.failed.append(test)
        self.timed_out, self.said = True, f"{test} did not end at its limit"
        os.kill(os.getpid(), signal.SIGINT)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._note(report)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
        self._note(report)

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if not report.failed:
            return
        self.failed.append(report.nodeid)
        if len(self.failed) == 1:
            text = report.longreprtext
            errors = [line for line in text.splitlines() if line.startswith("E ")]
            self.said = (errors or text.splitlines() or [""])[0][:300]
            self.timed_out = "from pytest-timeout" in text


def _place(places: Mapping[str, int], test: str) -> int | None:
    names = (test, _function(test), test.partition("::")[0])
    return next((places[name] for name in names if name in places), None)


def _function(test: str) -> str:
    return test.partition("[")[0]


def run_chosen(chosen: Chosen, *, stop: bool = True) -> dict[str, Any]:
    """Run the chosen tests; with ``stop`` until one fails. In a fork: it imports the package."""
    sys.dont_write_bytecode = True
    runner = _Runner(chosen)
    modules = list(dict.fromkeys(test.partition("::")[0] for test in chosen.tests))
    options = [*_OPTIONS, *_PLUGINS, *(["-x"] if stop else [])]
    exit_code = int(pytest.main([*options, *modules], plugins=[runner]))
    return {
        "exit": exit_code,
        "failed": runner.failed,
        "said": runner.said,
        "timed_out": runner.timed_out,
        "seconds": runner.seconds,
    }


def load(path: Path) -> Recorded:
    return Recorded(**json.loads(path.read_text()))
