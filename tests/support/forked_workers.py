"""Starts actors on a Ray of its own whose workers are forked, kills one, and prints what they were.

With the argument ``wait``, it prints it while they live, and waits for the end of its input.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import psutil
import ray

from gmp_atl_dist import stopping
from gmp_atl_dist.config import RuntimeConfig
from gmp_atl_dist.runtime import RayConnection


class Told:
    """An actor that says which process it is."""

    def __init__(self, threads: int) -> None:
        from gmp_atl_dist.device import pin_threads

        pin_threads(threads)

    def tell(self) -> dict[str, Any]:
        import torch

        raylet = psutil.Process(int(os.environ["RAY_RAYLET_PID"]))
        return {
            "pids": os.getpid(),
            "parents": os.getppid(),
            "preloaded": "transformers" in sys.modules,
            "threads": torch.get_num_threads(),
            "raylets": raylet.pid,
        }


def main() -> None:
    with RayConnection(RuntimeConfig(), preload=["torch", "transformers"]) as connection:
        connection.open()
        actor: Any = ray.remote(Told).options(num_cpus=0, max_restarts=1, max_task_retries=1)
        first, second = actor.remote(1), actor.remote(2)
        told: list[dict[str, Any]] = [ray.get(first.tell.remote()), ray.get(second.tell.remote())]
        os.kill(told[0]["pids"], 9)
        told.append(ray.get(first.tell.remote()))
        server = connection.fork_server_pid
        if sys.argv[1:] == ["wait"]:
            print("\n" + json.dumps(of_each(told)), flush=True)
            sys.stdin.read()
        started = stopping.descendants()
    _, left = psutil.wait_procs(started, timeout=30)
    print("\n" + json.dumps(of_each(told) | {"server": server, "left": [str(p) for p in left]}))


def of_each(told: list[dict[str, Any]]) -> dict[str, Any]:
    """By key, what each has told."""
    return {key: [each[key] for each in told] for key in told[0]}


if __name__ == "__main__":
    main()
