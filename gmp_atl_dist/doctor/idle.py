"""GPUs that a configuration would leave idle: too little audio in a pass, too few workers, too few readers.

All of it is a warning: the run gives the same results, and costs more than it has to.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from gmp_atl_dist.config import OptimConfig, RunConfig
from gmp_atl_dist.doctor.findings import Finding, warning
from gmp_atl_dist.ray_api.facts import ClusterFacts
from gmp_atl_dist.scheduling.demands import Demand, demands_of, quantity, room_for, room_with_more

_CHECK = "idle GPUs"
_ENOUGH_S = 200.0
"""Seconds of audio in a pass of a training, from which on a GPU is busy; see docs/cluster.md."""
_ENOUGH_TO_EXTRACT_S = 60.0
"""The same of an extraction: the shorter one of its probes of the memory."""
_IDLE_SHARE = 0.1
"""Of the passes of an update that may be empty."""
_ON_GPUS = {"extract": "features are computed", "train": "trainings compute"}
"""Sections whose work is done by a GPU many times faster, with what they do."""


def check_idle(config: RunConfig, facts: ClusterFacts) -> Iterator[Finding]:
    """What of the GPUs of a cluster would be idle. Nothing is said where a section has no GPUs to use."""
    demands = {d.section.removeprefix("runtime."): d for d in demands_of(config.runtime)}
    for section, doing in _ON_GPUS.items():
        yield from _without_gpus(section, doing, demands[section], facts)
    if config.runtime.extract.gpus:
        yield from _extraction(config, demands["extract"], facts)
    if config.runtime.train.gpus:
        yield from _training(config)


def _without_gpus(
    section: str, doing: str, demand: Demand, facts: ClusterFacts
) -> Iterator[Finding]:
    if demand.gpus:
        return
    # Only GPUs beside which the worker's cores and its custom resources are free are of use.
    on_gpu = replace(demand, gpus=1.0)
    room = room_with_more(on_gpu, facts.nodes, facts.groups)
    if room:
        number = "GPUs" if math.isinf(room) else f"room for {quantity(room, 'worker')} with a GPU"
        yield warning(
            _CHECK,
            f"runtime.{section}.gpus = 0",
            f"the cluster has {number}, and {doing} on cores",
            f"set runtime.{section}.gpus = 1",
        )


def _extraction(config: RunConfig, demand: Demand, facts: ClusterFacts) -> Iterator[Finding]:
    workers = config.runtime.extract
    room = room_for(demand, facts.nodes)
    if room > workers.max_workers:
        yield warning(
            _CHECK,
            f"runtime.extract.workers = {workers.max_workers} at most",
            f"there is room for {room} with {quantity(workers.gpus, 'GPU')} each",
            f"set runtime.extract.workers = [1, {room}]",
        )
    if workers.batch_s is not None and workers.batch_s < _ENOUGH_TO_EXTRACT_S:
        yield warning(
            _CHECK,
            f"runtime.extract.batch_s = {workers.batch_s:g}",
            f"a pass of a GPU has less than {_ENOUGH_TO_EXTRACT_S:g} s of audio, so its kernels are short",
            "leave the key out: passes are then fitted to the memory of the GPU",
        )
    if workers.readers is not None and workers.readers < workers.max_workers:
        yield warning(
            _CHECK,
            f"runtime.extract.readers = {workers.readers}",
            f"read for {workers.max_workers} workers with GPUs, which will wait for audio",
            "leave the key out: there are then two readers per worker, and later as many as were needed",
        )


def _training(config: RunConfig) -> Iterator[Finding]:
    sections: dict[tuple[float, int], list[str]] = {}
    for name in config.trained_sections:
        optim: OptimConfig = getattr(config, name)
        sections.setdefault((optim.batch_s, optim.micro_batches), []).append(name)
    for (batch_s, micro_batches), names in sections.items():
        yield from _share(config, batch_s, names)
        yield from _empty_passes(config, micro_batches, names)
    pass_s = config.runtime.train.pass_s
    if pass_s != "auto" and pass_s < _ENOUGH_S and any(b > pass_s for b, _ in sections):
        yield warning(
            _CHECK,
            f"runtime.train.pass_s = {pass_s:g}",
            f"a GPU is busy from about {_ENOUGH_S:g} s of audio in a pass",
            'set "auto": as much as the memory of the GPU takes',
        )


def _share(config: RunConfig, batch_s: float, names: list[str]) -> Iterator[Finding]:
    workers = config.runtime.train.max_workers
    share_s = batch_s / workers
    if share_s >= _ENOUGH_S:
        return
    keys = f"{', '.join(names)}: batch_s = {batch_s:g}"
    busy = f"a GPU is busy from about {_ENOUGH_S:g} s"
    longer = f"a batch_s of {workers * _ENOUGH_S:g} would keep them busy, and is another experiment"
    if workers > 1:
        fewer = max(1, int(batch_s / _ENOUGH_S))
        yield warning(
            _CHECK,
            f"{keys}, runtime.train.workers = {workers}",
            f"a pass of one GPU has {share_s:.3g} s of audio at most; {busy}",
            f"set runtime.train.workers = {fewer}: the other GPUs train other folds and arms at the same "
            f"time; {longer}",
        )
    else:
        yield warning(
            _CHECK,
            keys,
            f"an update, and so a pass, has {share_s:.3g} s of audio; {busy}",
            longer.replace("them", "the GPU"),
        )


def _empty_passes(config: RunConfig, micro_batches: int, names: list[str]) -> Iterator[Finding]:
    workers = config.runtime.train.max_workers
    rounds = -(-micro_batches // workers)
    empty = rounds * workers - micro_batches
    if empty <= _IDLE_SHARE * rounds * workers:
        return
    divisors = [n for n in range(1, workers + 1) if micro_batches % n == 0]
    yield warning(
        _CHECK,
        f"{', '.join(names)}: micro_batches = {micro_batches}, runtime.train.workers = {workers}",
        f"of {rounds * workers} passes of an update {empty} are empty",
        f"set runtime.train.workers to one of {', '.join(map(str, divisors))}",
    )
