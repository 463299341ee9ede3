"""Starts a server on a Ray of its own or on a cluster, and keeps it until it is told to stop."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

from gmp_atl_dist.config import RuntimeConfig
from gmp_atl_dist.errors import ConfigError, ModelError, WorkerError
from gmp_atl_dist.runtime import RayConnection
from gmp_atl_dist.serving.before_start import check_model, free_port
from gmp_atl_dist.serving.deployment import ServeOptions, application

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Stopped(BaseException):
    """A signal came while the server was starting."""


class Stop:
    """The first SIGINT, SIGTERM or SIGHUP asks to stop; the second one ends the process at once."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.starting = True
        self._event = threading.Event()

    def install(self) -> None:
        for number in _SIGNALS:
            signal.signal(number, self._receive)

    def wait(self) -> None:
        """Return when the server should end."""
        # With a time limit, because a signal does not wake a wait without one in all Pythons.
        while not self._event.wait(0.5):
            pass

    @property
    def exit_code(self) -> int:
        return 128 + (self.signal or signal.SIGTERM)

    def _receive(self, number: int, _: FrameType | None) -> None:
        if self.signal is not None:
            os._exit(128 + number)
        self.signal = number
        self._event.set()
        if self.starting:
            raise _Stopped


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
    stop = Stop()
    stop.install()
    with RayConnection(RuntimeConfig(ray_address=address)) as connection:
        try:
            say(f"starting {options.label} on {address or 'this machine'}; this takes some 20 s")
            connection.open()
            stop.install()  # Ray has put a handler of its own in place, which ends with code 15
            shown = _deploy(options, name, host, port, cluster=bool(address))
            stop.install()
            stop.starting = False
        except _Stopped:
            say("stopped before it was ready")
            return stop.exit_code
        except SystemExit:
            say("stopped before it was ready")  # Ray's handler, while Ray was starting
            return stop.exit_code
        say(f"ready: http://{shown}/ (API: http://{shown}/docs); Ctrl-C ends it")
        stop.wait()
        say("stopping; requests that were received are answered")
        _remove(name)
    say("stopped")
    return stop.exit_code


def _deploy(options: ServeOptions, name: str, host: str, port: int, *, cluster: bool) -> str:
    """Deploy and wait until the model is loaded; returns host and port for people."""
    from ray import serve
    from ray.serve.config import HTTPOptions, ProxyLocation
    from ray.serve.schema import LoggingConfig

    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    where = ProxyLocation.EveryNode if cluster else ProxyLocation.HeadOnly
    serve.start(
        proxy_location=where,
        http_options=HTTPOptions(host=host, port=port),
        logging_config=LoggingConfig(log_level="ERROR", enable_access_log=False),
    )
    if cluster and name in serve.status().applications:
        raise ConfigError(
            f"the cluster has an application {name!r} already; give --name, or delete it there"
        )
    try:
        serve.run(application(options), name=name, route_prefix="/", blocking=False)
    except RuntimeError as e:
        _remove(name)
        raise _start_error(str(e)) from None
    shown = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return f"{shown}:{port}"


def _start_error(text: str) -> ModelError | WorkerError:
    """Our own error of the replica's, if it is one; Ray puts a traceback around it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for line in reversed(lines):
        _, mark, message = line.partition("ModelError: ")
        if mark:
            return ModelError(message)
    return WorkerError(f"the server does not start: {' '.join(lines[-3:]) or 'no reason given'}")


def _remove(name: str) -> None:
    """Delete the application. Serve itself ends with a Ray of this process, and stays in a cluster."""
    from ray import serve

    serve.delete(name)
