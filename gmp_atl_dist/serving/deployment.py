"""The two deployments on Ray Serve: ``Front`` answers HTTP, ``Model`` computes batches.

Many requests wait in ``Front``, which is one cheap replica. ``Model`` has as many replicas as are asked for.
Ray restarts a replica that dies. ``Front`` then sends its jobs again, because a job changes nothing.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.schema import LoggingConfig

from gmp_atl_dist.device import DeviceChoice, use_gpus
from gmp_atl_dist.errors import ConfigError
from gmp_atl_dist.serving.app import build_app
from gmp_atl_dist.serving.batching import Batcher
from gmp_atl_dist.serving.clips import ClipJob
from gmp_atl_dist.serving.counters import Counters
from gmp_atl_dist.serving.limits import Limits
from gmp_atl_dist.serving.refusals import overloaded
from gmp_atl_dist.serving.runner import Computed, ModelFacts, ModelRunner
from gmp_atl_dist.serving.token import TOKEN_VARIABLE, token_digest

if TYPE_CHECKING:
    from ray.serve import Application
    from ray.serve.handle import DeploymentHandle

FRONT, MODEL = "Front", "Model"
BATCH_JOBS = 32
MODEL_VARIABLE = "GMP_ATL_SERVE_MODEL"
_ARGUMENTS = {"model", "label", "device", "replicas", "cpus", "gpus"}
_MOST_TRIES = 5
_RETRY_S = 0.5
_START_AGAIN_S = 10
_LOGS = LoggingConfig(log_level="ERROR", enable_access_log=False)


@dataclass(frozen=True)
class ServeOptions:
    """Everything that a server is started with.

    Attributes:
        model: folder or URI of a fine-tuned model; every node must reach it.
        label: what clients see as the model's name.
        token_sha256: see :class:`Guard`.
        replicas: processes that compute.
        cpus: cores and threads of each of them.
        gpus: GPUs of each of them; 0: they compute on CPUs.
    """

    model: str
    label: str
    token_sha256: str | None = None
    device: DeviceChoice = "auto"
    replicas: int = 1
    cpus: int = 1
    gpus: float = 0.0
    limits: Limits = field(default_factory=Limits)


@serve.deployment(name=MODEL)
class ModelReplica:
    """One process with the model. While a batch is computed, the next one collects."""

    def __init__(self, options: ServeOptions) -> None:
        use_gpus(options.gpus)
        self._run = ModelRunner(options.model, options.label, options.device, options.cpus)
        self._batcher = Batcher(self._run, BATCH_JOBS)

    async def facts(self) -> ModelFacts:
        return self._run.facts

    async def compute(self, job: ClipJob) -> Computed:
        return await self._batcher(job)


class ReplicaService:
    """The replicas of ``Model``, as :class:`gmp_atl_dist.serving.app.ModelService`."""

    def __init__(self, handle: DeploymentHandle, counters: Counters) -> None:
        self._handle = handle
        self._counters = counters
        self._facts: ModelFacts | None = None

    async def facts(self) -> ModelFacts:
        facts = self._facts
        if facts is None:
            facts = self._facts = cast("ModelFacts", await self._call("facts"))
        return facts

    async def check(self) -> None:
        await self._call("facts")

    async def compute(self, job: ClipJob) -> Computed:
        return await self._call("compute", job)

    async def _call(self, method: str, *arguments: object) -> Any:
        for left in reversed(range(_MOST_TRIES)):
            try:
                return await getattr(self._handle, method).remote(*arguments)
            except BackPressureError:
                raise overloaded("the queue of the model is full", 2) from None
            except DeploymentUnavailableError:
                raise overloaded("the model does not start", _START_AGAIN_S) from None
            except RayActorError:
                if not left:
                    raise overloaded("the model is started again", _START_AGAIN_S) from None
                self._counters.retried()
                await asyncio.sleep(_RETRY_S)
        raise AssertionError("unreachable")


@serve.deployment(name=FRONT)
@serve.ingress()
class FrontReplica:
    """The HTTP side: checks and decodes recordings, and holds requests while they wait."""

    def __init__(self, model: DeploymentHandle, options: ServeOptions) -> None:
        self._model = model
        self._options = options

    def __serve_build_asgi_app__(self) -> FastAPI:
        counters = Counters()
        service = ReplicaService(self._model, counters)
        return build_app(service, self._options.limits, self._options.token_sha256, counters)


def application(options: ServeOptions) -> Application:
    """The deployments of one server, ready for ``serve.run``."""
    queue = options.limits.queue
    resources = {"num_cpus": options.cpus, "num_gpus": options.gpus}
    model = ModelReplica.options(
        num_replicas=options.replicas,
        ray_actor_options=resources,
        # Two batches: one computes, one collects. The rest waits in the queue of Front.
        max_ongoing_requests=2 * BATCH_JOBS,
        max_queued_requests=queue,
        health_check_period_s=2,
        graceful_shutdown_timeout_s=10,
        logging_config=_LOGS,
    ).bind(options)
    front = FrontReplica.options(
        num_replicas=1,
        ray_actor_options={"num_cpus": 0},
        # Its gate refuses what is too much, with our words; Ray's refusal has none.
        max_ongoing_requests=10 * queue + 100,
        health_check_period_s=2,
        graceful_shutdown_timeout_s=10,
        logging_config=_LOGS,
    )
    return front.bind(model, options)


def build(arguments: dict[str, Any]) -> Application:
    """The builder that a Serve configuration names in ``import_path``, as for a RayService.

    ``arguments`` are the fields of :class:`ServeOptions` and :class:`Limits`. The token, and the model if it
    is no argument, come from the environment of the cluster's processes.

    Raises:
        ConfigError: an argument is not known, or there is no token or no model.
    """
    token_sha256 = token_digest(None)
    if token_sha256 is None:
        raise ConfigError(
            f"a server in a cluster needs a token; set {TOKEN_VARIABLE} in the environment of its pods"
        )
    limit_names = set(Limits.__dataclass_fields__)
    unknown = sorted(set(arguments) - limit_names - _ARGUMENTS)
    if unknown:
        raise ConfigError(
            f"arguments of the application: {', '.join(unknown)} is not known; known are "
            f"{', '.join(sorted(limit_names | _ARGUMENTS))}"
        )
    limits = Limits(**{name: value for name, value in arguments.items() if name in limit_names})
    others = {name: value for name, value in arguments.items() if name in _ARGUMENTS}
    model = str(others.pop("model", None) or os.environ.get(MODEL_VARIABLE, ""))
    if not model:
        raise ConfigError(
            f"no model to serve; set {MODEL_VARIABLE} in the environment of the pods, or the argument model"
        )
    label = str(others.pop("label", None) or label_of(model))
    return application(
        ServeOptions(model=model, label=label, token_sha256=token_sha256, limits=limits, **others)
    )


def label_of(model: str) -> str:
    """What clients see of a folder or URI: its last part, without the folder ``files`` of an artefact."""
    return model.rstrip("/").removesuffix("/files").rpartition("/")[2] or "model"
