"""A model service and an HTTP server in this process, without Ray, for ``gmp_atl_dist.serving.app``."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from gmp_atl_dist.serving.before_start import free_port
from gmp_atl_dist.serving.clips import ClipJob
from gmp_atl_dist.serving.runner import Computed, ModelFacts, ModelRunner

_START_S = 60.0


class OneProcess:
    """A model service without Ray."""

    def __init__(self, runner: ModelRunner) -> None:
        self.runner = runner
        self.delay_s = 0.0
        self.fails = False

    async def facts(self) -> ModelFacts:
        return self.runner.facts

    async def check(self) -> None:
        await asyncio.sleep(0)

    async def compute(self, job: ClipJob) -> Computed:
        await asyncio.sleep(self.delay_s)
        if self.fails:
            raise RuntimeError("a secret path")
        return self.runner([job])[0]


@contextmanager
def http_server(app: FastAPI) -> Iterator[str]:
    """The address at which the application answers on the loopback interface."""
    port = free_port("127.0.0.1", 0)
    started = threading.Event()

    class Server(uvicorn.Server):
        async def startup(self, *args: object, **kwargs: object) -> None:
            await super().startup(*args, **kwargs)  # pyright: ignore[reportArgumentType]
            started.set()

    server = Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        assert started.wait(_START_S)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(_START_S)
