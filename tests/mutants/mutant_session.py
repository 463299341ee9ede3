"""Runs mutants, and keeps what has become of them."""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from cosmic_ray.work_item import (  # pyright: ignore[reportMissingImports]
    MutationSpec,
    TestOutcome,
    WorkerOutcome,
    WorkItem,
    WorkResult,
)
from mutant_forks import FORK_FAILED, Forks  # pyright: ignore[reportMissingImports]
from mutant_report import Row  # pyright: ignore[reportMissingImports]
from mutant_sample import (  # pyright: ignore[reportMissingImports]
    PACKAGES,
    Mutant,
    change,
    key,
)
from mutant_tests import (  # pyright: ignore[reportMissingImports]
    Chosen,
    Recorded,
    imports,
    load,
    record,
    record_key,
    run_chosen,
)

_START_S = 60.0
_WHOLE_S = 120.0
"""For a module of tests that could not be recorded."""
_NEVER = 1e9


class Session:
    """Recorded tests and results, in a folder that the next call with the same code continues."""

    def __init__(self, folder: Path, forks: Forks, given: argparse.Namespace) -> None:
        self._folder, self._forks, self._given = folder, forks, given
        self._until_s = time.monotonic() + 60 * given.minutes
        self.records: dict[str, Recorded] = {}
        self.failing: list[str] = []
        (folder / "records").mkdir(parents=True, exist_ok=True)

    @property
    def over(self) -> bool:
        return time.monotonic() > self._until_s

    def record(self, tests: list[str]) -> bool:
        """Run each module of tests without a mutation; whether time was left for all of them."""
        copy = self._forks.copy
        for number, module in enumerate(tests, start=1):
            path = self._folder / "records" / f"{record_key(copy, module, PACKAGES)}.json"
            kept = load(path) if path.exists() else None
            if kept is None and self._given.record_s <= 0:
                kept = self.records[module] = Recorded(left_out_s=_NEVER)
            if kept is None or 0 < kept.left_out_s < self._given.record_s:
                if self.over:
                    return False
                limit_s = self._given.record_s
                ended = self._forks.run(lambda m=module: record(copy, m, PACKAGES), limit_s)
                if ended.result is None and not ended.timed_out:
                    raise SystemExit(f"{module} cannot be recorded: {ended.log[-2000:]}")
                made = ended.result or vars(Recorded(left_out_s=limit_s))
                path.write_text(json.dumps(made))
                what = f"{module}, {len(made['seconds'])} tests, {ended.seconds:.0f} s"
                left = ", left out: it takes too long" if ended.timed_out else ""
                print(f"recorded {number} of {len(tests)}: {what}{left}", flush=True)
            if path.exists():
                self.records[module] = load(path)
            self.failing += self.records[module].failed
        return True

    def whole(self, mutant: Mutant) -> list[str]:
        """Of the modules of tests that could not be recorded the one to run: it imports the altered module.

        One is enough of what takes long: that with a like name, else the shortest of the folder that
        mirrors the package.
        """
        dotted = mutant.module.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        copy, stem = self._forks.copy, Path(mutant.module).stem
        found = [
            name
            for name, recorded in self.records.items()
            if recorded.left_out_s
            and name.startswith((f"tests/{mutant.package}/", f"tests/test_{mutant.package}"))
            and dotted in imports(copy, name)
        ]
        found.sort(key=lambda name: (stem not in name, (copy / name).stat().st_size))
        return found[:1]

    def run(self, mutant: Mutant, source: str, chosen: Chosen) -> dict[str, Any]:
        """What becomes of one mutant: ``outcome``, ``told``, and the test that noticed it."""
        left_out = sum(recorded.left_out_s > 0 for recorded in self.records.values())
        if not chosen.reached and left_out:
            told = f"no test is known to execute it; {left_out} modules of tests were not recorded"
            return {"outcome": "unclear", "told": told, "by": ""}
        if not chosen.reached:
            return {"outcome": "not reached", "told": "no fast test executes it", "by": ""}
        path = self._forks.copy / mutant.module
        cost_s = sum(chosen.limits[test] for test in chosen.tests if "::" in test) / 5
        limit_s = _START_S + 3 * cost_s + _WHOLE_S * len(chosen.whole)
        path.write_text(mutant.altered(source))
        try:
            ended = self._forks.run(lambda: run_chosen(chosen), limit_s)
        finally:
            path.write_text(source)
        result = ended.result
        told = f"{len(chosen.tests)} of {chosen.of} tests, {ended.seconds:.0f} s"
        if ended.timed_out and chosen.whole:
            return {
                "outcome": "unclear",
                "told": f"nobody knows how long these take: {told}",
                "by": "",
            }
        if ended.timed_out:
            return {"outcome": "timed out", "told": f"all of {told}", "by": ""}
        if result is None and FORK_FAILED in ended.log:
            return {"outcome": "unclear", "told": ended.log[-300:], "by": ""}
        if result is None:
            return {"outcome": "killed", "told": f"the tests died: {ended.log[-300:]}", "by": ""}
        if result["exit"] == 0:
            return {"outcome": "survived", "told": told, "by": ""}
        by = result["failed"][0] if result["failed"] else ""
        return {
            "outcome": "timed out" if result["timed_out"] else "killed",
            "told": result["said"] or told,
            "by": by,
            "limit_s": chosen.limits.get(by, chosen.limits.get(by.partition("::")[0])),
        }

    def doubtful(self, limits: dict[str, float]) -> set[str]:
        """Of tests that noticed a mutant, those that fail or take half of their limit without one.

        Args:
            limits: of each test in seconds.
        """
        modules: dict[str, list[str]] = defaultdict(list)
        for test in limits:
            modules[test.partition("::")[0]].append(test)
        found: set[str] = set()
        for tests in modules.values():
            chosen = Chosen(tests, limits, len(tests), reached=True)
            most_s = _START_S + sum(limits[test] for test in tests)
            ended = self._forks.run(lambda c=chosen: run_chosen(c, stop=False), most_s)
            result = ended.result or {"failed": tests, "seconds": {}}
            slow = {t for t in tests if result["seconds"].get(t, limits[t]) > limits[t] / 2}
            found |= slow | set(result["failed"])
        return found


def job_of(mutant: Mutant, source: str) -> str:
    """Names the mutant of this text of the module."""
    told = f"{mutant.module} {mutant.operator} {mutant.occurrence} {source}"
    return hashlib.sha256(told.encode()).hexdigest()[:20]


def item_of(mutant: Mutant, source: str) -> WorkItem:
    spec = MutationSpec(
        module_path=mutant.module,
        operator_name=mutant.operator,
        occurrence=mutant.occurrence,
        start_pos=mutant.start,
        end_pos=mutant.end,
        definition_name=mutant.definition or None,
    )
    return WorkItem.single(job_of(mutant, source), spec)


def result_of(found: dict[str, Any], mutant: Mutant, source: str) -> WorkResult:
    """As cosmic-ray keeps it, so that its own reports read the session too."""
    kept = {
        "killed": TestOutcome.KILLED,
        "timed out": TestOutcome.KILLED,
        "unclear": TestOutcome.INCOMPETENT,
    }
    reached = found["outcome"] != "not reached"
    return WorkResult(
        worker_outcome=WorkerOutcome.NORMAL if reached else WorkerOutcome.NO_TEST,
        test_outcome=kept.get(found["outcome"], TestOutcome.SURVIVED),
        output=json.dumps(found),
        diff="\n".join(
            f"{sign} {text}"
            for sign, text in zip("-+", change(source, mutant.altered(source)), strict=True)
        ),
    )


def row_of(mutant: Mutant, source: str, found: dict[str, Any]) -> Row:
    before, after = change(source, mutant.altered(source))
    return Row(
        key=key(mutant, source),
        module=mutant.module,
        package=mutant.package,
        line=mutant.start[0],
        operator=mutant.operator,
        before=before,
        after=after,
        outcome=found["outcome"],
        told=found["told"],
    )
