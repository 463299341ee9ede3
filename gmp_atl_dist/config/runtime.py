"""The runtime configuration: where a run computes, and on how much. None of it is hashed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from gmp_atl_dist.config.sections import Location, PositiveFloat, Section
from gmp_atl_dist.config.workers import (
    ClusterWorkersConfig,
    StreamWorkersConfig,
    TrainWorkersConfig,
    WorkersConfig,
)


class PriceConfig(Section):
    """What the devices cost that a run or a sweep holds. It is shown, and decides nothing."""

    core_hour: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="price of a CPU core for an hour; unset: cores cost nothing"
    )
    gpu_hour: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="price of a GPU for an hour; unset: GPUs cost nothing"
    )
    currency: str = Field(
        default="", max_length=12, description="what is written behind a price, e.g. EUR"
    )

    @property
    def per_hour(self) -> dict[str, float]:
        """Price of an hour of each device, ``CPU`` or ``GPU``; empty if no price is set."""
        both = {"CPU": self.core_hour, "GPU": self.gpu_hour}
        return {device: price for device, price in both.items() if price is not None}


class RuntimeConfig(Section):
    """Where and on what a run computes. Nothing here changes a result, so nothing here is hashed."""

    corpus: Location = Field(
        default="corpus",
        description="folder or URI (s3://, gs://, az://) of the recordings; also "
        "hf://datasets/OWNER/NAME@REVISION",
    )
    corpora: dict[str, Location] = Field(
        default_factory=dict,
        description="folder or URI of each source of [[corpora]], by its name; runtime.corpus is then "
        "not used",
    )
    root: Location = Field(
        default="runs", description="folder or URI (s3://, gs://, az://) of all artefacts"
    )
    run_name: str = Field(
        default="unnamed",
        min_length=1,
        description="the name of this run in records, metrics and log lines; unset: the name of the "
        "configuration and 8 characters of its fingerprint",
    )
    corpus_name: str | None = Field(
        default=None,
        min_length=1,
        description="what people call the corpus, in reports and model cards; unset: the title of a "
        "known corpus, or the name of its folder",
    )
    log_format: Literal["text", "json"] = Field(
        default="text", description="format of the driver's lines; json: one object per line"
    )
    keep_logs: bool = Field(
        default=True,
        description="keep what the driver and the workers print below the root, in run_logs, while a run "
        "works: without secrets, and of each worker at most the last 8 MiB. A Ray of this run's own with a "
        "local root keeps the driver's alone, because the logs of its workers stay on this machine",
    )
    report_audio: bool = Field(
        default=False,
        description="put the audio of the shown errors, cut to 5 s, into the page of a run and that of a "
        "sweep. Leave it off where the licence of the corpus forbids copies",
    )
    price: PriceConfig = PriceConfig()
    ray_address: str | None = Field(
        default=None,
        description="address of a Ray cluster; unset: RAY_ADDRESS, else a Ray of this run's own",
    )
    fork_workers: bool = Field(
        default=True,
        description="on a Ray of this run's own: fork worker processes from one that has imported PyTorch, "
        "transformers and Ray, which saves some 6 s of a core per process; false: start each one anew",
    )
    wait_for_nodes_s: PositiveFloat = Field(
        default=1800.0,
        description="how long a stage waits for nodes that can hold its workers, such as those that an "
        "autoscaler starts; after that it stops with exit code 7 and names what it asks for. Nodes that are "
        "busy count. A Ray of this run's own gets no more nodes, and nothing is waited for",
    )
    stalled_after_s: PositiveFloat = Field(
        default=7200.0,
        description="a stage stops with exit code 7 if no part, no update and no validation batch was "
        "finished for this long. The time in which it waits for busy nodes counts. k-means has its own "
        "limit, runtime.cluster.stalled_after_s",
    )
    ingest: WorkersConfig = WorkersConfig(workers=2)
    extract: StreamWorkersConfig = StreamWorkersConfig()
    cluster: ClusterWorkersConfig = ClusterWorkersConfig()
    label: WorkersConfig = WorkersConfig()
    train: TrainWorkersConfig = TrainWorkersConfig()
    task_retries: Annotated[int, Field(ge=0)] = Field(
        default=3, description="how often a task is tried again after its worker died"
    )

    @field_validator("ingest")
    @classmethod
    def _ingest_on_cpus(cls, ingest: WorkersConfig) -> WorkersConfig:
        if ingest.gpus:
            raise ValueError(
                f"gpus = {ingest.gpus:g}: ingest decodes audio and uses no GPU; write gpus = 0"
            )
        return ingest
