"""The runs of a sweep for ``gmp-atl compare``: all of its arms, or one of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gmp_atl_dist.comparison.references import resolve
from gmp_atl_dist.comparison.stored_report import StoredRun
from gmp_atl_dist.config import RuntimeConfig
from gmp_atl_dist.config.sweep import is_sweep, load_sweep
from gmp_atl_dist.errors import ArtifactError, ConfigError
from gmp_atl_dist.shipped import shipped_sweep_path
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.layout import open_root
from gmp_atl_dist.store.runs import RUNS, run_names
from gmp_atl_dist.sweeps.record import RECORD_NAME, SWEEPS, SweepRecord, read_sweep, sweep_names

_FOLDER = re.compile(rf"(?P<root>.+)/{SWEEPS}/(?P<name>[^/:]+?)(/{RECORD_NAME})?/?")
_OF_ARM = re.compile(r"(?P<sweep>.+):(?P<arm>[^:/]+)")


def resolve_all(reference: str, roots: Sequence[str] = ()) -> list[StoredRun]:
    """The runs that ``reference`` names: those of a sweep, or one as ``comparison.references.resolve``.

    Args:
        reference: a sweep's name below one of the roots, ``SWEEP:ARM`` for one of its arms, its folder
            ``ROOT/sweeps/NAME``, its ``sweep.json`` or its file; or what names a run.

    Raises:
        ConfigError: it names nothing, or the sweep has no such arm.
        ArtifactError: an arm has no report for one of the seeds yet.
    """
    found = _sweep(reference, roots)
    if found is not None:
        return _runs(*found, "")
    of_arm = _OF_ARM.fullmatch(reference)
    found = None if of_arm is None else _sweep(of_arm["sweep"], roots)
    if found is None or of_arm is None:
        return [resolve(reference, roots)]
    record, _ = found
    if of_arm["arm"] not in record.arms:
        raise ConfigError(
            f"{reference!r}: sweep {record.name} has no arm {of_arm['arm']!r}; its arms are "
            f"{', '.join(record.arms)}"
        )
    return _runs(*found, of_arm["arm"])


def _sweep(reference: str, roots: Sequence[str]) -> tuple[SweepRecord, Store] | None:
    """The record and its root; None if ``reference`` is no sweep."""
    folder = _FOLDER.fullmatch(reference)
    if folder is not None:
        return _recorded(folder["name"], [open_root(folder["root"])], reference)
    is_file = reference.endswith(".toml") or shipped_sweep_path(reference) is not None
    if is_file and is_sweep(reference):
        sweep = load_sweep(Path(reference))
        stores = [open_root(root) for root in roots or (sweep.config.runtime.root,)]
        return _recorded(sweep.name, stores, reference)
    if "/" in reference:
        return None
    stores = [open_root(root) for root in roots or (RuntimeConfig().root,)]
    named = [store for store in stores if reference in sweep_names(store)]
    if any(reference in run_names(store) for store in stores):
        if named:
            raise ConfigError(
                f"{reference!r} is a run and a sweep; give {named[0].uri}/{RUNS}/{reference} or "
                f"{named[0].uri}/{SWEEPS}/{reference}"
            )
        return None
    return _recorded(reference, named, reference) if named else None


def _recorded(name: str, stores: Sequence[Store], reference: str) -> tuple[SweepRecord, Store]:
    found = [(record, store) for store in stores if (record := read_sweep(store, name))]
    if len(found) > 1:
        places = ", ".join(f"{store.uri}/{SWEEPS}/{name}" for _, store in found)
        raise ConfigError(f"{reference!r} is a sweep below several roots; give one of {places}")
    if not found:
        known = [n for store in stores for n in sweep_names(store)]
        raise ConfigError(
            f"{reference!r}: no sweep {name!r} is recorded below "
            f"{', '.join(store.uri for store in stores)}; there are: {', '.join(known) or 'none'}"
        )
    return found[0]


def _runs(record: SweepRecord, store: Store, only: str) -> list[StoredRun]:
    """Every run of the sweep, or of the arm ``only``, in the order of the file."""
    arms = [arm for arm in record.arms if only in ("", arm)]
    reports = {(report.arm, report.seed): report for report in record.reports}
    missing = [
        f"{arm} seed {seed}{_why(record, arm, seed)}"
        for arm in arms
        for seed in record.seeds
        if (arm, seed) not in reports
    ]
    if missing:
        whole = [a for a in record.arms if all((a, s) in reports for s in record.seeds)]
        some = " ".join(f"{record.name}:{arm}" for arm in whole)
        raise ArtifactError.of_all(
            f"sweep {record.name} below {store.uri} has no report of these runs yet; give gmp-atl sweep again"
            + (f", or compare the arms that are done: {some}:" if some else ":"),
            missing,
        )
    found: list[StoredRun] = []
    for arm in arms:
        for seed in record.seeds:
            run = resolve(f"{store.uri}/{RUNS}/{reports[arm, seed].run}")
            found.append(replace(run, label=f"{arm} seed {seed}", arm=arm))
    return found


def _why(record: SweepRecord, arm: str, seed: int) -> str:
    """The first failed cell of a run."""
    for cell in record.failed:
        if (cell.arm, cell.seed) == (arm, seed):
            return f": {cell.fold} failed in {cell.stage}"
    return ""
