"""The command ``gmp-atl serve``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from gmp_atl_dist.device import DeviceChoice, wants_gpu
from gmp_atl_dist.redaction import say_error


def serve(
    model: Annotated[str, typer.Argument(help="run, or folder or URI of a fine-tuned model")],
    root: Annotated[
        str | None,
        typer.Option(help="folder or URI (s3://, gs://, az://) of the artefacts, for a run's name"),
    ] = None,
    fold: Annotated[
        int | None, typer.Option(min=1, help="number of the fold, from 1, for a run's name")
    ] = None,
    host: Annotated[
        str, typer.Option(help="address to listen on; others than loopback need a token")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one")] = 8000,
    replicas: Annotated[int, typer.Option(min=1, help="processes that compute")] = 1,
    cpus: Annotated[
        int | None, typer.Option(min=1, help="cores of each; by default an equal share of all")
    ] = None,
    device: Annotated[DeviceChoice, typer.Option(help="auto: a GPU where there is one")] = "auto",
    token_file: Annotated[
        Path | None,
        typer.Option(help="file with the token; else GMP_ATL_SERVE_TOKEN in the environment"),
    ] = None,
    max_mib: Annotated[float, typer.Option(help="largest upload, in MiB")] = 25.0,
    max_seconds: Annotated[float, typer.Option(help="longest recording, in seconds")] = 300.0,
    queue: Annotated[
        int, typer.Option(min=1, help="most requests that are held; more get 503")
    ] = 256,
    name: Annotated[
        str, typer.Option(help="name of the application in a cluster (RAY_ADDRESS)")
    ] = "gmp-atl",
) -> int:
    """Answer HTTP requests with emotions, on Ray Serve, until Ctrl-C."""
    from gmp_atl_dist.serving.limits import Limits
    from gmp_atl_dist.serving.token import check_exposure, token_digest

    limits = Limits(max_mib=max_mib, max_s=max_seconds, queue=queue)
    token_sha256 = token_digest(token_file)
    check_exposure(host, token_sha256)
    uri, label = _resolved(model, root, fold)

    from gmp_atl_dist.serving.deployment import ServeOptions
    from gmp_atl_dist.serving.server import run_server

    share = max(1, (os.cpu_count() or 1) // replicas)
    options = ServeOptions(
        model=uri,
        label=label,
        token_sha256=token_sha256,
        device=device,
        replicas=replicas,
        cpus=cpus or share,
        gpus=1.0 if wants_gpu(device) else 0.0,
        limits=limits,
    )
    # Not as a result: after 130, the command line would speak of stages and parts.
    raise SystemExit(run_server(options, host, port, _say, name=name))


def _resolved(model: str, root: str | None, fold: int | None) -> tuple[str, str]:
    """URI and name of a model that is given as a folder, a URI or a run's name.

    Clients see the name. That of a folder or URI is its last part, because the whole would show a path.
    """
    from gmp_atl_dist.runs.models import resolve_model
    from gmp_atl_dist.serving.deployment import label_of

    found = resolve_model(model, root=root, fold=fold)
    # Replicas work in another folder.
    uri = found.uri if "://" in found.uri else str(Path(found.uri).resolve())
    return uri, label_of(uri) if found.record is None else found.label


def _say(text: str) -> None:
    say_error(text)
