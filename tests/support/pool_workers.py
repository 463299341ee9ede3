"""Workers of ``open_pool`` for tests. Ray's processes import this module by its name.

It imports little: every process that a test starts pays for all that its worker's module imports.
"""

from __future__ import annotations

import os
import signal
import time

from gmp_atl_dist.errors import ConfigError
from gmp_atl_dist.runtime import Task


class Doubler:
    """Answers ``order`` times the task's name; ``argument`` and name say what goes wrong."""

    def __init__(self, argument: str) -> None:
        if argument == "cannot be made":
            raise ConfigError("this worker cannot be made")

    def __call__(self, task: Task, order: int) -> int:
        if task.name == "bad":
            raise ConfigError("bad is bad")
        if task.name == "deadly":
            os.kill(os.getpid(), signal.SIGKILL)
        if task.name == "slow":
            time.sleep(60)
        return order * int(task.name)
