"""The connection to Ray."""

from __future__ import annotations

import logging
import os

from gmp_atl_dist.config import RuntimeConfig
from gmp_atl_dist.errors import WorkerError

_OBJECT_STORE_BYTES = 512 << 20
_LOCAL_POLL_S = "0.25"
_CHATTY = (
    "ray.train.v2._internal.execution.controller.placement_group_cleaner",
    "ray.train.v2._internal.execution.context",
)


class RayConnection:
    """A connection to Ray, made when the first stage needs it and closed at the end of the run.

    It is the configured cluster, RAY_ADDRESS, or a Ray of our own on this machine. One that was
    started here is stopped at the end; a cluster that was there stays as it is.
    """

    def __init__(self, config: RuntimeConfig) -> None:
        self._config = config
        self._opened = False

    def __enter__(self) -> RayConnection:
        return self

    def __exit__(self, *_: object) -> None:
        if self._opened:
            import ray

            ray.shutdown()
            self._opened = False

    def open(self) -> None:
        """Connect unless connected.

        Raises:
            WorkerError: there is no Ray at the address.
        """
        import ray

        if ray.is_initialized():
            return
        address = self._config.ray_address or os.environ.get("RAY_ADDRESS")
        logging.getLogger("ray").setLevel(logging.ERROR)
        set_up = {"worker_process_setup_hook": _set_up_process}
        try:
            if address:
                ray.init(address=address, logging_level=logging.ERROR, runtime_env=set_up)
            else:
                # Every report waits for the controller's next look, 2 s apart unless told.
                os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", _LOCAL_POLL_S)
                # "local", because without an address Ray joins whatever cluster runs here already.
                ray.init(
                    address="local",
                    include_dashboard=False,
                    object_store_memory=_OBJECT_STORE_BYTES,
                    logging_level=logging.ERROR,
                    runtime_env=set_up,
                )
        except (ConnectionError, RuntimeError) as e:
            raise WorkerError(
                f"cannot reach Ray at {address or 'this machine'}: {e}; check runtime.ray_address "
                f"or RAY_ADDRESS, and that the cluster is up"
            ) from e
        self._opened = True


def _set_up_process() -> None:
    """Runs in every process that Ray starts for us.

    Ray Train's cleaner asks the cluster's dashboard every second whether its controller lives. Where
    two Rays share a machine it must be told which is its own; where there is no dashboard, which
    costs 1 GB and is left out of a Ray of our own, it would warn each time.
    """
    import ray

    os.environ.setdefault("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
