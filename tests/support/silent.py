"""Other sides that take a connection and say nothing, or say something and then nothing more.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def silent_server() -> Iterator[tuple[str, int]]:
    """Host and port of a server whose connections are made, and never answered."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield server.getsockname()[:2]


DASHBOARD = """
import asyncio
from aiohttp import web

async def version(request):
    return web.json_response({"version": "4", "ray_version": "9.9.9", "ray_commit": "", "session_name": ""})

async def tail(request):
    answer = web.WebSocketResponse()
    await answer.prepare(request)
    await answer.send_str("Running entrypoint for job j: x\\nfirst line\\n")
    await answer.receive()
    return answer

app = web.Application()
app.router.add_get("/api/version", version)
app.router.add_get("/api/jobs/{job}/logs/tail", tail)

async def main():
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@contextmanager
def dashboard_that_can_stop() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A dashboard of one job that has printed a line and is silent now, as a process; SIGSTOP is allowed."""
    process = subprocess.Popen([sys.executable, "-c", DASHBOARD], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}", process
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()
