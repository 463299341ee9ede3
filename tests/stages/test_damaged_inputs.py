"""A later stage stops at a damaged model, before anything is computed from it."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from support.one_process import FOLD, Tiny, context_of, finish, no_ray
from support.plans import plan_of

from gmp_atl_dist import runtime
from gmp_atl_dist.config import ExtractConfig, FinetuneConfig, Json
from gmp_atl_dist.console import Reporter
from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.stages.base import Context, Handle, Seal, Stage, told_of_other_inputs
from gmp_atl_dist.stages.extract import Extract
from gmp_atl_dist.stages.finetune import Finetune
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.training_set import TrainingSet
from gmp_atl_dist.store.writer import ArtifactWriter

pytest_plugins = ["support.one_process"]

WEIGHTS = "model.safetensors"


class Doubled(Stage):
    """Writes the weights of its input twice."""

    kind = "doubled"

    def __init__(self, model: Artifact) -> None:
        self.model = model

    def science(self) -> dict[str, Json]:
        return {}

    def inputs(self) -> Mapping[str, Handle]:
        return {"model": self.model}

    def run(self, context: Context, out: ArtifactWriter) -> Seal:
        out.put_file(WEIGHTS, 2 * self.model.read_file(WEIGHTS))
        return Seal()


@pytest.fixture
def context(tiny: Tiny, tmp_path: Path) -> Context:
    return context_of(tmp_path / "root", tiny.folder)


@pytest.fixture
def damaged_warmup(tiny: Tiny, context: Context) -> Artifact:
    """The files of a warm-up, sealed, and then three bytes of its weights flipped. The file still loads."""
    writer = ArtifactWriter(context.store, ArtifactKey("warmup", "a" * 64))
    for name, data in tiny.backbone.read_files().items():
        writer.put_file(name, data)
    warmup = writer.seal(version=1, science={}, inputs={})
    path = f"{warmup.key.prefix}/files/{WEIGHTS}"
    data = bytearray(context.store.read(path))
    for offset in (-1000, -2000, -3000):
        data[offset] ^= 1
    context.store.put(path, bytes(data))
    return warmup


def later_stages(tiny: Tiny, warmup: Artifact) -> tuple[Stage, ...]:
    training = TrainingSet(tiny.corpus, FOLD.training_speakers())
    layers = ExtractConfig(layers=(2,))
    config = FinetuneConfig.model_validate({"epochs": 1, "batch_s": 3.0, "embedding_dim": 16})
    return (
        Extract(layers, warmup, training, plan_of()),
        Finetune(config, tiny.corpus, warmup, FOLD, None),
    )


@pytest.mark.parametrize("which", [0, 1])
def test_three_flipped_bytes_of_a_warmup_stop_the_later_stage(
    tiny: Tiny, context: Context, damaged_warmup: Artifact, which: int
) -> None:
    stage = later_stages(tiny, damaged_warmup)[which]
    place = re.escape(f"{context.store.uri}/{damaged_warmup.key.prefix}/files/{WEIGHTS}")
    expected = damaged_warmup.receipts[f"files/{WEIGHTS}"].sha256[:12]
    with no_ray(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime, "train", lambda *_, **__: pytest.fail("a gang was started"))
        with pytest.raises(
            ArtifactError,
            match=rf"{place} is damaged: .* sha256 \w{{12}}, its receipt states \d+ bytes with "
            rf"{expected}; run gmp-atl repair",
        ):
            finish(stage, context)
    written = {entry.path for entry in context.store.list(stage.key.prefix)}
    assert not [path for path in written if "/parts/" in path or "/files/" in path]


def test_a_run_says_what_was_made_from_an_earlier_model(
    context: Context,
) -> None:
    """The model was lost and made again with other bytes: what was made from the old one is not silent."""

    def model(weights: bytes, story: bytes = b"{}") -> Artifact:
        writer = ArtifactWriter(context.store, ArtifactKey("warmup", "b" * 64))
        writer.put_file(WEIGHTS, weights)
        writer.put_file("training.json", story)
        return writer.seal(version=1, science={}, inputs={})

    said = io.StringIO()
    context = replace(context, reporter=Reporter(terminal=False, out=said, err=said))
    made = finish(Doubled(model(b"first")), context)
    told_of_other_inputs(Doubled(model(b"first", b'{"resumed_at": [3]}')), made, context)
    assert said.getvalue() == ""
    stage = Doubled(model(b"second"))
    assert finish(stage, context).key == made.key
    told_of_other_inputs(stage, made, context)
    line = f"doubled {made.key.fingerprint[:12]} was made from an earlier model, which was"
    assert line in said.getvalue()
    assert f"gmp-atl repair --root {context.store.uri}" in said.getvalue()
