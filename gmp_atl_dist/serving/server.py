"""Starts a server on a private Ray or on a cluster. It runs until a signal stops it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from ray import serve
from ray.serve.config import HTTPOptions, ProxyLocation
from ray.serve.schema import ApplicationStatus, LoggingConfig

from gmp_atl_dist.config import RuntimeConfig
from gmp_atl_dist.errors import ConfigError, GmpAtlError, ModelError, WorkerError
from gmp_atl_dist.runtime import RayConnection
from gmp_atl_dist.serving.before_start import check_model, free_port
from gmp_atl_dist.serving.deployment import ServeOptions, application
from gmp_atl_dist.serving.stopping import Stop

_POLL_S = 0.3
_NOTICE_S = 60.0
_START_S = 1800.0
"""An autoscaler may need many minutes for a node with a GPU and its image."""
_FAILED = (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY)


def run_server(
    options: ServeOptions,
    host: str,
    port: int,
    say: Callable[[str], None],
    *,
    name: str = "gmp-atl",
    ray_address: str | None = None,
) -> int:
    """Serve until a signal comes, and return the exit code that belongs to it.

    Args:
        port: 0 takes a free one.
        say: prints a line.
        name: of the application in a cluster.
        ray_address: a cluster; None: RAY_ADDRESS, else a Ray of this machine and this process alone.

    Raises:
        ConfigError: the address is in use, or the cluster has such an application.
        ModelError: there is no model, or it cannot be loaded.
        WorkerError: Ray cannot be reached, or the server does not start.
    """
    check_model(options.model)
    address = ray_address or os.environ.get("RAY_ADDRESS")
    if not address:
        port = free_port(host, port)
    stop = Stop(say)
    stop.install()
    settings = RuntimeConfig(ray_address=address)
    with (
        # Its thread lives as long as Ray: Linux ends Ray's processes with the thread that started them.
        ThreadPoolExecutor(1, thread_name_prefix="ray-init") as starter,
        RayConnection(settings, log_to_driver=False) as connection,
    ):
        say(f"starting {options.label} on {address or 'this machine'}; this takes up to a minute")
        # Not in this thread: Ray would put a handler in place of ours, which exits from wherever Ray is,
        # and a signal in the middle of its start would be lost.
        starter.submit(connection.open).result()
        stop.install()
        if not stop.asked:
            _deploy(options, name, host, port, cluster=bool(address))
            try:
                if _wait_until_ready(name, stop, say):
                    shown = f"[{host}]" if ":" in host and not host.startswith("[") else host
                    say(f"logs: {connection.session_dir}/logs/serve")
                    say(f"ready: http://{shown}:{port}/ (API: /docs); Ctrl-C ends it")
                    while not stop.wait(_NOTICE_S):
                        pass
            finally:
                # Serve itself ends with a Ray of this process, and stays in a cluster.
                serve.delete(name)
    say("stopped")
    return stop.exit_code


def _deploy(options: ServeOptions, name: str, host: str, port: int, *, cluster: bool) -> None:
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    serve.start(
        proxy_location=ProxyLocation.EveryNode if cluster else ProxyLocation.HeadOnly,
        http_options=HTTPOptions(host=host, port=port),
        logging_config=LoggingConfig(log_level="ERROR", enable_access_log=False),
    )
    if cluster and name in serve.status().applications:
        raise ConfigError(
            f"the cluster has an application {name!r} already; give --name, or delete it there"
        )
    target = serve.RunTarget(application(options), name=name, route_prefix="/")
    serve.run_many(
        [target],
        wait_for_ingress_deployment_creation=False,
        wait_for_applications_running=False,
    )


def _wait_until_ready(
    name: str, stop: Stop, say: Callable[[str], None], limit_s: float = _START_S
) -> bool:
    """Wait until the model is loaded; False if a signal came before.

    Raises:
        ModelError: the model cannot be loaded.
        WorkerError: the server does not start, or has not started within ``limit_s``.
    """
    started_s = time.monotonic()
    notice_s = started_s + _NOTICE_S
    while not stop.wait(_POLL_S):
        found = serve.status().applications.get(name)
        messages: list[str] = []
        if found is not None:
            if found.status == ApplicationStatus.RUNNING:
                return True
            messages = [found.message, *(one.message for one in found.deployments.values())]
            error = _start_error("\n".join(messages), failed=found.status in _FAILED)
            if error is not None:
                raise error
        waits = next((text for text in messages if text), "no reason given").splitlines()[0]
        if time.monotonic() > started_s + limit_s:
            raise WorkerError(
                f"the server has not started within {limit_s:g} s: {waits}; check that a node has the cores "
                f"and GPUs free that a replica asks for, and that the model can be read there"
            )
        if time.monotonic() > notice_s:
            notice_s += _NOTICE_S
            say(f"still starting: {waits}")
    return False


def _start_error(text: str, *, failed: bool) -> GmpAtlError | None:
    """Our own error of a replica, at its first try; Ray puts a traceback around it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for line in reversed(lines):
        _, mark, message = line.partition("ModelError: ")
        if mark:
            return ModelError(message)
    if failed:
        return WorkerError(
            f"the server does not start: {' '.join(lines[-3:]) or 'no reason given'}"
        )
    return None
