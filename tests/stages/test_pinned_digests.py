"""Fingerprints last: the digests of every stage of the shipped configurations are pinned.

A digest here changes only by decision. A key that is added to the science configuration declares the
value at which it is left out (``config/hashing.py``), and then no digest changes. When a stage writes
other bytes for the same inputs, its ``version`` is raised, and the digests from that stage on are pinned
again in the same commit: ``python tests/stages/test_pinned_digests.py`` writes them.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field

from gmp_atl_dist import pipeline
from gmp_atl_dist.config import (
    Added,
    RunConfig,
    Scale,
    Section,
    WarmupConfig,
    canonical_json,
    hashed,
)
from gmp_atl_dist.config.file import load_config
from gmp_atl_dist.corpora.reading import CorpusListing
from gmp_atl_dist.fold import Fold
from gmp_atl_dist.records import StoredUtterance, utterances_to_table
from gmp_atl_dist.stages.base import Handle, Pending, Stage
from gmp_atl_dist.stages.ingest import Ingest
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.readers import INDEX_PART
from gmp_atl_dist.store.writer import ArtifactWriter

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIGURATIONS = sorted(path.stem for path in (REPOSITORY / "configs").glob("*.toml"))
PINNED = Path(__file__).with_name("pinned_digests.json")
FOLD = Fold("fold1", train_speakers=("c", "d"), test_speakers=("a",), valid_speakers=("b",))
UTTERANCES = [
    StoredUtterance(f"u{s}", s, "female", "happy", "1", "", 16_000, s * 64, "part", row)
    for row, s in enumerate("abcd")
]


LISTING = CorpusListing((), {}, "a stamp", (), ())
"""Of a corpus that never changes."""


def digests(config: RunConfig, folder: Path) -> dict[str, str]:
    """The fingerprint of every stage, for a corpus, a model and a fold that never change."""
    store = Store.open(str(folder))
    found: dict[str, str] = {}

    def fixed(kind: str) -> Artifact:
        out = ArtifactWriter(store, ArtifactKey(kind, kind[0] * 64))
        out.put_part(INDEX_PART, utterances_to_table(UTTERANCES))
        notes = {"num_layers": "12", "source": "a model"}
        return out.seal(version=1, science={}, inputs={}, identity=kind[0] * 64, notes=notes)

    def note(stage: Stage) -> Handle:
        if isinstance(stage, Ingest):
            found[stage.label] = replace(stage, read=lambda *_: LISTING).key.fingerprint
        else:
            found[stage.label] = stage.key.fingerprint
        return Pending(stage) if stage.identity_is_fingerprint else fixed(stage.kind)

    pipeline.method(config, store, note, lambda *_: (FOLD,))
    return found


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_digests_of_a_shipped_configuration_are_as_pinned(name: str, tmp_path: Path) -> None:
    pinned = json.loads(PINNED.read_text())
    config = load_config(REPOSITORY / "configs" / f"{name}.toml")
    assert digests(config, tmp_path) == pinned[name], (
        "the identity of artefacts changed; see the docstring of this module"
    )


class _Warmup(WarmupConfig):
    """What a later release may add."""

    ema_decay: Annotated[float, Field(ge=0, lt=1), Added("0.3.0", left_out_at=0.0)] = 0.0


class _Extra(Section):
    strength: float = 1.0


class _Run(RunConfig):
    warmup: WarmupConfig = _Warmup()  # pyright: ignore[reportIncompatibleVariableOverride]
    extra: Annotated[_Extra, Added("0.3.0", left_out_at=_Extra())] = _Extra()


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_an_added_key_or_section_at_its_default_changes_no_digest(
    name: str, tmp_path: Path
) -> None:
    config = load_config(REPOSITORY / "configs" / f"{name}.toml")
    values = {section: getattr(config, section) for section in RunConfig.model_fields}
    values["warmup"] = _Warmup.model_validate(config.warmup.model_dump())
    later = _Run.model_construct(**values)
    assert "ema_decay" in later.warmup.model_dump()
    assert digests(later, tmp_path) == json.loads(PINNED.read_text())[name]

    other = later.model_copy(
        update={"warmup": later.warmup.model_copy(update={"ema_decay": 0.999})}
    )
    changed = digests(other, tmp_path)
    before = digests(later, tmp_path)
    assert {label for label in before if before[label] != changed[label]} == {
        label
        for label in before
        if not label.startswith(("ingest", "combine", "backbone"))
        and not label.split()[0][-1].isdigit()
        if label.split()[0] != "mfcc"
    }, "at another value it changes the stages from warmup on, and no other"
    extended = later.model_copy(update={"extra": _Extra(strength=2.0)})
    assert digests(extended, tmp_path)["report"] != before["report"]


class _Scale(Scale):
    weight: Annotated[float, Added("0.3.0", left_out_at=1.0)] = 1.0


class _Holder(Section):
    scales: tuple[_Scale, ...] = (_Scale(layer=1, k=2), _Scale(layer=2, k=3, weight=0.5))


def test_a_key_of_a_nested_section_is_left_out_at_its_declared_value() -> None:
    first, second = json.loads(canonical_json(hashed(_Holder())))["scales"]
    assert "weight" not in first
    assert second["weight"] == 0.5
    assert [s["weight"] for s in _Holder().model_dump()["scales"]] == [1.0, 0.5], "shown in full"


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        values = {
            name: digests(load_config(REPOSITORY / "configs" / f"{name}.toml"), Path(folder) / name)
            for name in CONFIGURATIONS
        }
    PINNED.write_text(json.dumps(values, indent=1, sort_keys=True) + "\n")
