"""The commands ``gmp-atl codebook ...``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from gmp_atl_dist.cli.options import local_option

app = typer.Typer(help="Codebooks: show them, and to and from fairseq's k-means or .npy.")

RootOption = Annotated[
    str, typer.Option(help="folder or URI (s3://, gs://, az://) of all artefacts")
]


@app.command("show")
def show(
    root: RootOption,
    fingerprint: Annotated[
        str | None, typer.Argument(help="of codebook or cluster, or how it begins; none lists all")
    ] = None,
) -> int:
    """Show codebooks: whose, how many clusters, and how they were fitted."""
    from gmp_atl_dist.exchange.codebooks import all_codebooks, find_codebooks
    from gmp_atl_dist.store.codebooks import read_codebooks
    from gmp_atl_dist.store.layout import open_root

    store = open_root(root)
    found = [find_codebooks(store, fingerprint)] if fingerprint else all_codebooks(store)
    table = Table("artefact", "scale", "layer", "group", "k x dim", "ids", "metric", "origin")
    for name in (
        "seed",
        "frames",
        "mean_squared_distance",
        "updates",
        "relocated",
        "stability",
        "codebook",
    ):
        table.add_column(name)
    for artifact in found:
        for book in read_codebooks(artifact):
            k, dim = book.centroids_KD.shape
            fit = book.fit
            fitted = ["-"] * 6
            if fit is not None:
                stability = "-" if fit.stability is None else f"{fit.stability:.3f}"
                fitted = [str(fit.seed), str(fit.frames), f"{fit.mean_squared_distance:.6g}"]
                fitted += [str(fit.iterations), str(fit.relocated), stability]
            table.add_row(
                f"{artifact.key.kind} {artifact.key.fingerprint[:12]}",
                str(book.scale),
                str(book.layer),
                book.group,
                f"{k} x {dim}",
                f"{book.offset}-{book.end - 1}",
                book.metric,
                book.origin,
                *fitted,
                book.fingerprint[:12],
            )
    # Whole lines, so that what follows a fingerprint can be copied from a log as well.
    Console(width=220, soft_wrap=True).print(table)
    return 0


@app.command("export")
def export(
    fingerprint: Annotated[str, typer.Argument(help="of codebook or cluster, or how it begins")],
    out: Annotated[
        Path,
        local_option("file.npy, or any other name for fairseq's joblib"),
    ],
    root: RootOption,
    scale: Annotated[int, typer.Option(min=0, help="of a cluster artefact")] = 0,
    group: Annotated[str, typer.Option(help="all, or by gender female or male")] = "all",
) -> int:
    """Write a codebook's centroids as .npy, or as the k-means that fairseq loads."""
    from gmp_atl_dist.exchange.codebooks import export_codebook, find_codebooks
    from gmp_atl_dist.store.layout import open_root

    artifact = find_codebooks(open_root(root), fingerprint)
    book = export_codebook(artifact, out, scale, group)
    k, dim = book.centroids_KD.shape
    print(f"codebook {book.fingerprint}: {k} x {dim} of layer {book.layer} in {out}")
    return 0


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="centroids as .npy, or fairseq's joblib k-means")],
    layer: Annotated[int, typer.Option(min=1, help="that it was fitted on")],
    root: RootOption,
    metric: Annotated[str, typer.Option(help="euclidean or cosine")] = "euclidean",
    fitted_on: Annotated[
        str,
        typer.Option(help="what it was fitted on; a clean run needs to be told, and reports it"),
    ] = "",
    speakers: Annotated[
        Path | None,
        local_option("text file: speakers of your corpus that it was fitted on, one per line"),
    ] = None,
    extracted_by: Annotated[
        Literal["fairseq", "gmp-atl"],
        typer.Option(help="of whose features; they differ in the last layer of large models"),
    ] = "fairseq",
) -> int:
    """Take a codebook into the store; a scale uses it by cluster.scales[i].codebook."""
    from gmp_atl_dist.errors import ConfigError
    from gmp_atl_dist.exchange.codebooks import import_codebook, read_speakers
    from gmp_atl_dist.store.codebooks import read_codebooks
    from gmp_atl_dist.store.layout import open_root

    if metric not in ("euclidean", "cosine"):
        raise ConfigError(f"--metric: {metric!r} is neither euclidean nor cosine")
    if speakers is not None and not fitted_on.strip():
        raise ConfigError(
            "--speakers: says who is among what it was fitted on; give --fitted-on too"
        )
    artifact = import_codebook(
        open_root(root),
        file,
        layer,
        metric,
        fitted_on=" ".join(fitted_on.split()),
        speakers=() if speakers is None else read_speakers(speakers),
        extracted_by=extracted_by,
    )
    (book,) = read_codebooks(artifact)
    k, dim = book.centroids_KD.shape
    print(f"codebook {artifact.key.fingerprint}: {k} x {dim} of layer {layer}")
    if book.fit is not None:
        print("note: this root fitted these centroids itself, so no declaration is needed or kept")
    elif not fitted_on.strip():
        print("warning: without --fitted-on, no run with folds.protocol = 'clean' accepts it")
    print(
        f'use it: scales = [{{ layer = {layer}, k = {k}, codebook = "{artifact.key.fingerprint[:12]}" }}]'
    )
    return 0
