"""``gmp-atl features``: exchange features and labels with fairseq."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gmp_atl_dist.cli.options import local_option
from gmp_atl_dist.wording import counted

app = typer.Typer(help="Features and labels: to and from fairseq's .npy, .len, .km, .tsv.")


@app.command("export")
def export(
    fingerprint: Annotated[str, typer.Argument(help="of extract, or how it begins")],
    layer: Annotated[int, typer.Option(min=0)],
    out: Annotated[Path, local_option("folder to write to")],
    root: Annotated[str, typer.Option(help="folder or URI (s3://, gs://, az://) of all artefacts")],
    name: Annotated[str, typer.Option(help="{split}_{rank}_{nshard}")] = "train_0_1",
    labels: Annotated[str | None, typer.Option(help="fingerprint of label, for a .km")] = None,
    scale: Annotated[int, typer.Option(min=0, help="of the labels")] = 0,
) -> int:
    """Write a layer's features, and labels if asked to, as fairseq does."""
    from gmp_atl_dist.exchange.exporting import export_features, export_labels
    from gmp_atl_dist.store.artifact import artifact_of
    from gmp_atl_dist.store.layout import open_root

    store = open_root(root)
    features = artifact_of(store, "extract", fingerprint)
    pseudo_labels = None if labels is None else artifact_of(store, "label", labels)
    listing = export_features(features, layer, out, name)
    frames = sum(count for _, count in listing)
    print(
        f"extract {features.key.fingerprint}: {counted(len(listing), 'utterance')}, {frames} frames of layer "
        f"{layer} in {out / name}.npy"
    )
    if pseudo_labels is not None:
        export_labels(pseudo_labels, scale, out, name, listing)
        print(f"label {pseudo_labels.key.fingerprint}: scale {scale} in {out / name}.km")
    return 0


@app.command("import")
def import_(
    npy: Annotated[Path, typer.Argument(help="features of all utterances")],
    layer: Annotated[int, typer.Option(min=0, help="that they are of")],
    root: Annotated[str, typer.Option(help="folder or URI (s3://, gs://, az://) of all artefacts")],
    lengths: Annotated[
        Path | None, typer.Option("--len", help="frames a line; beside NPY by default")
    ] = None,
    tsv: Annotated[
        Path | None, typer.Option(help="utterances a line; beside NPY if there is one")
    ] = None,
    km: Annotated[
        Path | None, typer.Option(help="labels a line; beside NPY if there is one")
    ] = None,
) -> int:
    """Take features and labels that fairseq wrote into the store."""
    from gmp_atl_dist.exchange.importing import import_features
    from gmp_atl_dist.exchange.layout import FairseqFiles
    from gmp_atl_dist.store.layout import open_root

    files = FairseqFiles.beside(npy, lengths, tsv, km)
    imported = import_features(open_root(root), files, layer)
    receipts = imported.features.manifest.receipts
    utterances = counted(sum(r.rows for r in receipts), "utterance")
    print(
        f"extract {imported.features.key.fingerprint}: {utterances}, "
        f"{sum(r.frames for r in receipts)} frames of layer {layer}"
    )
    if imported.labels is not None:
        print(f"label {imported.labels.key.fingerprint}: scale 0")
    return 0
