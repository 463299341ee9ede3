"""What identifies the artefacts of a run without pretraining: roots that were filled before stay valid."""

from __future__ import annotations

from pathlib import Path

import pytest

from gmp_atl_dist.config import RunConfig, canonical_json
from gmp_atl_dist.config.file import parse_config
from gmp_atl_dist.fold import Fold
from gmp_atl_dist.pipeline import one_fold
from gmp_atl_dist.records import StoredUtterance, utterances_to_table
from gmp_atl_dist.stage_order import all_stage_names, stage_names
from gmp_atl_dist.stages.base import Pending, Stage
from gmp_atl_dist.stages.report import Report
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.readers import INDEX_PART
from gmp_atl_dist.store.writer import ArtifactWriter

FOLD = Fold("fold1", train_speakers=("c", "d"), test_speakers=("a",), valid_speakers=("b",))
UTTERANCES = [
    StoredUtterance(f"u{s}", s, "female", "happy", "1", "", 16_000, s * 64, "part", row)
    for row, s in enumerate("abcd")
]

# Input -> whose fingerprint it is; the corpus and the backbone are there before.
INPUTS = {
    "warmup fold1": ["backbone", "ingest"],
    "extract fold1": ["ingest", "warmup fold1"],
    "cluster fold1": ["extract fold1", "ingest"],
    "label fold1": ["cluster fold1", "extract fold1", "ingest"],
    "retrain fold1": ["backbone", "cluster fold1", "ingest", "label fold1"],
    "finetune fold1": ["ingest", "retrain fold1"],
    "evaluate fold1": ["finetune fold1", "ingest"],
}


def walk(root: Path, config: RunConfig) -> dict[str, Stage]:
    """All stages from ``warmup`` on, for a corpus and a backbone that stand still."""
    found: dict[str, Stage] = {}

    def look(stage: Stage) -> Pending:
        found[stage.label] = stage
        return Pending(stage)

    def sealed(kind: str) -> Artifact:
        out = ArtifactWriter(Store.open(str(root)), ArtifactKey(kind, kind[0] * 64))
        out.put_part(INDEX_PART, utterances_to_table(UTTERANCES))
        return out.seal(version=1, science={}, inputs={}, identity=kind[0] * 64)

    corpus, backbone = sealed("ingest"), sealed("backbone")
    fold = one_fold(config, corpus, backbone, FOLD, look)
    look(Report(config, corpus, backbone, (fold,)))
    return found


def fingerprints(stages: dict[str, Stage]) -> dict[str, str]:
    return {label: stage.key.fingerprint for label, stage in stages.items()}


def test_without_pretraining_no_stage_knows_of_it(tmp_path: Path) -> None:
    stages = walk(tmp_path, RunConfig())
    names = {f: label for label, f in fingerprints(stages).items()}
    names |= {"i" * 64: "ingest", "b" * 64: "backbone"}
    found = {
        label: sorted(names[handle.identity] for handle in stage.inputs().values())
        for label, stage in stages.items()
    }
    report = found.pop("report")

    assert found == INPUTS
    assert report == sorted([*INPUTS, "ingest", "backbone"])
    for stage in stages.values():
        assert "pretrain" not in canonical_json(stage.science())
        assert not any("pretrain" in name for name in stage.inputs())


@pytest.mark.parametrize(
    "values",
    [
        {"steps": 3},
        {"layer": 3},
        {"seed": 3},
        {"k": [3, 4]},
        {"micro_batches": 1},
        {"freeze_conv": True},
    ],
)
def test_without_pretraining_what_is_said_of_it_does_not_matter(
    tmp_path: Path, values: dict[str, object]
) -> None:
    config = parse_config({"pretrain": values}, "the test's configuration")
    expected = fingerprints(walk(tmp_path, RunConfig()))
    assert fingerprints(walk(tmp_path, config)) == expected


def test_pretraining_is_what_warm_up_and_retraining_start_from(tmp_path: Path) -> None:
    stages = walk(tmp_path, pretrained(2))
    last = stages["pretrain2 fold1"].key.fingerprint
    stock = "b" * 64
    for label in ("pretrain1 fold1", "pretrain2 fold1"):
        assert stages[label].inputs()["backbone"].identity == stock, "random weights each time"
    for label in ("warmup fold1", "retrain fold1"):
        assert stages[label].inputs()["backbone"].identity == last
    first = stages["pretrain1 fold1"].key.fingerprint
    assert stages["extract2 fold1"].inputs()["pretrain"].identity == first
    assert [name for name in stages if name != "report"] == [
        f"{name} fold1" for name in all_stage_names()[2:-1]
    ]


def test_the_second_iteration_does_not_change_the_first(tmp_path: Path) -> None:
    one, two = (fingerprints(walk(tmp_path, pretrained(n))) for n in (1, 2))
    other = fingerprints(walk(tmp_path, pretrained(2, k=[100, 7], layer=2, second_steps=9)))
    for label in ("mfcc fold1", "cluster1 fold1", "label1 fold1", "pretrain1 fold1"):
        assert one[label] == two[label] == other[label]
    for label in ("extract2 fold1", "cluster2 fold1", "pretrain2 fold1", "warmup fold1"):
        assert two[label] != other[label]
    assert one["warmup fold1"] != two["warmup fold1"]


def test_the_stages_of_a_configuration() -> None:
    assert stage_names(RunConfig()) == (*all_stage_names()[:2], *all_stage_names()[10:])
    assert stage_names(pretrained(1)) == (*all_stage_names()[:6], *all_stage_names()[10:])
    assert stage_names(pretrained(2)) == all_stage_names()


def pretrained(iterations: int, **keys: object) -> RunConfig:
    raw = {"model": {"source": "random:tiny"}, "pretrain": {"iterations": iterations, **keys}}
    return parse_config(raw, "the test's configuration")
