"""The commands ``gmp-atl model ...``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from gmp_atl_dist.cli import push
from gmp_atl_dist.cli.chosen import OptionalConfigOption, RunArgument, choose_run
from gmp_atl_dist.cli.options import RootOption, SetOption, local_option

app = typer.Typer(help="Models: out of the store, for transformers alone.")

What = Literal["classifier", "backbone"]
Format = Literal["transformers", "onnx"]
Stage = Literal["retrain", "warmup", "backbone"]


app.command("push")(push.push)


@app.command("export")
def export(
    to: Annotated[Path, local_option("folder to write; new or empty")],
    run: RunArgument = None,
    config: OptionalConfigOption = None,
    fold: Annotated[
        int | None,
        typer.Option(min=1, help="number of the fold, from 1; needed if there are several"),
    ] = None,
    what: Annotated[
        What, typer.Option(help="the fine-tuned classifier, or a HuBERT")
    ] = "classifier",
    stage: Annotated[
        Stage | None,
        typer.Option(
            help="whose backbone; by default that of finetune.start, backbone is the stock one"
        ),
    ] = None,
    format_: Annotated[
        Format, typer.Option("--format", help="onnx needs the extra onnx; the classifier only")
    ] = "transformers",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="replace a folder that this command wrote")
    ] = False,
    set_: SetOption = None,
    root: RootOption = None,
) -> int:
    """Write a model, its feature extractor and a model card; loads without this package."""
    from gmp_atl_dist.errors import ConfigError
    from gmp_atl_dist.exchange.models import export_model
    from gmp_atl_dist.stage_survey import find_fold
    from gmp_atl_dist.store.filesystem import Store

    if what == "classifier" and stage is not None:
        raise ConfigError(f"--stage {stage}: is whose backbone; it goes with --what backbone")
    chosen = choose_run(run, config, set_, root)
    experiment, inputs = chosen.config, chosen.inputs()
    source = Store.open(experiment.runtime.corpus)
    corpus, backbone, made = find_fold(experiment, chosen.store, source, fold, inputs)
    for note in inputs.notes:
        print(f"note: {note}")
    exported = export_model(
        experiment,
        corpus,
        backbone,
        made,
        to,
        what=what,
        stage=stage,
        format=format_,
        overwrite=overwrite,
        run=chosen.record,
    )
    key = exported.artifact.key
    print(f"{key.kind} {key.fingerprint}: {what}, {exported.num_bytes / 1e6:.1f} MB in {to}")
    if format_ == "onnx":
        print(f"load it: onnxruntime.InferenceSession('{to}/model.onnx')")
        return 0
    load = {
        "classifier": f"AutoModelForAudioClassification.from_pretrained('{to}', trust_remote_code=True)",
        "backbone": f"HubertModel.from_pretrained('{to}')",
    }
    print(f"load it: transformers.{load[what]}")
    return 0
