"""The run section of a page: what its record says, ready to be shown."""

from __future__ import annotations

from dataclasses import dataclass

from gmp_atl_dist.report.formats import data_size
from gmp_atl_dist.store.runs import Attempt, Machine, RunRecord, StageRun


@dataclass(frozen=True, slots=True)
class StageRow:
    """A stage and its share of the longest duration and of the largest memory, in [0, 1]."""

    stage: StageRun
    time_share: float
    memory_share: float


@dataclass(frozen=True, slots=True)
class RunFacts:
    """A record with derived figures. ``computed_s`` is the sum of the stages' durations."""

    record: RunRecord
    stages: tuple[StageRow, ...]
    computed_s: float
    machines: tuple[tuple[str, str], ...]
    """(property, value) of the newest attempt's machine."""
    latest: Attempt | None

    @classmethod
    def of(cls, record: RunRecord) -> RunFacts:
        longest = max((s.duration_s or 0.0 for s in record.stages), default=0.0) or 1.0
        largest = max((s.peak_memory_bytes or 0 for s in record.stages), default=0) or 1
        latest = record.attempts[-1] if record.attempts else None
        return cls(
            record=record,
            stages=tuple(
                StageRow(s, (s.duration_s or 0.0) / longest, (s.peak_memory_bytes or 0) / largest)
                for s in record.stages
            ),
            computed_s=sum(s.duration_s or 0.0 for s in record.stages),
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
