"""Parts of the proof on a GPU: what is kept of a part that fails, tables, exit codes; the script on a CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from benchmarks import gpu
from benchmarks.harness.gpu import Card
from benchmarks.harness.parts import Part, Row, markdown, run_part
from benchmarks.inputs.spoken import Lengths, lengths_s
from benchmarks.subjects.gpu_profile import union
from tests.support.gpu_parts import dies, fails, hangs

REPOSITORY = Path(__file__).resolve().parents[2]
CPU = Card("CPU", "cpu", None, None, None, "2")


def test_a_part_that_fails_keeps_its_figures(tmp_path: Path) -> None:
    part = run_part("demo", fails, tmp_path, 100)
    assert [row.what for row in part.rows] == ["before"]
    assert part.error.splitlines()[0] == "ValueError: no such thing"
    dead = run_part("memory", dies, tmp_path, 100)
    assert [row.value for row in dead.rows] == [1.0]
    assert "-9" in dead.error


@pytest.mark.nightly
def test_a_part_whose_time_is_over_ends_with_all_that_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    part = run_part("kmeans", partial(hangs, pids), tmp_path, 30)
    assert part.error == "its 30 s are over; the figures so far are kept"
    assert (part.rows[0].value, part.rows[0].note) == (None, "nan")
    numbers = [int(number) for number in pids.read_text().split()]
    assert len(numbers) == 2
    states = [_state(number) for number in numbers]
    assert set(states) <= {"gone", "Z"}


def _state(pid: int) -> str:
    """Of a process as ps shows it; one that nobody has waited for is Z."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.read_text().rpartition(")")[2].split()[0] if stat.exists() else "gone"


def test_the_exit_code_names_the_first_part_that_failed() -> None:
    good, bad = Part("correctness", 1.0), Part("training", 1.0, error="because")
    later = Part("hidden", 1.0, error="because")
    assert gpu.exit_code(gpu.figures([good])) == 0
    assert gpu.exit_code(gpu.figures([good, later, bad])) == 104
    assert gpu.exit_code(gpu.figures([good, later])) == 109


def test_the_times_of_all_parts_are_25_minutes() -> None:
    assert sum(subject.seconds for subject in gpu.PARTS.values()) == 25 * 60


def test_json_and_table_have_the_card_and_what_failed(tmp_path: Path) -> None:
    rows = (Row("a | b", 0.51234, "s", key="demo_s", goal=">= 0.5"), Row("c", None, note="why"))
    parts = [Part("demo", 2.0, rows), Part("hidden", 1.0, error="first\nsecond")]
    gpu.write(tmp_path, Card("Some Card", "cuda", 80.0, "9.0", "13.0", "2.11"), parts)
    content = json.loads((tmp_path / "gpu.json").read_text())
    assert content["card"]["name"] == "Some Card"
    assert content["parts"][0]["rows"][0]["value"] == 0.51234
    lines = (tmp_path / "gpu.md").read_text().splitlines()
    assert lines[0] == "## Measured on Some Card"
    assert "| demo | a / b | 0.5123 s | >= 0.5 |  |" in lines
    assert "| demo | c | not measured (why) |  | why |" in lines
    assert "| hidden | whole part | 1 s | | FAILED: first |" in lines
    assert "no figure means anything" not in "\n".join(lines)
    assert "no figure means anything" in markdown("x", "", []) + _text_of_cpu(tmp_path)


def _text_of_cpu(folder: Path) -> str:
    gpu.write(folder, CPU, [])
    return (folder / "gpu.md").read_text()


def test_what_several_kernels_cover_counts_once() -> None:
    assert union([(0, 2), (1, 3), (5, 6), (5, 5.5)]) == 4
    assert union([]) == 0


def test_lengths_are_those_of_the_corpora() -> None:
    kinds: dict[Lengths, float] = {"iemocap": 4.46, "librispeech": 12.3}
    for kind, mean_s in kinds.items():
        found = lengths_s(kind, 20_000)
        assert sum(found) / len(found) == pytest.approx(mean_s, rel=0.05)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_script_runs_on_a_cpu(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--quick", "--out", str(tmp_path)]
    done = subprocess.run(
        [*command, "--minutes", "90"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    line = json.loads(done.stdout.splitlines()[-1])
    content = json.loads((tmp_path / "gpu.json").read_text())
    named = [name for name in gpu.PARTS if name != "demo"]
    assert [part["name"] for part in content["parts"]] == named
    assert line["parts_done"] == len(named)
    # What needs a GPU, or a size that a CPU is not given.
    absent = {"extract_mfu_base", "extract_mfu_large", "extract_busy", "profile_busy", "demo_s"}
    absent |= {"extract_times_real_time_base", "extract_times_real_time_large"}
    absent |= {"train_mfu_base", "train_mfu_large"}
    # Differences of two times, which a busy machine turns around.
    absent |= {"layer_products_share", "kmeans_roofline_k500", "kmeans_roofline_k2000"}
    assert {key for key in gpu.KEYS if line[key] is None} <= absent
    assert line["frames_error_fp32"] <= 1e-5 < line["frames_error_bf16"] < 0.05
    assert line["labels_equal_k500"] >= 0.99
    assert line["kmeans_agreement"] >= 0.99
    assert (line["backoff_ok"], line["hidden_ok"]) == (1, 1)
