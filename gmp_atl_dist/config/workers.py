"""What the worker processes of each kind of stage get: how many, cores, GPUs, custom resources."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, field_validator, model_validator

from gmp_atl_dist.config.sections import PositiveFloat, PositiveInt, Section


def _ray_resources(given: dict[str, float]) -> dict[str, float]:
    """What Ray would refuse much later, on the cluster."""
    for name, amount in given.items():
        if name.lower() in ("cpu", "gpu", "memory", "object_store_memory") or not name.strip():
            raise ValueError(
                f"{name!r} is no custom resource; use cpus and gpus for those, and a name of your own "
                f"that the nodes advertise, e.g. gang"
            )
        if amount > 1 and amount != int(amount):
            raise ValueError(
                f"{name} = {amount:g}: Ray divides a resource below 1 only; give a whole number or "
                f"a fraction up to 1"
            )
    return given


RayResources = Annotated[dict[str, PositiveFloat], AfterValidator(_ray_resources)]


class ProcessConfig(Section):
    """One worker process. Its threads are pinned to ``cpus``."""

    cpus: PositiveInt = Field(default=1, description="cores and threads of each process")
    gpus: Annotated[float, Field(ge=0)] = Field(
        default=0.0,
        description="GPUs of each process; 0: it sees none; a fraction: several share one",
    )
    most_gpus: ClassVar[float] = math.inf
    """GPUs that one process of the section can use."""

    resources: RayResources = Field(
        default_factory=dict,
        description="Ray's custom resources of each process, e.g. { gang = 1 }. Only nodes that "
        "advertise them are used",
    )

    @field_validator("gpus")
    @classmethod
    def _gpus_that_are_used(cls, gpus: float) -> float:
        """More would be reserved and lie idle, or Ray would refuse them on the cluster."""
        if gpus > cls.most_gpus:
            raise ValueError(
                f"one process uses one GPU at most; write gpus = {cls.most_gpus:g} and raise "
                f"workers, each of which is a process of its own"
            )
        if gpus > 1 and gpus != int(gpus):
            raise ValueError(
                f"Ray divides one GPU, but not several; write a fraction up to 1, or "
                f"{math.floor(gpus)} or {math.ceil(gpus)}"
            )
        return gpus


class WorkersConfig(ProcessConfig):
    """Workers of a mapped stage."""

    workers: PositiveInt | tuple[PositiveInt, PositiveInt] = Field(
        default=1, description="processes at once; [2, 8]: from 2 to 8, as there is work and room"
    )

    @property
    def min_workers(self) -> int:
        return self.workers if isinstance(self.workers, int) else self.workers[0]

    @property
    def max_workers(self) -> int:
        return self.workers if isinstance(self.workers, int) else self.workers[1]

    @field_validator("workers", mode="before")
    @classmethod
    def _one_or_two(cls, raw: object) -> object:
        """A union's own errors would be one for each of its members."""
        given = list(raw) if isinstance(raw, list | tuple) else [raw, raw]
        numbers = [n for n in given if type(n) is int and n > 0]
        if len(given) != 2 or len(numbers) != 2:
            raise ValueError(
                "expected a whole number of at least 1, or [fewest, most], e.g. [1, 4]"
            )
        if numbers[0] > numbers[1]:
            raise ValueError("the fewest are more than the most; give [fewest, most]")
        return raw


class ClusterWorkersConfig(WorkersConfig):
    """Workers of ``cluster``. They keep frames in memory as far as it allows."""

    memory_gib: Annotated[float, Field(ge=0.5)] = Field(
        default=4.0,
        description="most memory of one process; frames beyond it are read again in every "
        "iteration",
    )
    engine: Literal["auto", "faiss", "torch"] = Field(
        default="auto",
        description="who finds nearest centroids, here and in label: faiss, torch (PyTorch), or auto: "
        "faiss, unless gpus are asked for and the installed FAISS sees none",
    )
    stalled_after_s: PositiveFloat = Field(
        default=1800.0, description="the run stops when no worker has answered for this long"
    )


class StreamWorkersConfig(WorkersConfig):
    """Workers of a stage whose audio is read by separate processes."""

    most_gpus: ClassVar[float] = 1.0

    readers: PositiveInt | None = Field(
        default=None,
        description="processes that read audio; unset: two per worker with a GPU, else one in all, and as "
        "many as were needed once a stage of the kind was measured in this run",
    )
    reader_cpus: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="cores of each reader; 0: readers share the workers' cores"
    )
    reader_resources: RayResources = Field(
        default_factory=dict, description="Ray's custom resources of each reader; see resources"
    )
    batch_s: PositiveFloat | None = Field(
        default=None,
        description="most audio in one forward pass, in seconds; unset: fitted to the device's memory",
    )


class TrainWorkersConfig(WorkersConfig):
    """Workers of a trained stage: one process per GPU, or a few cores each."""

    most_gpus: ClassVar[float] = 1.0

    workers: PositiveInt | tuple[PositiveInt, PositiveInt] = Field(
        default=1,
        description="processes at once; [1, 4]: as many as there is room for, and another "
        "number when "
        "nodes come or go",
    )
    zero_stage: Literal[1, 2, 3] = Field(
        default=1,
        description="DeepSpeed ZeRO. 1 divides the state of the optimiser among workers, 2 "
        "also the "
        "gradients, 3 also the weights",
    )
    gradient_checkpointing: bool = Field(
        default=False,
        description="compute the activations of encoder layers again in the backward pass: "
        "less memory, "
        "more time",
    )
    on_out_of_memory: Literal["stop", "halve"] = Field(
        default="stop",
        description="what happens where a forward or backward pass does not fit into the memory. stop: the "
        "stage ends with an error that says what to change. halve: the update is taken again, that pass in "
        "two halves; without dropout the curve stays the same. Gradients are then exchanged when all "
        "passes of an update are done, not while they are computed",
    )
    pass_s: PositiveFloat | Literal["auto"] = Field(
        default="auto",
        description="seconds of audio up to which a worker joins its micro-batches of an update into one "
        "forward and backward pass. auto: on a GPU as much as its memory takes, at most 400, measured when "
        "a stage starts and kept in its checkpoints; on a CPU one pass for each micro-batch. The curve stays "
        "the same, but for dropout on a GPU",
    )
    gradient_dtype: Literal["fp32", "bf16"] = Field(
        default="fp32",
        description="type in which workers with GPUs exchange gradients. bf16 halves the traffic, and "
        "rounds each gradient before they are summed. On CPUs it is always fp32",
    )
    frontend_cache: bool = Field(
        default=False,
        description="store the output of a frozen convolutional encoder once for all epochs "
        "and folds; "
        "each stage first prints what this takes and saves",
    )
    checkpoint_every_steps: PositiveInt = Field(
        default=200, description="updates between two checkpoints"
    )
    checkpoint_every_min: PositiveFloat = Field(
        default=10.0, description="minutes between two checkpoints, if these pass first"
    )
    max_failures: Annotated[int, Field(ge=0)] = Field(
        default=3, description="worker deaths that a training survives"
    )
    collective_timeout_s: PositiveFloat = Field(
        default=600.0, description="a worker that waits this long for the others gives up"
    )
    mlflow_uri: str | None = Field(
        default=None,
        description="MLflow tracking server that gets all metrics as well, e.g. https://host; "
        "needs the "
        "extra mlflow. Credentials: MLFLOW_TRACKING_TOKEN in the workers' environment",
    )
    mlflow_experiment: str = Field(
        default="gmp_atl_dist", min_length=1, description="experiment on that server"
    )

    @field_validator("pass_s", mode="before")
    @classmethod
    def _seconds_or_auto(cls, raw: object) -> object:
        """A union's own errors would be one for each of its members."""
        is_number = type(raw) in (int, float) and 0 < float(str(raw)) < math.inf
        if raw != "auto" and not is_number:
            raise ValueError('expected "auto", or seconds of audio above 0, e.g. 200')
        return raw

    @field_validator("gpus")
    @classmethod
    def _whole_gpu(cls, gpus: float) -> float:
        """NCCL refuses two processes of a gang on one GPU."""
        if gpus not in (0, 1):
            raise ValueError(
                "a training process has a GPU of its own or none; write gpus = 1 with "
                "workers = the number of GPUs, or gpus = 0"
            )
        return gpus

    @model_validator(mode="after")
    def _fixed_workers_of_zero_3(self) -> Self:
        if self.zero_stage == 3 and self.min_workers != self.max_workers:
            raise ValueError(
                f"zero_stage = 3 with workers = [{self.min_workers}, {self.max_workers}]: its "
                f"checkpoints go on with the same number of workers alone; give one number, or use "
                f"zero_stage = 2"
            )
        return self

    @model_validator(mode="after")
    def _no_halves_with_zero_3(self) -> Self:
        if self.zero_stage == 3 and self.on_out_of_memory == "halve":
            raise ValueError(
                'zero_stage = 3 with on_out_of_memory = "halve": its workers exchange weights within each '
                "pass, so all of them must take the same passes; use zero_stage = 1 or 2"
            )
        return self

    @model_validator(mode="after")
    def _no_credentials(self) -> Self:
        """Configurations are printed and shared. Of the section, so that the value is not quoted."""
        if self.mlflow_uri is not None and "@" in urlsplit(self.mlflow_uri).netloc:
            raise ValueError(
                "mlflow_uri: holds a user or a password; leave them out and set "
                "MLFLOW_TRACKING_USERNAME and _PASSWORD, or _TOKEN, in the workers' environment"
            )
        return self
