"""Other sides that take a connection and say nothing, or say something and then nothing more.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


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
def dashboard_that_cuts(cuts: int, *, after_accepting: bool) -> Iterator[tuple[str, list[str]]]:
    """A dashboard that closes the connection of its first ``cuts`` submissions without an answer.

    Yields its URL, and the ids of the jobs that it has accepted. A cut submission is accepted or it is not.
    """
    accepted: list[str] = []
    left = [cuts]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            job = self.path.rpartition("/")[2]
            if self.path == "/api/version":
                self._answer(200, {"version": "4", "ray_version": "9.9.9", "ray_commit": ""})
            elif job in accepted:
                self._answer(200, {"type": "SUBMISSION", "status": "RUNNING", "entrypoint": "x"})
            else:
                self._answer(404, {})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            job = body["submission_id"]
            if left[0]:
                left[0] -= 1
                if after_accepting:
                    accepted.append(job)
                self.close_connection = True
                return
            if job in accepted:
                self._answer(500, {"error": f"Job with submission_id {job} already exists"})
                return
            accepted.append(job)
            self._answer(200, {"job_id": job, "submission_id": job})

        def _answer(self, status: int, content: dict[str, str]) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", accepted
        finally:
            server.shutdown()


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


class _Fails(BaseHTTPRequestHandler):
    """Answers each request with 500, and counts it."""

    count = 0

    def do_GET(self) -> None:
        type(self).count += 1
        self.send_response(500)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        return None


@contextmanager
def failing_server() -> Iterator[tuple[str, Callable[[], int]]]:
    """A server of HTTP that answers 500 to everything: its URL, and the number of requests so far."""
    counting = type("Counting", (_Fails,), {"count": 0})
    with ThreadingHTTPServer(("127.0.0.1", 0), counting) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", lambda: counting.count
        server.shutdown()
