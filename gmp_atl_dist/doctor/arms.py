"""Several arms of a sweep: what their checks share, and which of them have a problem."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gmp_atl_dist.config import Json, OptimConfig, RunConfig, digest
from gmp_atl_dist.doctor.findings import Finding
from gmp_atl_dist.doctor.lineage import LINEAGE_CHECK

_SHOWN = 3


@dataclass(frozen=True)
class Seen:
    """What one check has found for the arms that it is the same for."""

    arms: tuple[str, ...]
    findings: list[Finding]


def subject_of(check: str, config: RunConfig) -> str:
    """Digest of all that a check depends on. Arms with the same one need it once."""
    values: dict[str, Json] = config.model_dump(mode="json")
    runtime = values["runtime"]
    labels: list[Json] = [
        *(values["corpus"], values.get("corpora"), values["folds"]),
        *(config.needs_gender, config.needs_gender_of_unlabelled, config.predicts_gender),
        *(config.warms_up, config.warmup.gender_weight),
    ]
    if check == "store":
        return digest(config.runtime.root)
    if check == "corpus":
        return digest([runtime, labels])
    if check == "machine":
        return digest([runtime, list(config.unused_workers)])
    if check == "ray":
        trained: list[OptimConfig] = [getattr(config, name) for name in config.trained_sections]
        cut: list[Json] = [[optim.batch_s, optim.micro_batches] for optim in trained]
        return digest([runtime, list(config.unused_workers), list(config.trained_sections), cut])
    if check == LINEAGE_CHECK:
        scales = config.cluster.scales if config.makes_labels else ()
        named: list[Json] = [
            s.model_dump(mode="json") if s.codebook is not None else None for s in scales
        ]
        # Without a named codebook, what is made of the features does not matter.
        used = [values["extract"], values["cluster"], named] if any(named) else []
        return digest([runtime, labels, values["model"], values["audit"], used])
    return digest(values)


def merged(seen: Sequence[Seen], every_arm: Sequence[str]) -> list[Finding]:
    """Each finding once, in the order of the arms. One that only some arms have names them."""
    arms: dict[Finding, list[str]] = {}
    for part in seen:
        for finding in dict.fromkeys(part.findings):
            arms.setdefault(finding, []).extend(part.arms)
    return [
        finding if len(named) == len(every_arm) else _of_arms(finding, named, every_arm)
        for finding, named in arms.items()
    ]


def _of_arms(finding: Finding, named: Sequence[str], every_arm: Sequence[str]) -> Finding:
    ordered = [arm for arm in every_arm if arm in named]
    more = f" and {len(ordered) - _SHOWN} more" if len(ordered) > _SHOWN else ""
    word = "arm" if len(ordered) == 1 else "arms"
    return replace(finding, item=f"{word} {', '.join(ordered[:_SHOWN])}{more}: {finding.item}")
