"""``gmp-atl predict``: emotions of recordings by a fine-tuned model, here or on Ray."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from gmp_atl_dist.cli.options import SetOption, local_option
from gmp_atl_dist.cli.stops import stoppable_results, stopped_with
from gmp_atl_dist.device import Accelerator
from gmp_atl_dist.errors import ConfigError

_MOST_THREADS = 8


def predict(
    model: Annotated[
        str,
        typer.Argument(
            metavar="RUN_OR_MODEL",
            help="name of a run below --root, or folder or URI of a fine-tuned model",
        ),
    ],
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATHS...",
            help="recordings: files, folders, globs, lists (.csv, .tsv, .txt), objects or prefixes of "
            "s3://, gs:// or az://",
        ),
    ] = None,
    root: Annotated[
        str | None,
        typer.Option(
            help="folder or URI (s3://, gs://, az://) of the runs; with --ray also of the results"
        ),
    ] = None,
    fold: Annotated[
        int | None, typer.Option(min=1, help="fold of the run whose model is used, from 1")
    ] = None,
    out: Annotated[
        Path | None,
        local_option("write a file instead of lines: .csv, .json, .jsonl, .parquet"),
    ] = None,
    window: Annotated[
        float | None, typer.Option(help="seconds; emotion over time in windows of this length")
    ] = None,
    hop: Annotated[
        float | None, typer.Option(help="seconds from one window to the next; a third of a window")
    ] = None,
    device: Annotated[
        Accelerator | None, typer.Option(help="cpu or cuda; a GPU if there is one")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="most recordings or windows of a forward pass")
    ] = None,
    ray: Annotated[
        bool, typer.Option("--ray", help="predict a whole corpus on Ray, into the store")
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="with --ray: TOML file that names the corpus"),
    ] = None,
    set_: SetOption = None,
) -> int:
    """Predict the emotion of each recording. Exit code 3 if some recordings could not be used."""
    if out is not None:
        from gmp_atl_dist.prediction.files import check_output

        check_output(out)
    if ray:
        from gmp_atl_dist.cli.predict_ray import predict_on_ray

        if window is not None or hop is not None or device is not None or batch is not None:
            raise ConfigError(
                "--window, --hop, --device and --batch do not work with --ray; leave them out"
            )
        uri = resolved_model(model, root, fold)
        return predict_on_ray(uri, paths or [], root, config, set_, out)
    if config is not None or set_:
        raise ConfigError("--config and --set work with --ray only; add --ray, or leave them out")
    if not paths:
        raise ConfigError(
            "no recordings are named; give files, folders, globs, lists or s3:// URIs"
        )
    return _predict_here(model, paths, root, fold, out, window, hop, device, batch)


def resolved_model(model: str, root: str | None, fold: int | None) -> str:
    """The folder or URI of the model that a person named.

    Raises:
        ConfigError: there is no such model or run.
        ArtifactError: the run has no model yet.
    """
    from gmp_atl_dist.runs.models import resolve_model

    return resolve_model(model, root=root, fold=fold).uri


def _predict_here(
    model: str,
    paths: Sequence[str],
    root: str | None,
    fold: int | None,
    out: Path | None,
    window: float | None,
    hop: float | None,
    device: Accelerator | None,
    batch: int | None,
) -> int:
    from gmp_atl_dist.cli.predict_show import show
    from gmp_atl_dist.prediction.sources import find_sources, repeated_line
    from gmp_atl_dist.prediction.windows import WindowPlan

    if hop is not None and window is None:
        raise ConfigError("--hop needs --window: the length of a window in seconds")
    if window is not None:
        WindowPlan(window, window / 3 if hop is None else hop)
    with stoppable_results():
        try:
            uri = resolved_model(model, root, fold)
            sources = find_sources(paths)
            threads = _threads(device)
            # Loads torch, which reads the number of threads from the environment.
            from gmp_atl_dist.predict import Predictor
            from gmp_atl_dist.prediction.stream import ClipCount

            predictor = Predictor(uri, device=device, batch=batch, threads=threads)
        except KeyboardInterrupt:
            raise stopped_with("before any recording was predicted") from None
        names = (source.name for source in sources)
        clips = ClipCount()
        stream = predictor.stream(sources, window_s=window, hop_s=hop, count=clips)
        with closing(stream) as results:
            longest = max(map(len, names), default=0)
            total = len(sources)
            return show(
                results,
                predictor.emotions,
                out,
                total=total,
                longest=longest,
                clips=clips,
                warning=repeated_line(sources),
            )


def _threads(device: Accelerator | None) -> int:
    """Forward passes at the same time, each with an equal share of the cores."""
    from gmp_atl_dist.device import pin_threads

    limit = os.environ.get("OMP_NUM_THREADS", "")
    cores = int(limit) if limit.isdigit() and int(limit) else len(os.sched_getaffinity(0))
    threads = min(cores, _MOST_THREADS)
    pin_threads(cores // threads)
    if device == "cpu":
        return threads
    from gmp_atl_dist.device import has_gpu

    return 1 if has_gpu() else threads
