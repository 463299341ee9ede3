"""Planted faults: what share of small alterations of the code do the fast tests notice?

    python tests/mutants/mutants.py [--count 200] [--seed 0] [--minutes M]      # `make mutants`

A random sample of mutants, spread evenly over the modules, each run against the tests that execute its
lines. All of it happens in a copy of the checkout, in a temporary folder. What is done is kept below
``--session``; the same command continues. The last line is one JSON object. The exit status is 1 if fewer
than 92 % are killed, or if ``docs/mutants.md`` does not explain a survivor. That page says how to read this.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import mutant_report as report  # pyright: ignore[reportMissingImports]
from cosmic_ray.work_db import WorkDB, use_db  # pyright: ignore[reportMissingImports]
from mutant_forks import Forks, copy_tree  # pyright: ignore[reportMissingImports]
from mutant_sample import (  # pyright: ignore[reportMissingImports]
    PACKAGES,
    Mutant,
    compiles,
    executed_with,
    modules,
    mutants_of,
    sample,
)
from mutant_session import (  # pyright: ignore[reportMissingImports]
    Session,
    item_of,
    job_of,
    result_of,
    row_of,
)
from mutant_tests import choose, test_modules  # pyright: ignore[reportMissingImports]

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "mutants.md"


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
        for module in test_modules(copy, {mutant.package for mutant in drawn} or PACKAGES)
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
    done = {str(job): json.loads(result.output or "{}") for job, result in database.results}
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
        whole = session.whole(mutant)
        chosen = choose(session.records, mutant.module, lines, mutant.package, given.tests_s, whole)
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
    # So that the copy and a fork go as well.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="gmp-atl-mutants-") as folder:
        return work(given, Path(folder).resolve() / "copy")


if __name__ == "__main__":
    sys.exit(main())
