"""The faults that a run may meet, by what they are called."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial

import psutil

from benchmarks.subjects.fault_damage import altered, swapped, truncated
from benchmarks.subjects.fault_stage import CORES, Stage
from gmp_atl_dist.errors import ArtifactError

_MAPPED = ("MapProcess", "ComputeProcess", "ReadProcess", "MapWorker", "_MapWorker")
_KMEANS = ("PoolProcess",)
_TRAINING = ("RayTrainWorker",)
_LATE_S = 180.0

Fault = Callable[[Stage, random.Random], bool]
"""Makes a fault now; whether there was anything that it could meet."""


def _kill_worker(names: Sequence[str], stage: Stage, rng: random.Random) -> bool:
    found = stage.workers(names)
    if found:
        with suppress(psutil.Error):
            rng.choice(found).kill()
    return bool(found)


def _lose_node(stage: Stage, rng: random.Random) -> bool:
    nodes = stage.cluster.worker_nodes
    node = rng.choice(sorted(nodes, key=lambda n: n.node_id or ""))
    stage.cluster.remove_node(node, allow_graceful=False)
    stage.cluster.add_node(wait=False, num_cpus=CORES)
    return True


def _lose_head(stage: Stage, rng: random.Random) -> bool:
    stage.kill_head()
    return True


def _signal_driver(signum: signal.Signals, stage: Stage, rng: random.Random) -> bool:
    running = [d for d in stage.drivers if d.poll() is None]
    if running:
        running[0].send_signal(signum)
    return bool(running)


def _second_driver(stage: Stage, rng: random.Random) -> bool:
    if len(stage.drivers) != 1:
        return False
    stage.start_driver()
    return True


def _late_driver(stage: Stage, rng: random.Random) -> bool:
    """The driver is killed, and the command is given again on a machine whose clock is late."""
    running = [d for d in stage.drivers if d.poll() is None]
    if running:
        running[0].kill()
        stage.late_s = _LATE_S
    return bool(running)


def _full_disk(stage: Stage, rng: random.Random) -> bool:
    """A training rank can write no further byte to a file, as on a full disk."""
    found = stage.workers(_TRAINING)
    if found:
        with suppress(psutil.Error):
            rng.choice(found).rlimit(psutil.RLIMIT_FSIZE, (0, psutil.RLIM_INFINITY))
    return bool(found)


def _restart_store(stage: Stage, rng: random.Random) -> bool:
    stage.server.kill()
    stage.later(rng.uniform(0.5, 3.0), stage.server.start)
    return True


def _set(values: Mapping[str, object], most_s: float, stage: Stage, rng: random.Random) -> bool:
    """Set attributes of the proxy for a while."""
    for name, value in values.items():
        setattr(stage.proxy, name, value)
    stage.later(rng.uniform(0.3, 1.0) * most_s, stage.proxy.heal)
    return True


def _cut(stage: Stage, rng: random.Random) -> bool:
    stage.proxy.cut()
    return True


def _damage(damage: Callable[[str, random.Random], str], stage: Stage, rng: random.Random) -> bool:
    """Behind the back of the run. A store that does not answer at the moment is left alone."""
    place = ""
    with suppress(ArtifactError):
        place = damage(stage.root, rng)
    stage.damaged += [place] if place else []
    return bool(place)


FAULTS: dict[str, Fault] = {
    "SIGKILL of a worker of a mapped stage": partial(_kill_worker, _MAPPED),
    "SIGKILL of a k-means worker": partial(_kill_worker, _KMEANS),
    "SIGKILL of a training rank": partial(_kill_worker, _TRAINING),
    "full disk of a training rank": _full_disk,
    "loss of a node": _lose_node,
    "loss of the head": _lose_head,
    "SIGKILL of the driver": partial(_signal_driver, signal.SIGKILL),
    "SIGKILL of the driver, and a clock that is late": _late_driver,
    "SIGTERM of the driver": partial(_signal_driver, signal.SIGTERM),
    "a second driver": _second_driver,
    "SIGKILL and restart of the store": _restart_store,
    "reset of every connection to the store": _cut,
    "reset in the middle of an upload": partial(_set, {"reset_after_bytes": 20_000}, 3.0),
    "storm of 503": partial(_set, {"answer": "slow down"}, 4.0),
    "refused credentials": partial(_set, {"answer": "unknown key"}, 2.0),
    "read-only store": partial(_set, {"writes_only": True, "answer": "read-only"}, 3.0),
    "full store": partial(_set, {"writes_only": True, "answer": "full"}, 3.0),
    "latency of a second": partial(_set, {"latency_s": 1.0}, 5.0),
    "black hole": partial(_set, {"blackhole": True}, 6.0),
    "store that refuses connections": partial(_set, {"refuse": True}, 4.0),
    "a stored object altered": partial(_damage, altered),
    "a stored object truncated": partial(_damage, truncated),
    "two stored objects swapped": partial(_damage, swapped),
}
