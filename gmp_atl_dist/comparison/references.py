"""Finds a run by what people call it: name, folder, configuration, ``report.json``, or a fingerprint."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from gmp_atl_dist.comparison.stored_report import StoredRun, read_stored_report
from gmp_atl_dist.config import RuntimeConfig
from gmp_atl_dist.config.file import load_config
from gmp_atl_dist.errors import ArtifactError, ConfigError
from gmp_atl_dist.records import source_of
from gmp_atl_dist.runs.names import find_record, known_runs, read_runs
from gmp_atl_dist.shipped import shipped_path
from gmp_atl_dist.stages.evaluate import Evaluate, read_predictions
from gmp_atl_dist.stages.report import JSON_NAME, PREDICTIONS_NAME, Report
from gmp_atl_dist.statistics.arms import PredictedUtterance
from gmp_atl_dist.store.artifact import Artifact, find_artifact, list_artifacts
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.layout import open_root
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.readers import read_emotions
from gmp_atl_dist.store.run_state import stage_state
from gmp_atl_dist.store.runs import RECORD_NAME, RUNS, RunRecord, check_run_name, read_run
from gmp_atl_dist.uris import uri_problem

_FINGERPRINT = re.compile(r"[0-9a-f]{6,64}")
_RUN_FOLDER = re.compile(rf"(?P<root>.+)/{RUNS}/(?P<name>[^/]+?)(/{RECORD_NAME})?/?")
_CORPUS_KINDS = ("ingest", "combine")


def resolve(reference: str, roots: Sequence[str] = ()) -> StoredRun:
    """The run that ``reference`` names.

    Args:
        reference: a run's name below one of the roots; a run's folder, ``ROOT/runs/NAME``; a ``report.json``;
            a configuration; or how the fingerprint of an ``evaluate`` artefact begins, for one fold.
        roots: where names and fingerprints are looked up, and in place of a configuration's own root; empty:
            the default of ``runtime.root``.

    Raises:
        ConfigError: it names nothing, or runs of several roots.
        ArtifactError: the run has no predictions yet, or they cannot be read.
    """
    if problem := uri_problem(reference):
        raise ConfigError(f"{reference!r} {problem}")
    if reference.endswith(".json") and not reference.endswith(f"/{RECORD_NAME}"):
        return _of_file(reference)
    folder = _RUN_FOLDER.fullmatch(reference)
    if folder is not None:
        store = open_root(folder["root"])
        record = read_run(store, folder["name"])
        if record is not None:
            return _of_record(record, store)
        raise ConfigError(f"{reference!r} is no run; {known_runs(store, folder['name'])}")
    if reference.endswith(".toml") or "/" in reference:
        return _of_config(reference, roots)
    stores = [open_root(root) for root in roots or (RuntimeConfig().root,)]
    named = [(record, store) for store in stores if (record := _record(store, reference))]
    if len(named) > 1:
        places = ", ".join(f"{store.uri}/{RUNS}/{reference}" for _, store in named)
        raise ConfigError(f"{reference!r} is a run below several roots; give one of {places}")
    if named:
        return _of_record(*named[0])
    if shipped_path(reference) is not None:
        return _of_config(reference, roots)
    if _FINGERPRINT.fullmatch(reference):
        found = _of_fingerprint(reference, stores)
        if found is not None:
            return found
    where = "; ".join(f"below {store.uri}: {known_runs(store, reference)}" for store in stores)
    raise ConfigError(
        f"{reference!r} is no run, no configuration, no report.json, and no fingerprint of an evaluate "
        f"artefact; {where}{'' if roots else ' (give --root for another)'}"
    )


def _of_file(reference: str) -> StoredRun:
    folder, _, name = reference.rpartition("/")
    store = Store.open(folder or ".")
    if not store.exists(name):
        raise ConfigError(f"{reference!r} does not exist; give the report.json of a finished run")
    return read_stored_report(
        store.read(name), reference, f"{store.uri}/{name}", lambda: _beside(store, "")
    )


def _beside(store: Store, folder: str) -> bytes | None:
    path = f"{folder}{PREDICTIONS_NAME}"
    return store.read(path) if store.exists(path) else None


def _of_config(reference: str, roots: Sequence[str]) -> StoredRun:
    config = load_config(Path(reference))
    for root in roots or (config.runtime.root,):
        store = open_root(root)
        record = find_record(config, store)
        if record is not None:
            return _of_record(record, store)
    places = ", ".join(roots or (config.runtime.root,))
    raise ArtifactError(
        f"{reference}: no run of this configuration is recorded below {places}, so there are no predictions "
        f"to compare; run gmp-atl run --config {shlex.quote(reference)} first"
    )


def _record(store: Store, name: str) -> RunRecord | None:
    try:
        return read_run(store, check_run_name(name))
    except ConfigError:
        return None


def _of_record(record: RunRecord, store: Store) -> StoredRun:
    place = f"{store.uri}/{RUNS}/{record.name}"
    if not record.report:
        states = [f"{s.label} is {stage_state(record, s)}" for s in record.stages[-1:]]
        last = f"; {states[0]}" if states else ""
        again = (
            f"to continue, give the last command again: {shlex.join(record.attempts[-1].command)}"
            if record.attempts and record.attempts[-1].command
            else "continue it with gmp-atl run"
        )
        raise ArtifactError(
            f"run {record.name} below {store.uri} has no report yet, so it has no predictions to compare"
            f"{last}; {again}"
        )
    report = find_artifact(store, ArtifactKey(Report.kind, record.report))
    if report is None:
        raise ArtifactError(
            f"run {record.name}: its report {record.report[:12]} is not below {store.uri} any more; make it "
            f"again: gmp-atl run with the same configuration"
        )
    files = f"{report.key.prefix}/files/"
    found = read_stored_report(
        report.read_file(JSON_NAME), record.name, place, lambda: _beside(store, files)
    )
    return StoredRun(
        record.name, place, found.protocol, found.classes, record.configuration, found.folds
    )


def _of_fingerprint(prefix: str, stores: Sequence[Store]) -> StoredRun | None:
    """One fold, by its ``evaluate`` artefact."""
    found = [
        (store, key)
        for store in stores
        for key in list_artifacts(store)
        if key.kind == Evaluate.kind and key.fingerprint.startswith(prefix)
    ]
    if len(found) > 1:
        names = ", ".join(f"{key.fingerprint[:12]} below {store.uri}" for store, key in found)
        raise ConfigError(f"{prefix!r} begins several evaluate fingerprints: {names}")
    if not found:
        return None
    store, key = found[0]
    artifact = find_artifact(store, key)
    assert artifact is not None, "it was just listed"
    record, fold = _run_of(store, key)
    protocol = None if record is None else _protocol(record)
    classes = _classes(store, artifact)
    several = bool(record is not None and record.configuration.get("corpora"))
    rows = [
        PredictedUtterance(
            utterance_id=p.utterance_id,
            speaker=p.speaker,
            gender=p.gender,
            emotion=p.emotion,
            predicted=p.predicted,
            probabilities=p.probabilities,
            corpus=source_of(p.speaker) if several else "",
        )
        for p in read_predictions(artifact)
    ]
    label = f"{record.name} {fold}" if record is not None else f"evaluate {key.fingerprint[:12]}"
    return StoredRun(
        label,
        f"{store.uri}/{key.prefix}",
        protocol,
        classes,
        None if record is None else record.configuration,
        {fold or "fold": rows},
    )


def _run_of(store: Store, key: ArtifactKey) -> tuple[RunRecord | None, str]:
    """The run and the fold that an artefact belongs to; (None, "") if no record names it."""
    for record in read_runs(store):
        for stage in record.stages:
            if stage.kind == key.kind and stage.fingerprint == key.fingerprint:
                return record, stage.fold
    return None, ""


def _protocol(record: RunRecord) -> str | None:
    folds = record.configuration.get("folds")
    name = folds.get("protocol", "clean") if isinstance(folds, dict) else None
    return name if isinstance(name, str) else None


def _classes(store: Store, evaluate: Artifact) -> tuple[str, ...]:
    """The class list of the corpus that an ``evaluate`` artefact was made of."""
    identity = evaluate.manifest.inputs.get("corpus")
    for key in list_artifacts(store):
        if key.kind in _CORPUS_KINDS:
            corpus = find_artifact(store, key)
            if corpus is not None and corpus.identity == identity:
                return read_emotions(corpus)
    raise ArtifactError(
        f"the corpus of evaluate {evaluate.key.fingerprint[:12]} is not below {store.uri} any more, so its "
        f"class list is not known; give the run or its report.json instead"
    )
