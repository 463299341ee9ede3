"""The tool of ``make mutants``: what it alters, what it draws, which tests it runs, what it counts."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import mutant_report as report  # pyright: ignore[reportMissingImports]
import mutant_sample as sampling  # pyright: ignore[reportMissingImports]
import mutant_tests as choosing  # pyright: ignore[reportMissingImports]

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "mutants.md"
MODULE = "gmp_atl_dist/metrics.py"
SOURCE = """\
from __future__ import annotations
from dataclasses import dataclass
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import os
    WIDTH = 3
@dataclass(frozen=True)
class Clip:
    length: int | None = 1
    @property
    def frames(self, *, hop: float = 3.0) -> int | None:
        if self.length > 2:
            raise ValueError(self.length)
        return count(self.length, hop=hop) + sum(a for a, b in zip(self, self, strict=True))
"""


def mutants() -> list[sampling.Mutant]:
    pytest.importorskip("cosmic_ray")
    return [m for there in sampling.mutants_of(MODULE, SOURCE).values() for m in there]


def test_operators_make_what_they_promise() -> None:
    pytest.importorskip("cosmic_ray")
    import mutant_operators  # pyright: ignore[reportMissingImports]
    from cosmic_ray.mutating import mutate_code  # pyright: ignore[reportMissingImports]

    for operator in (mutant_operators.RemoveStatement(), mutant_operators.RemoveKeyword()):
        for case in operator.examples():
            made = mutate_code(case.pre_mutation_code, operator, case.occurrence)
            assert made == case.post_mutation_code


def test_code_that_runs_is_altered_and_what_is_for_types_is_not() -> None:
    made = {sampling.change(SOURCE, mutant.altered(SOURCE)) for mutant in mutants()}
    before = "if self.length > 2:"
    head = "def frames(self, *, hop: float = {}) -> int | None:"
    returned = SOURCE.splitlines()[-1].strip()
    raised = "raise ValueError(self.length)"
    assert made == {
        ("length: int | None = 1", "length: int | None = 2"),
        ("length: int | None = 1", "length: int | None = 0"),
        (head.format("3.0"), head.format("4.0")),
        (head.format("3.0"), head.format("2.0")),
        *((before, f"if {test}:") for test in ("self.length >= 2", "self.length <= 2")),
        *((before, f"if {test}:") for test in ("self.length > 3", "self.length > 1")),
        (before, "if not self.length > 2:"),
        (raised, "pass"),
        (returned, returned.replace(", hop=hop", "")),
        (returned, returned.replace(" + ", " - ")),
        ("@property", ""),
        ("@dataclass(frozen=True)", ""),
    }


def test_a_mutant_is_the_same_after_lines_above_it_have_changed() -> None:
    longer = SOURCE.replace("import os\n", "import os\n    import re\n")
    before = {sampling.key(mutant, SOURCE) for mutant in mutants()}
    moved = [m for there in sampling.mutants_of(MODULE, longer).values() for m in there]
    assert before == {sampling.key(mutant, longer) for mutant in moved}
    other = SOURCE.replace("self.length > 2", "self.length > 3")
    changed = [m for there in sampling.mutants_of(MODULE, other).values() for m in there]
    # Five alterations of that line.
    assert len(before - {sampling.key(mutant, other) for mutant in changed}) == 5


def test_the_lines_that_show_that_a_mutant_runs() -> None:
    lines = {m.start[0]: sampling.executed_with(m, SOURCE) for m in mutants()}
    assert lines[12] == range(12, 13)  # the head of an ``if``
    assert lines[13] == range(13, 14)
    assert lines[11] == range(10, 15)  # a default value: the function
    assert lines[9] == range(9, 10)


PLACES = {f"m{i}": [[f"m{i}.{j}a", f"m{i}.{j}b"] for j in range(10 * i)] for i in (1, 2, 3, 14)}


def test_a_sample_is_the_same_for_a_seed_and_begins_a_larger_one() -> None:
    drawn = sampling.sample(PLACES, 40, seed=3)
    assert drawn == sampling.sample(PLACES, 100, seed=3)[:40]
    assert set(drawn) != set(sampling.sample(PLACES, 40, seed=4))
    assert len({one[:-1] for one in sampling.sample(PLACES, 1000, seed=3)}) == 200


@pytest.mark.parametrize("count", [20, 40, 100])
def test_every_module_has_its_share_of_a_sample(count: int) -> None:
    found = Counter(one.partition(".")[0] for one in sampling.sample(PLACES, count, seed=0))
    for module, there in PLACES.items():
        assert abs(found[module] - count * len(there) / 200) <= 1.5


def test_wilson_against_another_library() -> None:
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    for killed, of in ((0, 3), (8, 10), (150, 160), (160, 160)):
        expected = proportion.proportion_confint(killed, of, method="wilson")
        assert report.wilson(killed, of) == pytest.approx(expected, abs=1e-12)


def test_a_time_out_counts_as_killed_and_what_is_unclear_counts_for_nothing() -> None:
    outcomes = ["killed"] * 6 + ["timed out", "survived", "not reached", "unclear"]
    found = report.counts(outcomes)
    assert (found["mutants"], found["score"]) == (9, 7 / 9)


def recorded(
    name: str, seconds: dict[str, float], reached: dict[str, list[str]]
) -> choosing.Recorded:
    whole = {f"{name}::{test}": s for test, s in seconds.items()}
    lines = {line: [f"{name}::{test}" for test in tests] for line, tests in reached.items()}
    return choosing.Recorded(whole, [], {MODULE: lines}, [MODULE])


NEAR, FAR, OTHER = "tests/test_metrics.py", "tests/stages/test_x.py", "tests/stages/test_y.py"
RECORDS = {
    FAR: recorded(FAR, {"one": 1.0, "two": 2.0}, {"5": ["two"], "6": ["one"], "7": []}),
    NEAR: recorded(NEAR, {"a": 3.0, "b": 1.0}, {"5": ["a"]}),
    OTHER: recorded(OTHER, {"z": 1.0}, {}),
}


def choose(lines: range, most_s: float = 100.0) -> choosing.Chosen:
    return choosing.choose(RECORDS, MODULE, lines, "metrics", most_s)


def test_the_tests_of_a_mutant_are_those_that_execute_it_and_then_those_of_its_module() -> None:
    chosen = choose(range(5, 6))
    assert chosen.tests == [f"{NEAR}::a", f"{FAR}::two", f"{NEAR}::b", f"{FAR}::one"]
    assert (chosen.of, chosen.reached) == (4, True)
    # Five seconds, five times its own time, and twice that of the longest one beside it.
    assert chosen.limits[f"{FAR}::one"] == 5 + 5 + 4


def test_tests_that_take_too_long_together_are_left_out() -> None:
    chosen = choose(range(5, 6), most_s=4.5)
    assert chosen.tests == [f"{NEAR}::a", f"{NEAR}::b"]
    assert chosen.of == 4


def test_a_module_of_tests_that_takes_too_long_runs_as_a_whole_and_last() -> None:
    chosen = choosing.choose(RECORDS, MODULE, range(8, 9), "metrics", 4.5, ["tests/test_long.py"])
    assert chosen.reached
    assert chosen.tests[-1] == "tests/test_long.py"
    assert chosen.whole == ["tests/test_long.py"]


ENDLESS = """
from hypothesis import given, strategies as st

@given(st.integers())
def test_that_never_ends(number):
    while True:
        pass
"""


def test_a_loop_that_hypothesis_runs_again_ends_at_its_limit(tmp_path: Path) -> None:
    (tmp_path / "test_endless.py").write_text(ENDLESS)
    test = "test_endless.py::test_that_never_ends"
    program = f"""
import json, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import mutant_tests
mutant_tests._GRACE_S = 0.5
chosen = mutant_tests.Chosen([{test!r}], {{{test!r}: 0.5}}, 1, True)
print(json.dumps(mutant_tests.run_chosen(chosen)))
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["timed_out"], found["failed"][0]) == (True, test), done.stdout + done.stderr
    assert found["exit"] != 0


def test_what_a_module_of_tests_imports_is_found_through_what_tests_share() -> None:
    found = choosing.imports(REPOSITORY, "tests/training/test_update_gradient.py")
    assert "gmp_atl_dist.training.engine" in found or "gmp_atl_dist.training.loop" in found
    assert "gmp_atl_dist.recipes.retrain" in found, "by support.gangs"


def test_a_line_that_only_an_import_executes_is_tested_by_the_tests_of_its_module() -> None:
    assert choose(range(7, 8)).reached
    assert not choose(range(8, 9)).reached


def test_the_page_explains_each_survivor_once() -> None:
    text = PAGE.read_text()
    rows = re.findall(r"^\| `([0-9a-f]{8})` \| (.+?) \| (.+) \| (.+?) \|$", text, re.MULTILINE)
    keys = [row[0] for row in rows]
    assert set(keys) == report.explained(PAGE)
    assert len(keys) == len(set(keys))
    for key, module, _, reason in rows:
        name = module.strip("`").partition(":")[0]
        assert (REPOSITORY / "gmp_atl_dist" / name).is_file(), f"{key}: there is no {name} any more"
        assert len(reason) > 20, f"{key} needs a reason"


def digest(folder: Path) -> str:
    listed = subprocess.run(
        ["git", "-C", str(folder), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        check=True,
        capture_output=True,
        text=True,
    )
    files = [folder / name for name in listed.stdout.split("\0") if name]
    whole = hashlib.sha256()
    for file in files:
        whole.update(f"{file}\0".encode() + (file.read_bytes() if file.is_file() else b""))
    return whole.hexdigest()


@pytest.mark.nightly
def test_a_run_leaves_the_checkout_alone_and_is_continued(tmp_path: Path) -> None:
    pytest.importorskip("cosmic_ray")
    pytest.importorskip("coverage")
    command = [sys.executable, str(REPOSITORY / "tests" / "mutants" / "mutants.py")]
    command += ["--only", MODULE, "--tests", "tests/test_metrics.py", "--session", str(tmp_path)]
    before = digest(REPOSITORY)
    first = subprocess.run([*command, "--count", "3"], capture_output=True, text=True, check=False)
    found = json.loads(first.stdout.splitlines()[-1])
    assert found["mutants"] + found["unclear"] == 3, first.stdout + first.stderr
    assert found["killed"] >= 1
    second = subprocess.run([*command, "--count", "4"], capture_output=True, text=True, check=False)
    assert json.loads(second.stdout.splitlines()[-1])["mutants"] >= found["mutants"]
    assert "4 of 4:" in second.stdout
    assert "3 of 4:" not in second.stdout
    assert "recorded" not in second.stdout
    assert digest(REPOSITORY) == before
