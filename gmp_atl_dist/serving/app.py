"""The HTTP side of a server: endpoints, pages and errors. It knows nothing of Ray."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import Annotated, Protocol

from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException

from gmp_atl_dist import __version__
from gmp_atl_dist.audio import SAMPLE_RATE_HZ
from gmp_atl_dist.prediction.notes import notes_of
from gmp_atl_dist.serving.answers import (
    ModelAnswer,
    PredictionAnswer,
    Timing,
    errors_of,
    prediction_of,
    waveform_of,
)
from gmp_atl_dist.serving.clips import ClipJob, jobs_of, plan_clips
from gmp_atl_dist.serving.counters import Counters
from gmp_atl_dist.serving.decoding import Decoder
from gmp_atl_dist.serving.gate import Gate
from gmp_atl_dist.serving.guard import STATIC, Guard
from gmp_atl_dist.serving.limits import Limits
from gmp_atl_dist.serving.parameters import only
from gmp_atl_dist.serving.refusals import (
    STATUS_OF,
    Refusal,
    not_found,
    overloaded,
    wrong_method,
)
from gmp_atl_dist.serving.runner import Computed, ModelFacts
from gmp_atl_dist.serving.upload import announced_bytes, read_recording

_MOST_POINTS = 2000
_HEALTH_S = 5.0
_TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
}
_PAGES = {"/": "page.html", "/docs": "docs.html"}
_OF_NO_ENDPOINT = ("not_found", "wrong_method")
_STATIC_NAMES = ("page.css", "page.js", "drawing.js", "recording.js", "recorder.js", "docs.js")


class ModelService(Protocol):
    """Whatever computes: replicas of a cluster, or a model in this process."""

    async def facts(self) -> ModelFacts: ...

    async def check(self) -> None:
        """Returns when the model answers."""
        ...

    async def compute(self, job: ClipJob) -> Computed:
        """Raises Refusal with 503 if there is no room or no replica."""
        ...


@dataclass
class _Server:
    """What endpoints share."""

    service: ModelService
    limits: Limits
    counters: Counters
    gate: Gate
    decode: Decoder

    async def predict(
        self, request: Request, window_s: float | None, hop_s: float | None, points: int
    ) -> PredictionAnswer:
        with self.gate.admit(announced_bytes(request, self.limits)):
            data = await read_recording(request, self.limits)
            try:
                async with asyncio.timeout(self.limits.answer_s):
                    return await self._predict(data, window_s, hop_s, points)
            except TimeoutError:
                raise overloaded(
                    f"no answer within {self.limits.answer_s:g} s", self.gate.retry_after_s
                ) from None

    async def _predict(
        self, data: bytes, window_s: float | None, hop_s: float | None, points: int
    ) -> PredictionAnswer:
        started_s = time.perf_counter()
        facts = await self.service.facts()
        decoded = await self.decode(data, facts.channel)
        pcm16 = decoded.pcm16
        decoded_s = time.perf_counter()
        planned = plan_clips(len(pcm16), window_s, hop_s)
        plan = planned.without_silence(pcm16)
        # One after the other, so that a long recording has no more than one place in the queue.
        computed = [await self.service.compute(job) for job in jobs_of(pcm16, plan.spans)]
        ended_s = time.perf_counter()
        audio_s = len(pcm16) / SAMPLE_RATE_HZ
        compute_s = sum(one.compute_s for one in computed)
        timing = Timing(
            decode_ms=1000 * (decoded_s - started_s),
            compute_ms=1000 * compute_s,
            wait_ms=1000 * max(0.0, ended_s - decoded_s - compute_s),
            total_ms=1000 * (ended_s - started_s),
            real_time_factor=(ended_s - started_s) / audio_s,
        )
        self.counters.answered(ended_s - started_s, audio_s, computed)
        rows = [row for one in computed for row in one.probabilities]
        waveform = waveform_of(pcm16, points) if points else None
        notes = notes_of(
            pcm16,
            decoded.source_rate_hz,
            windowed=plan.whole is None,
            silent_windows=len(plan.windows) < len(planned.windows),
        )
        return prediction_of(facts, plan, len(pcm16), notes, rows, timing, waveform)


def build_app(
    service: ModelService,
    limits: Limits,
    token_sha256: str | None,
    counters: Counters | None = None,
) -> FastAPI:
    """The application of one server, see :class:`Guard` for ``token_sha256``."""
    counters = counters or Counters()
    gate = Gate(limits.queue, limits.held_bytes)
    server = _Server(service, limits, counters, gate, Decoder(limits))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        server.decode.close()

    app = FastAPI(
        title="gmp-atl serve",
        summary="Speech emotion from recordings, by a model that gmp_atl_dist trained",
        description="An error has a status and a code. An unknown path is 404 with the code not_found, "
        "a method that a path does not take is 405 with wrong_method.",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.add_middleware(Guard, token_sha256=token_sha256, counters=counters)
    _add_errors(app, counters)
    _add_pages(app)
    _add_endpoints(app, server)
    return app


def _add_endpoints(app: FastAPI, server: _Server) -> None:
    # The guard has checked it; this is for the description.
    token = Depends(HTTPBearer(auto_error=False))
    always = ("wrong_host", "internal_error")
    with_token = (*always, "bad_parameter", "no_token")

    @app.post(
        "/v1/predict",
        responses=errors_of(*(code for code in STATUS_OF if code not in _OF_NO_ENDPOINT)),
        dependencies=[token, Depends(only("window", "hop", "waveform"))],
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    "multipart/form-data": {
                        "schema": {
                            "type": "object",
                            "properties": {"file": {"type": "string", "format": "binary"}},
                        }
                    },
                    "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
                },
            }
        },
    )
    async def predict(
        request: Request,
        window: Annotated[
            float | None, Query(gt=0, description="seconds of each window; for emotion over time")
        ] = None,
        hop: Annotated[
            float | None, Query(gt=0, description="seconds from one window to the next")
        ] = None,
        waveform: Annotated[
            int, Query(ge=0, le=_MOST_POINTS, description="points of the waveform in the answer")
        ] = 0,
    ) -> PredictionAnswer:
        """The emotion of a recording: wav, flac, ogg, mp3 or opus, as the body or as a form's file."""
        return await server.predict(request, window, hop, waveform)

    @app.get(
        "/v1/model",
        responses=errors_of(*with_token, "overloaded"),
        dependencies=[token, Depends(only())],
    )
    async def model() -> ModelAnswer:
        """The model, its classes, and the limits of this server."""
        facts = await server.service.facts()
        return ModelAnswer(
            model=facts.label,
            emotions=list(facts.emotions),
            parameters=facts.parameters,
            device=facts.device,
            sample_rate_hz=SAMPLE_RATE_HZ,
            max_upload_mib=server.limits.max_mib,
            max_recording_s=server.limits.max_s,
            version=facts.version,
        )

    @app.get("/healthz", responses=errors_of(*always, "overloaded"))
    async def healthz() -> dict[str, str]:
        """200 when the model is loaded and answers."""
        try:
            async with asyncio.timeout(_HEALTH_S):
                await server.service.check()
        except TimeoutError:
            raise overloaded("the model does not answer", 5) from None
        return {"status": "ok"}

    @app.get(
        "/metrics",
        response_class=PlainTextResponse,
        responses=errors_of(*always, "no_token"),
        dependencies=[token],
    )
    async def metrics() -> PlainTextResponse:
        """Counts of this server, for Prometheus."""
        text = server.counters.text(server.gate.requests)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_pages(app: FastAPI) -> None:
    def add(path: str, name: str) -> None:
        content = (files("gmp_atl_dist.serving") / "static" / name).read_bytes()

        async def page() -> Response:
            return Response(content, media_type=_TYPES[name.rpartition(".")[2]])

        app.get(path, include_in_schema=False)(page)

    for path, name in _PAGES.items():
        add(path, name)
    for name in _STATIC_NAMES:
        add(f"{STATIC}{name}", name)


def _add_errors(app: FastAPI, counters: Counters) -> None:
    def answer(refusal: Refusal) -> JSONResponse:
        counters.refused(refusal.code)
        return JSONResponse(refusal.body(), refusal.status, dict(refusal.headers))

    @app.exception_handler(Refusal)
    async def refused(_: Request, e: Refusal) -> JSONResponse:
        return answer(e)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, e: RequestValidationError) -> JSONResponse:
        found = "; ".join(
            f"{one['loc'][-1]} = {one.get('input')!r}: {one['msg'].lower()}" for one in e.errors()
        )
        return answer(Refusal(400, "bad_parameter", f"{found}; /docs lists the parameters"))

    @app.exception_handler(HTTPException)
    async def http(request: Request, e: HTTPException) -> JSONResponse:
        path = request.url.path
        if e.status_code == 404:
            return answer(not_found(path))
        if e.status_code == 405:
            return answer(wrong_method(request.method, path))
        return answer(Refusal(e.status_code, "bad_request", str(e.detail)))
