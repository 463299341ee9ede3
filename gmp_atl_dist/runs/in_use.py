"""Which artefacts a run reaches, and which ones a run uses that works now.

A driver writes into its record every 15 s that it lives (``store/run_state.py``). That is its lease: while it
is renewed, nothing that the run reaches is moved or deleted (``runs/live.py``). Commands that are no run,
such as ``predict --ray``, have a lease of their own (``store/leases.py``).
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass

from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.console import Reporter
from gmp_atl_dist.errors import GmpAtlError
from gmp_atl_dist.execution import open_context
from gmp_atl_dist.outside_inputs import OutsideInputs
from gmp_atl_dist.runs.live import LiveRuns
from gmp_atl_dist.runs.names import config_of
from gmp_atl_dist.stage_survey import survey
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.graph import ArtifactGraph
from gmp_atl_dist.store.leases import live_leases
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.run_state import CLOCKS_DIFFER_S, LOST_AFTER_S, run_state
from gmp_atl_dist.store.runs import RunRecord

BY_PRODUCTS = ("codebook", "frontend")
"""Kinds that no stage is named after: made for the stages that read their inputs."""


def named_by(record: RunRecord) -> set[ArtifactKey]:
    """The artefacts of the stages that a run has reached."""
    return {ArtifactKey(stage.kind, stage.fingerprint) for stage in record.stages}


def fingerprints_of(
    config: RunConfig, store: Store, record: RunRecord | None = None
) -> tuple[str, ...]:
    """The fingerprints of the stages of a configuration, as far as they can be told. Runs nothing.

    Raises:
        GmpAtlError: the corpus or the stock model cannot be read, and the store does not tell what was made
            of them.
    """
    with open_context(config, Reporter(terminal=False)) as context:
        return tuple(r.fingerprint for r in survey(config, context, OutsideInputs(store, record)))


def fingerprints_planned(record: RunRecord, store: Store) -> frozenset[str]:
    """What the rest of a run would make or find; empty if it is done or cannot be planned here."""
    if run_state(record) == "done":
        return frozenset()
    with suppress(GmpAtlError):
        return frozenset(fingerprints_of(config_of(record, store.uri), store, record))
    return frozenset()


def keys_planned(
    record: RunRecord, store: Store, known: Collection[ArtifactKey]
) -> set[ArtifactKey]:
    """Those of ``known`` that the rest of a run would make or find."""
    fingerprints = fingerprints_planned(record, store)
    return {key for key in known if key.fingerprint in fingerprints}


@dataclass(frozen=True)
class InUse:
    """What is used now, by the fingerprint of the artefact: who uses it, as ``run NAME`` or a command."""

    by_fingerprint: dict[str, tuple[str, ...]]

    def by(self, fingerprint: str) -> tuple[str, ...]:
        return self.by_fingerprint.get(fingerprint, ())


def find_in_use(store: Store, graph: ArtifactGraph, live: LiveRuns | None = None) -> InUse:
    """Everything that live runs have reached, will reach, or have read, and what leases name.

    Raises:
        ArtifactError: a record or a lease is damaged, so it is not known what is used.
    """
    found: dict[str, tuple[str, ...]] = {}
    for record in (live or LiveRuns(store)).find():
        keys = named_by(record) | keys_planned(record, store, graph.sealed)
        fingerprints = {key.fingerprint for key in graph.with_sources(keys)}
        fingerprints |= fingerprints_planned(record, store)
        for fingerprint in fingerprints:
            found[fingerprint] = (*found.get(fingerprint, ()), called(record))
    for lease in live_leases(store):
        keys = {key for key in graph.sealed if key.fingerprint in lease.fingerprints}
        fingerprints = {key.fingerprint for key in graph.with_sources(keys)}
        for fingerprint in fingerprints.union(lease.fingerprints):
            found[fingerprint] = (*found.get(fingerprint, ()), lease.holder)
    return InUse(found)


def who_works(store: Store, live: LiveRuns) -> frozenset[str]:
    """The runs and the other commands that work now, as :class:`InUse` calls them.

    Raises:
        ArtifactError: a record or a lease is damaged.
    """
    runs = {called(record) for record in live.find()}
    return frozenset(runs | {lease.holder for lease in live_leases(store)})


def called(record: RunRecord) -> str:
    """A run, beside commands that are none."""
    return f"run {record.name}"


def is_written_now(changed_s: Iterable[float], now_s: float | None = None) -> bool:
    """Whether one of these times is so recent that somebody may be writing, with a record or without.

    The times are those of the store's clock, or of a writer's.
    """
    now_s = time.time() if now_s is None else now_s
    return any(now_s - at_s < LOST_AFTER_S + CLOCKS_DIFFER_S for at_s in changed_s)
