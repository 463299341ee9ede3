"""Planted faults: what share of small alterations of the code do the fast tests notice?

    python tests/mutants/mutants.py [--count 200] [--seed 0] [--minutes M]      # `make mutants`

A random sample of mutants, spread evenly over the modules, each run against the tests that execute its
lines. All of it happens in a copy of the checkout, in a temporary folder. What is done is kept below
``--session``; the same command continues. The last line is one JSON object. The exit status is 1 if fewer
than 92 % are killed, or if ``docs/mutants.md`` does not explain a survivor. That page says how to read this.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import mutant_report as report  # pyright: ignore[reportMissingImports]
from cosmic_ray.work_db import WorkDB, use_db  # pyright: ignore[reportMissingImports]
from cosmic_ray.work_item import (  # pyright: ignore[reportMissingImports]
    MutationSpec,
    TestOutcome,
    WorkerOutcome,
    WorkItem,
    WorkResult,
)
from mutant_forks import Forks, copy_tree  # pyright: ignore[reportMissingImports]
from mutant_sample import (  # pyright: ignore[reportMissingImports]
    PACKAGES,
    Mutant,
    change,
    compiles,
    executed_with,
    key,
    modules,
    mutants_of,
    sample,
)
from mutant_tests import (  # pyright: ignore[reportMissingImports]
    Chosen,
    Recorded,
    choose,
    load,
    record,
    record_key,
    run_chosen,
    test_modules,
)

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "mutants.md"


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
            if not path.exists():
                if self.over:
                    return False
                ended = self._forks.run(
                    lambda m=module: record(copy, m, PACKAGES), self._given.record_s
                )
                if ended.result is None:
                    said = "takes too long" if ended.timed_out else ended.log[-2000:]
                    print(f"left out: {module}: {said}", flush=True)
                    ended_result = vars(Recorded())
                else:
                    ended_result = ended.result
                path.write_text(json.dumps(ended_result))
                count = len(ended_result["seconds"])
                print(
                    f"recorded {number} of {len(tests)}: {module}, {count} tests, {ended.seconds:.0f} s",
                    flush=True,
                )
            self.records[module] = load(path)
            self.failing += self.records[module].failed
        return True

    def run(self, mutant: Mutant, source: str, chosen: Chosen) -> dict[str, Any]:
        """What becomes of one mutant: ``outcome``, ``told``, and the test that noticed it."""
        if not chosen.reached:
            return {"outcome": "not reached", "told": "no fast test executes it", "by": ""}
        path = self._forks.copy / mutant.module
        cost_s = sum(chosen.limits.values()) / 5
        path.write_text(mutant.altered(source))
        try:
            ended = self._forks.run(lambda: run_chosen(chosen), 60 + 3 * cost_s)
        finally:
            path.write_text(source)
        result = ended.result
        told = f"{len(chosen.tests)} of {chosen.of} tests, {ended.seconds:.0f} s"
        if ended.timed_out:
            return {"outcome": "timed out", "told": f"all of {told}", "by": ""}
        if result is None:
            return {"outcome": "killed", "told": f"the tests died: {ended.log[-300:]}", "by": ""}
        if result["exit"] == 0:
            return {"outcome": "survived", "told": told, "by": ""}
        by = result["failed"][0] if result["failed"] else ""
        return {
            "outcome": "timed out" if result["timed_out"] else "killed",
            "told": result["said"] or told,
            "by": by,
            "limit_s": chosen.limits.get(by),
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
            most_s = 60 + sum(limits[test] for test in tests)
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


def row_of(mutant: Mutant, source: str, found: dict[str, Any]) -> report.Row:
    before, after = change(source, mutant.altered(source))
    return report.Row(
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


def work(given: argparse.Namespace, copy: Path) -> int:
    copy_tree(REPOSITORY, copy)
    sources = {module: (copy / module).read_text() for module in modules(copy)}
    only = [
        module for module in sources if not given.only or any(part in module for part in given.only)
    ]
    places = {module: list(mutants_of(module, sources[module]).values()) for module in only}
    drawn = [
        mutant
        for mutant in sample(
            {module: there for module, there in places.items() if there}, given.count, given.seed
        )
        if compiles(mutant, sources[mutant.module])
    ]
    total = sum(len(there) for there in places.values())
    print(f"{len(drawn)} of {total} places in {len(only)} modules, seed {given.seed}", flush=True)
    session = Session(given.session, Forks(copy, REPOSITORY.parent / "shared" / "data"), given)
    known = report.explained(PAGE)
    tests = [
        module
        for module in test_modules(copy, {mutant.package for mutant in drawn})
        if not given.tests or module.startswith(tuple(given.tests))
    ]
    if not session.record(tests):
        print("no time was left; the same command continues", flush=True)
        return 1
    for test in session.failing:
        print(f"fails without a mutation, and is left out: {test}", flush=True)
    with use_db(given.session / "session.sqlite", WorkDB.Mode.create) as database:
        rows = _run_all(session, database, drawn, sources, given)
    for line in (*report.survivors(rows, known), "", *report.table(rows)):
        print(line)
    print(report.summary(rows, known, given.seed, given.count))
    found = json.loads(report.summary(rows, known, given.seed, given.count))
    return (
        0
        if found["score"] >= report.GOAL and not found["unexplained"] and len(rows) == len(drawn)
        else 1
    )


def _run_all(
    session: Session,
    database: WorkDB,
    drawn: list[Mutant],
    sources: dict[str, str],
    given: argparse.Namespace,
) -> list[report.Row]:
    there = {item.job_id for item in database.work_items}
    done = {job: json.loads(result.output) for job, result in database.results}
    jobs = {job_of(mutant, sources[mutant.module]): mutant for mutant in drawn}
    found: dict[str, dict[str, Any]] = {}
    for number, (job, mutant) in enumerate(jobs.items(), start=1):
        source = sources[mutant.module]
        kept = done.get(job)
        again = given.again and kept is not None and kept["outcome"] not in ("killed", "timed out")
        if kept is not None and not again:
            found[job] = kept
            continue
        if session.over:
            continue
        lines = executed_with(mutant, source)
        chosen = choose(session.records, mutant.module, lines, mutant.package, given.tests_s)
        found[job] = made = session.run(mutant, source, chosen)
        if job not in there:
            database.add_work_item(item_of(mutant, source))
        database.set_result(job, result_of(made, mutant, source))
        what = f"{mutant.module}:{mutant.start[0]} {mutant.operator}: {made['told']}"
        print(f"{number} of {len(jobs)}: {made['outcome']}: {what}", flush=True)
    asked = {
        m["by"]: m["limit_s"] for m in found.values() if m.get("limit_s") and not m.get("sure")
    }
    doubtful = session.doubtful(asked)
    for job, made in found.items():
        if made["by"] in asked:
            if made["by"] in doubtful:
                told = f"so does the code as it is: {made['by']}"
                made |= {"outcome": "unclear", "told": told}
            made["sure"] = True
            source = sources[jobs[job].module]
            database.set_result(job, result_of(made, jobs[job], source))
    return [row_of(jobs[job], sources[jobs[job].module], made) for job, made in found.items()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=200, help="mutants in the sample")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--minutes", type=float, default=600.0, help="then stop; the next call continues"
    )
    parser.add_argument(
        "--tests-s", type=float, default=60.0, help="of tests for one mutant at most"
    )
    parser.add_argument(
        "--record-s", type=float, default=600.0, help="for a module of tests at most"
    )
    parser.add_argument("--session", type=Path, default=REPOSITORY / ".mutants")
    parser.add_argument("--only", action="append", help="part of a module's path; all by default")
    parser.add_argument(
        "--tests", action="append", help="start of a test module's path; all by default"
    )
    parser.add_argument("--again", action="store_true", help="run those that were not killed again")
    given = parser.parse_args()
    given.session = given.session.resolve()
    with tempfile.TemporaryDirectory(prefix="gmp-atl-mutants-") as folder:
        return work(given, Path(folder).resolve() / "copy")


if __name__ == "__main__":
    sys.exit(main())
