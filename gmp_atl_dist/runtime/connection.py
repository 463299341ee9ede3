"""The connection to Ray."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

from gmp_atl_dist import stopping
from gmp_atl_dist.config import RuntimeConfig
from gmp_atl_dist.errors import WorkerError
from gmp_atl_dist.run_log import FOLDER, current_log, mark_warnings
from gmp_atl_dist.runtime.answering import await_answer
from gmp_atl_dist.runtime.forking import ForkServer
from gmp_atl_dist.runtime.head_watch import HeadWatch
from gmp_atl_dist.runtime.ray_start import start_ray
from gmp_atl_dist.runtime.room import wait_for_nodes
from gmp_atl_dist.runtime.worker_logs import VARIABLE, place_of, start_keeping
from gmp_atl_dist.store.filesystem import Store

_OBJECT_STORE_BYTES = 512 << 20
_LOCAL_POLL_S = "0.25"
ON_THIS_MACHINE = "GMP_ATL_LOCAL_RAY"
"""Set in the jobs of a Ray that ``ray_jobs/local.py`` started: all of its workers run on this machine."""
_HIDES_GPUS = "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"
"""Without it Ray leaves CUDA_VISIBLE_DEVICES as it is for a process with ``num_gpus=0`` (ray#54868)."""
_CHATTY = (
    "ray.train.v2._internal.execution.controller.placement_group_cleaner",
    "ray.train.v2._internal.execution.context",
)


class RayConnection:
    """A connection to Ray. The first stage that needs Ray opens it; the end of the run closes it.

    It goes to runtime.ray_address, else to RAY_ADDRESS, else to a Ray that is started on this machine.
    A Ray that was started here is stopped at the end. A cluster that was running before keeps running.

    Args:
        config: says where it goes.
        log_to_driver: what workers print appears here too; else only in ``session_dir``.
        preload: modules that workers need. On a Ray of this machine a process imports them once, and
            workers are forked from it.
    """

    def __init__(
        self, config: RuntimeConfig, *, log_to_driver: bool = True, preload: Sequence[str] = ()
    ) -> None:
        self._config = config
        self._log_to_driver = log_to_driver
        self._preload = preload
        self._forks: ForkServer | None = None
        self._watch: HeadWatch | None = None
        self.session_dir = ""
        """Folder of Ray's own files on the head, its logs among them; empty before ``open``."""
        self._opened = False
        self._is_ours = False

    def __enter__(self) -> RayConnection:
        return self

    def __exit__(self, *_: object) -> None:
        if self._opened:
            import ray

            with stopping.deferred():
                # After a stop nobody shall wait for Ray's agents, which outlive it by a minute. They are
                # listed before: orphans are no descendants any more.
                hurry = self._is_ours and stopping.requested() is not None
                left = stopping.descendants() if hurry else []
                ray.shutdown()
                self._opened = False
                self._end_watch()
                wait_for_nodes(RuntimeConfig().wait_for_nodes_s)
                stopping.kill(left)
        self._end_forks()

    @property
    def fork_server_pid(self) -> int | None:
        """The process that workers are forked from; None if each one starts anew."""
        return None if self._forks is None else self._forks.pid

    def _end_watch(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def _end_forks(self) -> None:
        if self._forks is not None:
            self._forks.close()
            self._forks = None

    def open(self) -> None:
        """Connect, unless this process is connected already.

        Raises:
            WorkerError: no Ray answers at the address, or none came up on this machine.
        """
        import ray

        if ray.is_initialized():
            return
        address = self._config.ray_address or os.environ.get("RAY_ADDRESS")
        logging.getLogger("ray").setLevel(logging.ERROR)
        environment: dict[str, Any] = {"worker_process_setup_hook": _set_up_worker}
        # A process that asks for no GPU sees none. A job may have it already, and Ray refuses it twice.
        variables = {} if _HIDES_GPUS in os.environ else {_HIDES_GPUS: "1"}
        self._is_ours = not address
        variables |= self._kept_logs()
        if variables:
            environment["env_vars"] = variables
        if self._preload and (self._is_ours or ON_THIS_MACHINE in os.environ):
            # Before Ray: it imports while Ray starts.
            with stopping.deferred():
                self._forks = ForkServer(self._preload, environment.get("env_vars", {}))
            environment["py_executable"] = self._forks.command
        try:
            if address:
                await_answer(address)
            # A Ray that is started halfway could not be stopped.
            with stopping.deferred():
                if address:
                    self._init(address, environment)
                else:
                    start_ray(lambda: self._init(None, environment))
                stopping.take_signals_again()
        except (ConnectionError, RuntimeError) as e:
            self._end_forks()
            raise WorkerError(
                f"cannot reach Ray at {address or 'this machine'}: {e}; check runtime.ray_address "
                f"or RAY_ADDRESS, and that the cluster is up"
            ) from e
        self._opened = True
        if address and "://" not in address and ray.is_initialized():
            self._watch = HeadWatch(ray.get_runtime_context().gcs_address)
        closed = self._is_ours or ON_THIS_MACHINE in os.environ
        wait_for_nodes(0.0 if closed else self._config.wait_for_nodes_s)
        stopping.check()

    def _kept_logs(self) -> dict[str, str]:
        """What workers must know to keep their logs; nothing where these are safe on this machine."""
        log = current_log()
        is_safe = self._is_ours and "://" not in self._config.root.removeprefix("file://")
        if log is None or is_safe or not self._config.keep_logs:
            return {}
        return {VARIABLE: place_of(Store.open(self._config.root).uri, f"{FOLDER}/{log.path.stem}")}

    def _init(self, address: str | None, environment: dict[str, Any]) -> None:
        import ray

        if address:
            context = ray.init(
                address=address,
                logging_level=logging.ERROR,
                log_to_driver=self._log_to_driver,
                runtime_env=environment,
            )
        else:
            # A report waits for the controller's next poll; by default it polls every 2 s.
            os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", _LOCAL_POLL_S)
            # Without an address, Ray would join any cluster that runs on this machine.
            context = ray.init(
                address="local",
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE_BYTES,
                logging_level=logging.ERROR,
                log_to_driver=self._log_to_driver,
                runtime_env=environment,
            )
        facts: dict[str, object] = getattr(context, "address_info", {})  # not of Ray Client
        self.session_dir = str(facts.get("session_dir") or "")


def _set_up_worker() -> None:
    """Runs at the start of every worker process.

    Ray Train's cleaner asks the cluster's dashboard every second whether its controller is alive. It
    needs the address of its own cluster where two run on one machine. A Ray that was started here has no
    dashboard, which would take 1 GB of memory; the cleaner would warn about that every second.
    """
    import ray

    os.environ.setdefault("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    mark_warnings()
    start_keeping()
