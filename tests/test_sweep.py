"""A sweep in one process: shared stages once, failed cells named, resumed, recorded."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from support.one_process import no_ray
from support.sweeps import write_sweep_files

from gmp_atl_dist.cli.main import main
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.runs import read_run
from gmp_atl_dist.sweeps.page import write_page
from gmp_atl_dist.sweeps.record import SweepRecord, read_sweep, write_sweep

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


def test_a_sweep_is_compared_by_its_name_or_by_its_arms(
    ran: Ran, capsys: pytest.CaptureFixture[str]
) -> None:
    root = ("--root", str(ran.root))
    places = (["s"], [str(ran.path)], [f"{ran.root}/sweeps/s"], [f"{ran.root}/sweeps/s/sweep.json"])
    for words in places:
        assert main(["compare", *words, *root]) == 4
        err = capsys.readouterr().err
        assert "no report of these runs yet" in err
        assert "compare the arms that are done: s:plain s:ce:" in err
        assert "- many seed 0: fold2 failed in cluster" in err
    for words in (["s:ce", "s:plain"], [f"{ran.path}:ce", f"{ran.root}/sweeps/s:plain"]):
        assert main(["compare", *words, *root, "--baseline", "plain", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert [arm["name"] for arm in found["arms"]] == ["ce", "plain"]
        assert [run["name"] for run in found["arms"][0]["runs"]] == ["ce seed 0"]
        assert found["arms"][1]["difference"] is None
    assert main(["compare", "s:ce", "s-plain-seed0", *root]) == 0
    assert "arms on the same 32 test utterances" in capsys.readouterr().out
    for words, said in (
        (["s:some", "s:ce"], "no arm 'some'; its arms are plain, ce, many"),
        (["s:ce"], "one run alone"),
        ([f"{ran.root}/sweeps/t", "s:ce"], "no sweep 't' is recorded"),
        (["t:ce", "s:ce"], "'t:ce' is no run"),
    ):
        assert main(["compare", *words, *root]) == 2
        assert said in capsys.readouterr().err


def test_what_the_workers_held_is_the_cost(ran: Ran, capsys: pytest.CaptureFixture[str]) -> None:
    record, store = ran.record, Store.open(str(ran.root))
    done = [
        s
        for name in ("plain", "ce", "many")
        if (r := read_run(store, f"s-{name}-seed0"))
        for s in r.stages
        if s.state == "done"
    ]
    # Whichever cell comes first computes what several share.
    held = {stage.name: stage.held for stage in done}
    assert held["warmup"] == {"CPU": 1}
    assert held["backbone"] == {"CPU": 0}
    expected = sum((s.duration_s or 0) * s.held["CPU"] for s in done) / 3600
    assert record.device_hours["CPU"] == pytest.approx(expected, rel=0.2)
    page = json.loads((ran.root / "sweeps/s/sweep_report.json").read_text())
    assert 0 < page["cost"]["device_hours"]["CPU"] <= record.device_hours["CPU"] * 1.2
    assert page["cost"]["price"] is None

    assert main(["status", "s", "--root", str(ran.root)]) == 0
    assert re.search(r"^so far \S+ core-hours, 0 GPU-hours$", capsys.readouterr().out, re.MULTILINE)
    priced = record.model_copy(update={"prices": {"CPU": 36_000.0}, "currency": "EUR"})
    write_sweep(store, priced)
    assert main(["status", "s", "--root", str(ran.root)]) == 0
    told = f"0 GPU-hours, {36_000 * record.device_hours['CPU']:,.2f} EUR\n"
    assert told in capsys.readouterr().out
    path = write_page(store, priced, audio=True)
    assert path is not None
    html = (ran.root / path).read_text()
    assert "Price (EUR)" in html
    assert 0 < html.count("<audio controls") <= 20
    assert "Audio is not included" not in html
    write_page(store, record)
    assert "<audio" not in (ran.root / path).read_text()
    write_sweep(store, record)

    price = ["--set", "runtime.price.core_hour=36000", "--set", "runtime.price.currency=EUR"]
    assert ran.command("--dry-run", "--json", *price) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["price"] == pytest.approx(36_000 * plan["core_hours"])
    assert ran.command("--dry-run", *price) == 0
    assert f", {plan['price']:,.2f} EUR, by what stages took" in capsys.readouterr().out
    assert ran.command("--dry-run") == 0
    assert "EUR" not in capsys.readouterr().out


def test_the_same_command_again_runs_only_what_failed(
    ran: Ran, capsys: pytest.CaptureFixture[str]
) -> None:
    before = ran.sealed()
    assert ran.command() == 9
    said = capsys.readouterr()
    assert said.out.count(": running, ") == 1
    assert "many seed 0: cluster fold2: running" in said.out
    assert "sweep s: 6 cells, 5 of them done before; 33 unique stages of 51, " in said.out
    assert ": UAR " not in said.out, "a cell that was done before was announced again"
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


def test_a_dry_run_counts_fused_labels_before_anything_is_ingested(
    tiny_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fused = '{ "label.fused" = true%s }'
    arms = "".join(
        f'[[arms]]\nname = "{name}"\nset = {fused % change}\n'
        for name, change in (
            ("fused", ""),
            ("fused_ce", ', "finetune.loss" = "cross_entropy"'),
            ("other_sample", ', "cluster.sample_frames" = 9'),
        )
    )
    made = Ran(tmp_path, tiny_corpus)
    write_sweep_files(tmp_path, tiny_corpus, arms + '[[arms]]\nname = "plain"\n', seeds=1)
    assert made.command("--dry-run", "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    kinds = Counter(stage["label"].partition(" ")[0] for stage in plan["to_run"])
    assert kinds == {
        **{"ingest": 1, "backbone": 1, "warmup": 2, "finetune": 8, "evaluate": 8, "report": 4},
        # Of two folds: one for both fused arms, one of another sample, one of all frames.
        **dict.fromkeys(("extract", "cluster", "label", "retrain"), 6),
    }
    assert not made.root.exists()


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
