"""The run section of a page: what its record says, ready to be shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gmp_atl_dist.report.formats import data_size
from gmp_atl_dist.store.runs import Attempt, Machine, RunRecord, StageRun


@dataclass(frozen=True, slots=True)
class StageRow:
    """A stage and its share of the longest duration and of the largest memory, in [0, 1].

    None for what was not measured: a stage that was done before took no time in this run.
    """

    stage: StageRun
    duration_s: float | None
    time_share: float | None
    memory_share: float | None


@dataclass(frozen=True, slots=True)
class RunFacts:
    """A record with derived figures.

    ``computed_s`` is the sum of the stages' durations, and ``wall_s`` that of the attempts. The latter
    is longer: a driver also starts Ray, reads artefacts and waits.
    """

    record: RunRecord
    stages: tuple[StageRow, ...]
    computed_s: float
    wall_s: float
    fingerprints: Mapping[str, str]
    """Of the stages that all folds share, by kind."""
    machines: tuple[tuple[str, str], ...]
    """(property, value) of the newest attempt's machine."""
    latest: Attempt | None

    @classmethod
    def of(cls, record: RunRecord) -> RunFacts:
        longest = max((s.total_s or 0.0 for s in record.stages), default=0.0) or 1.0
        largest = max((s.peak_memory_bytes or 0 for s in record.stages), default=0) or 1
        latest = record.attempts[-1] if record.attempts else None
        return cls(
            record=record,
            stages=tuple(
                StageRow(
                    s,
                    took_s := None if s.state == "found" and not s.total_s else s.total_s,
                    None if took_s is None else took_s / longest,
                    s.peak_memory_bytes / largest if s.peak_memory_bytes else None,
                )
                for s in record.stages
            ),
            computed_s=sum(s.total_s or 0.0 for s in record.stages),
            wall_s=sum((a.ended_s or a.seen_s) - a.started_s for a in record.attempts),
            fingerprints={s.kind: s.fingerprint for s in record.stages if not s.fold},
            machines=_machine(latest.machine) if latest else (),
            latest=latest,
        )


def _machine(machine: Machine) -> tuple[tuple[str, str], ...]:
    """What is known of a machine."""
    facts = (
        ("host", machine.host),
        ("system", machine.system),
        ("processor", machine.cpu),
        ("cores", str(machine.cpus) if machine.cpus else ""),
        ("memory", data_size(machine.memory_bytes) if machine.memory_bytes else ""),
        ("GPUs", ", ".join(machine.gpus)),
        ("Ray cluster", machine.ray_address),
    )
    return tuple((name, value) for name, value in facts if value)
