"""Finds a trained classifier by what people call it: a folder, a run's name, or a fingerprint."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gmp_atl_dist.config import RuntimeConfig
from gmp_atl_dist.errors import ArtifactError, ConfigError
from gmp_atl_dist.runs.names import known_runs, read_runs
from gmp_atl_dist.store.artifact import Artifact, find_artifact, list_artifacts
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.layout import open_root
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.run_state import stage_state
from gmp_atl_dist.store.runs import RunRecord, StageRun, check_run_name, read_run

CLASSIFIER = "finetune"
"""The stage and the kind of artefact that hold a classifier."""
_CONFIG = "config.json"
_FINGERPRINT = re.compile(r"[0-9a-f]{4,64}")


@dataclass(frozen=True)
class ModelReference:
    """A model that was found.

    Attributes:
        uri: folder or URI of its files, for ``models.stored.load_emotion_model``.
        label: what people call it.
        record: the run that made it; None if that is not known.
        fold: name of the fold, e.g. ``fold1``; empty if it is not known.
    """

    uri: str
    label: str
    record: RunRecord | None = None
    fold: str = ""


def resolve_model(
    reference: str, *, root: str | None = None, fold: int | None = None
) -> ModelReference:
    """The classifier that ``reference`` names.

    Args:
        reference: a folder or URI of model files (of an artefact, or exported), a run's name, or the
            fingerprint of a ``finetune`` artefact, or how it begins (4 characters or more).
        root: folder or URI of all artefacts, for a name or a fingerprint; None: the default of
            ``runtime.root``.
        fold: number of the fold, from 1, for a run with several.

    Raises:
        ConfigError: it names nothing; the message lists the runs that there are. Or the run has several
            folds and ``fold`` is None, or it has no such fold.
        ArtifactError: the fold is not trained yet, a fingerprint is not unique, or the root cannot be used.
    """
    if "://" in reference or _has_model(Path(reference)):
        return ModelReference(reference, reference)
    if _has_model(Path(reference) / "files"):
        return ModelReference(str(Path(reference) / "files"), reference)
    given_root = RuntimeConfig().root if root is None else root
    # A folder without a model may have the name of a run.
    found = _below_root(reference, given_root, fold)
    if found is not None:
        return found
    if Path(reference).is_dir():
        return ModelReference(reference, reference)  # its reader says what is missing
    store = open_root(given_root)
    where = "" if root is not None else " (give --root for another)"
    raise ConfigError(
        f"model {reference!r} is no folder here, and no run and no fingerprint of a {CLASSIFIER} "
        f"artefact below {store.uri}{where}; {known_runs(store, reference)}"
    )


def classifiers_of(record: RunRecord, store: Store) -> dict[str, Artifact]:
    """The sealed classifiers of a run by the name of their fold, in the order in which they were made."""
    found = {
        stage.fold: find_artifact(store, ArtifactKey(stage.kind, stage.fingerprint))
        for stage in _classifier_stages(record)
    }
    return {fold: artifact for fold, artifact in found.items() if artifact is not None}


def choose_fold(record: RunRecord, store: Store, fold: int | None) -> tuple[str, Artifact]:
    """The name and the classifier of the fold with this number, or of the only fold.

    Raises:
        ConfigError: there are several folds and ``fold`` is None, or there is no such fold.
        ArtifactError: no classifier is done.
    """
    made = classifiers_of(record, store)
    if not made:
        raise ArtifactError(
            f"run {record.name} has no classifier yet ({_progress(record)}); see gmp-atl status "
            f"{record.name} --root {store.uri}"
        )
    if fold is None and len(made) == 1 and len(_classifier_stages(record)) == 1:
        return next(iter(made.items()))
    numbers = {number: name for name in made if (number := _number(name)) is not None}
    known = ", ".join(map(str, sorted(numbers)))
    if fold is None:
        raise ConfigError(f"run {record.name} has several folds; give --fold, one of {known}")
    if fold not in numbers:
        reached = any(stage.fold == f"fold{fold}" for stage in _classifier_stages(record))
        what = "is not trained yet" if reached else "is not one of this run"
        raise ConfigError(f"--fold {fold}: {what}; run {record.name} has a classifier of: {known}")
    return numbers[fold], made[numbers[fold]]


def _below_root(reference: str, root: str, fold: int | None) -> ModelReference | None:
    store = open_root(root)
    record = read_run(store, reference) if _can_be_a_run(reference) else None
    if record is not None:
        name, artifact = choose_fold(record, store, fold)
        return ModelReference(_files(artifact), f"{record.name} {name}", record, name)
    if not _FINGERPRINT.fullmatch(reference):
        return None
    keys = [key for key in list_artifacts(store) if key.fingerprint.startswith(reference)]
    models = [key for key in keys if key.kind == CLASSIFIER]
    if len(models) == 1:
        return _by_key(store, models[0])
    if models:
        names = ", ".join(key.fingerprint[:12] for key in models)
        raise ArtifactError(f"{reference!r} begins several {CLASSIFIER} fingerprints: {names}")
    if keys:
        kinds = ", ".join(sorted({key.kind for key in keys}))
        raise ArtifactError(
            f"{reference!r} is the fingerprint of {kinds} below {store.uri}, which is no classifier; give "
            f"that of {CLASSIFIER}, see gmp-atl runs show"
        )
    return None


def _by_key(store: Store, key: ArtifactKey) -> ModelReference:
    uri = f"{store.uri}/{key.prefix}/files"
    for record in read_runs(store):
        for stage in _classifier_stages(record):
            if stage.fingerprint == key.fingerprint:
                return ModelReference(uri, f"{record.name} {stage.fold}", record, stage.fold)
    return ModelReference(uri, f"{key.kind} {key.fingerprint[:12]}")


def _has_model(folder: Path) -> bool:
    return (folder / _CONFIG).is_file()


def _files(artifact: Artifact) -> str:
    return f"{artifact.store.uri}/{artifact.key.prefix}/files"


def _classifier_stages(record: RunRecord) -> Sequence[StageRun]:
    return [stage for stage in record.stages if stage.name == CLASSIFIER]


def _progress(record: RunRecord) -> str:
    if not record.stages:
        return "no stage is done"
    last = record.stages[-1]
    return f"{last.label} is {stage_state(record, last)}"


def _number(fold: str) -> int | None:
    """``fold2`` -> 2; the one fold of ``folds.by = "split"`` -> 1."""
    if fold == "split":
        return 1
    digits = fold.removeprefix("fold")
    return int(digits) if digits.isdigit() else None


def _can_be_a_run(reference: str) -> bool:
    try:
        check_run_name(reference)
    except ConfigError:
        return False
    return True
