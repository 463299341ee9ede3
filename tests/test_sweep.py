"""A sweep in one process: shared stages once, failed cells named, resumed, recorded."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from support.one_process import no_ray
from support.sweeps import write_sweep_files

from gmp_atl_dist.cli.main import main
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.sweeps.record import SweepRecord, read_sweep

pytest_plugins = ["support.one_process"]

ARMS = """
[[arms]]
name = "plain"
[[arms]]
name = "ce"
set = { "finetune.loss" = "cross_entropy" }
[[arms]]
name = "many"    # fold 2 trains on too few frames for so many clusters
set = { "cluster.scales" = [{ layer = 2, k = 600 }] }
"""


class Ran:
    """A sweep with a planted failure, and what it left."""

    def __init__(self, folder: Path, corpus: Path) -> None:
        self.path, self.root = write_sweep_files(folder, corpus, ARMS, seeds=1), folder / "root"
        self.folder = folder

    def command(self, *words: str) -> int:
        with no_ray():
            return main(["sweep", "-c", str(self.path), *words])

    @property
    def record(self) -> SweepRecord:
        found = read_sweep(Store.open(str(self.root)), "s")
        assert found is not None
        return found

    def sealed(self) -> Counter[str]:
        return Counter(p.parent.parent.name for p in self.root.glob("artifacts/*/*/_manifest.json"))


@pytest.fixture(scope="module")
def ran(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    made = Ran(tmp_path_factory.mktemp("sweep"), tiny_corpus)
    assert made.command() == 9
    return made


def test_what_cells_share_is_computed_once(ran: Ran) -> None:
    # 2 folds; plain and ce share all but finetune; many shares warmup and extract, and fails in one.
    assert ran.sealed() == {
        **{"ingest": 1, "backbone": 1, "warmup": 2, "extract": 2},
        **{"cluster": 3, "codebook": 3, "label": 3, "retrain": 3},
        **{"finetune": 5, "evaluate": 5, "report": 2},
    }


def test_failed_cells_are_named_and_do_not_stop_the_others(ran: Ran) -> None:
    record = ran.record
    assert len(record.cells) == 6
    assert [cell.name for cell in record.failed] == ["many fold2 seed 0"]
    for cell in record.failed:
        assert cell.stage == "cluster"
        assert "600" in cell.message
    assert record.count("done") == 5
    assert record.state == "failed"
    for cell in record.cells:
        if cell.state == "done":
            assert set(cell.scores) == {"war", "uar"}
            assert cell.utterances == (8 if cell.fold == "fold1" else 24)
            assert (ran.root / "artifacts/evaluate" / cell.evaluate / "_manifest.json").exists()
    assert {(r.arm, r.seed) for r in record.reports} == {("plain", 0), ("ce", 0)}
    assert all(
        (ran.root / "artifacts/report" / report.fingerprint).is_dir() for report in record.reports
    )


def test_each_arm_and_seed_is_a_run(ran: Ran, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "--root", str(ran.root), "--json"]) == 0
    runs = {run["name"]: run["run_state"] for run in json.loads(capsys.readouterr().out)}
    good = {f"s-{arm}-seed0": "done" for arm in ("plain", "ce")}
    assert runs == {**good, "s-many-seed0": "failed"}


def test_the_same_command_again_runs_only_what_failed(
    ran: Ran, capsys: pytest.CaptureFixture[str]
) -> None:
    before = ran.sealed()
    assert ran.command() == 9
    said = capsys.readouterr()
    assert said.out.count(": running, ") == 1
    assert "many seed 0: cluster fold2: running" in said.out
    assert "1 of 6 cells failed, 5 are done" in said.err
    assert "many fold2 seed 0, cluster: " in said.err
    assert ran.sealed() == before
    assert len(ran.record.attempts) == 2


def test_a_dry_run_counts_unique_stages_and_runs_nothing(
    ran: Ran, tiny_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fresh = Ran(tmp_path, tiny_corpus)
    assert fresh.command("--dry-run") == 0
    out = capsys.readouterr().out
    # ingest, backbone, 2 x (warmup, extract), 4 x (cluster, label, retrain), 2 x 6 of cells, 3 reports.
    assert "3 arms x 2 folds x 1 seed = 6 cells" in out
    assert "33 unique stages; the arms, folds and seeds alone would run 51" in out
    assert "0 are there already, 33 to run" in out
    assert "runtime.train: 1 x (1 core)" in out
    assert "no estimate" in out
    assert not fresh.root.exists()

    assert ran.command("--dry-run", "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["unique"], plan["cells"]) == (33, 6)
    left = Counter(stage["label"].partition(" ")[0] for stage in plan["to_run"])
    assert left == dict.fromkeys(
        ["cluster", "label", "retrain", "finetune", "evaluate", "report"], 1
    )
    assert plan["wall_s"] > 0


def test_status_shows_the_grid(ran: Ran, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "s", "--root", str(ran.root)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("sweep s below ")
    assert "/root: failed, started " in out
    assert "5 of 6 cells done, 1 failed" in out
    assert "many fold2 seed 0: cluster: " in out
    assert main(["status", "-c", str(ran.path), "--json"]) == 0
    assert SweepRecord.model_validate_json(capsys.readouterr().out) == ran.record


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ('"folds.held_out" = [["Session2"], ["Session1"]]', "in fold1, such as 'Ses01"),
        ('"folds.held_out" = [["Session1"]]', "fold1, fold2 and fold1"),
        (
            '"corpus.merge" = { happy = "sad" }, "corpus.emotions" = ["sad", "angry", "neutral"]',
            "differ in",
        ),
    ],
)
def test_arms_with_other_test_sets_are_refused_before_anything_runs(
    tiny_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], other: str, said: str
) -> None:
    arm = f'[[arms]]\nname = "other"\nset = {{ {other} }}\n'
    made = Ran(tmp_path, tiny_corpus)
    write_sweep_files(tmp_path, tiny_corpus, ARMS + arm)
    assert made.command() == 2
    err = capsys.readouterr().err
    assert "arms 'plain' and 'other' are not tested on the same utterances" in err
    assert said in err
    assert not list(tmp_path.glob("root/artifacts/*"))


def test_other_validation_is_no_other_test_set(tiny_corpus: Path, tmp_path: Path) -> None:
    made = Ran(tmp_path, tiny_corpus)
    write_sweep_files(
        tmp_path, tiny_corpus, ARMS + '[[arms]]\nname = "v"\nset = { "folds.valid" = "next" }\n'
    )
    assert made.command("--dry-run") == 0
