"""What a sweep cost: durations times the devices that were held, and stored bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from gmp_atl_dist.report.sweep_content import CostContent
from gmp_atl_dist.report.sweep_input import ArmReports, StageCost

_S_PER_H = 3600.0

Costs = Mapping[str, StageCost]
"""By fingerprint."""
Prices = Mapping[str, float]
"""Of an hour, by device; empty: none is set."""


def price_of(device_hours: Mapping[str, float], prices: Prices) -> float | None:
    """What so many hours of devices cost; None if no price is set. A device without a price is free."""
    if not prices:
        return None
    return sum(hours * prices.get(device, 0.0) for device, hours in device_hours.items())


def arm_costs(
    arms: Sequence[ArmReports], prices: Prices
) -> dict[str, tuple[CostContent, CostContent]]:
    """By arm: its cost alone, and the cost of the artefacts that no other arm uses."""
    of_arm = {arm.name: _stages([arm]) for arm in arms}
    used_by = Counter(fingerprint for found in of_arm.values() for fingerprint in found)
    return {
        name: (
            _cost(found.values(), prices),
            _cost((s for s in found.values() if used_by[s.fingerprint] == 1), prices),
        )
        for name, found in of_arm.items()
    }


def total_cost(arms: Sequence[ArmReports], prices: Prices) -> CostContent:
    """The cost of all arms together; what they share is counted once."""
    return _cost(_stages(arms).values(), prices)


def _stages(arms: Sequence[ArmReports]) -> Costs:
    """Of several entries of an artefact, the longest: others found it done."""
    found: dict[str, StageCost] = {}
    for arm in arms:
        for seed in arm.seeds:
            for stage in (s for report in seed.reports for s in report.stages):
                before = found.get(stage.fingerprint)
                if before is None or (stage.duration_s or 0.0) > (before.duration_s or 0.0):
                    found[stage.fingerprint] = stage
    return dict(sorted(found.items()))


def _cost(stages: Iterable[StageCost], prices: Prices) -> CostContent:
    each = list(stages)
    by_device: dict[str, float] = {}
    for stage in each:
        for device, held in stage.devices.items():
            hours = (stage.duration_s or 0.0) * held / _S_PER_H
            by_device[device] = by_device.get(device, 0.0) + hours
    sizes = [stage.size_bytes for stage in each if stage.size_bytes is not None]
    return CostContent(
        artefacts=len(each),
        unknown=sum(stage.duration_s is None for stage in each),
        hours=sum(stage.duration_s or 0.0 for stage in each) / _S_PER_H,
        device_hours=dict(sorted(by_device.items())),
        price=price_of(by_device, prices),
        size_bytes=sum(sizes) if sizes else None,
    )
