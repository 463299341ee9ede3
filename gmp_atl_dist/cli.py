"""The command line, thin: parse, load the configuration, call, print.

Heavy libraries are imported by the command that needs them, so that ``config check`` answers at once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from gmp_atl_dist import __version__, cli_codebooks, cli_doctor, cli_models, cli_submit
from gmp_atl_dist.cli_options import ConfigOption, RootOption, SetOption, load_experiment
from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.console import Reporter
from gmp_atl_dist.errors import GmpAtlError
from gmp_atl_dist.shipped import shipped_configs, summary_of

if TYPE_CHECKING:
    from gmp_atl_dist.stages.base import Context

app = typer.Typer(
    help="Train speech-emotion recognisers by GMP-ATL on a cluster or a laptop.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
corpora_app = typer.Typer(help="Corpora: list the adapters, check one, write a synthetic one.")
config_app = typer.Typer(help="Configurations: list the shipped ones, check one, print the schema.")
features_app = typer.Typer(help="Features and labels: to and from fairseq's .npy, .len, .km, .tsv.")
app.add_typer(corpora_app, name="corpora")
app.add_typer(config_app, name="config")
app.add_typer(features_app, name="features")
app.add_typer(cli_codebooks.app, name="codebook")
app.add_typer(cli_models.app, name="model")
app.command()(cli_doctor.doctor)
app.command()(cli_submit.submit)

_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 0 if it succeeded. Errors of the user's print as text, not as a traceback."""
    try:
        result = app(args=None if argv is None else list(argv), standalone_mode=False)
        code = result if isinstance(result, int) else 0
    except GmpAtlError as e:
        print(f"error: {e}", file=sys.stderr)
        return e.exit_code
    except typer.Exit as e:
        code = e.exit_code
    except typer.Abort:
        code = _INTERRUPTED
    except Exception as e:
        message = getattr(e, "format_message", None)  # click's errors, wherever typer keeps them
        if message is None:
            raise
        print(f"error: {message()}; see --help", file=sys.stderr)
        return 2
    # typer makes this code of a Ctrl-C, and says nothing.
    if code == _INTERRUPTED:
        print("interrupted; what was finished stays finished, run again to go on", file=sys.stderr)
    return code


@contextmanager
def _context(config: RunConfig) -> Iterator[Context]:
    from gmp_atl_dist.runtime import Cluster
    from gmp_atl_dist.stages.base import Context
    from gmp_atl_dist.store.filesystem import Store

    settings = config.runtime
    reporter = Reporter(log_format=settings.log_format, run=settings.run_name)
    try:
        with Cluster(settings) as cluster:
            source = Store.open(settings.corpus)
            yield Context(Store.open(settings.root), source, settings, reporter, cluster)
    except GmpAtlError as e:
        reporter.error(str(e))
        raise typer.Exit(e.exit_code) from e


@app.command()
def run(config: ConfigOption, set_: SetOption = None, root: RootOption = None) -> int:
    """Run every stage that was not run yet, up to the report."""
    from gmp_atl_dist.pipeline import run_pipeline
    from gmp_atl_dist.stages.report import HTML_NAME, JSON_NAME

    experiment = load_experiment(config, set_, root)
    with _context(experiment) as context:
        report = run_pipeline(experiment, context)
    pooled = json.loads(report.read_file(JSON_NAME))["pooled"]["outcome"]
    scores, intervals = pooled["scores"], pooled["intervals"]
    for name in ("war", "uar"):
        low, high = intervals[name]
        context.reporter.line(
            f"{name.upper()} {100 * scores[name]:.1f} % "
            f"({100 * intervals['confidence']:g} % interval {100 * low:.1f} to {100 * high:.1f})"
        )
    context.reporter.line(f"report: {context.store.uri}/{report.key.prefix}/files/{HTML_NAME}")
    return 0


@app.command()
def stage(
    name: Annotated[str, typer.Argument(help="ingest, backbone, warmup, extract, ...")],
    config: ConfigOption,
    set_: SetOption = None,
    root: RootOption = None,
) -> int:
    """Run one stage for every fold; the stages before it must be done."""
    from gmp_atl_dist.pipeline import run_stage

    experiment = load_experiment(config, set_, root)
    with _context(experiment) as context:
        run_stage(experiment, context, name)
    return 0


@app.command()
def status(config: ConfigOption, set_: SetOption = None, root: RootOption = None) -> int:
    """Show where every stage stands. Runs nothing."""
    from gmp_atl_dist.pipeline import survey

    experiment = load_experiment(config, set_, root)
    with _context(experiment) as context:
        rows = survey(experiment, context)
    table = Table("stage", "state", "artefact", "detail")
    for row in rows:
        table.add_row(row.label, row.state, row.fingerprint[:12], row.detail)
    Console().print(table)
    return 0


@app.command()
def verify(
    config: Annotated[Path | None, typer.Option("--config", "-c", help="for its root")] = None,
    set_: SetOption = None,
    root: RootOption = None,
) -> int:
    """Re-hash every object of every artefact below the root; 4 if one is damaged."""
    from gmp_atl_dist.errors import ArtifactError, ConfigError
    from gmp_atl_dist.store.artifact import find_artifact, list_artifacts
    from gmp_atl_dist.store.filesystem import Store

    if config is not None:
        root = load_experiment(config, set_, root).runtime.root
    if root is None:
        raise ConfigError("nothing to verify; give --root or --config")
    store, reporter = Store.open(root), Reporter()
    problems: list[str] = []
    keys = list_artifacts(store)
    with reporter.bar("verify") as bar:
        for number, key in enumerate(keys):
            artifact = find_artifact(store, key)
            problems += artifact.verify() if artifact is not None else []
            bar.update(number + 1, len(keys))
    if problems:
        raise ArtifactError.of_all(f"{store.uri} is damaged:", problems)
    reporter.line(f"{len(keys)} artefacts below {store.uri} are whole")
    return 0


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="folder or URI of a fine-tuned model")],
    wavs: Annotated[list[Path], typer.Argument(help="recordings in any common format")],
) -> int:
    """Print the probability of every emotion for each recording."""
    from gmp_atl_dist.predict import predict_files

    for path, probabilities in predict_files(model, wavs):
        words = "  ".join(f"{emotion} {p:.3f}" for emotion, p in probabilities.items())
        print(f"{path}: {words}")
    return 0


@corpora_app.command("list")
def corpora_list() -> int:
    """Name the corpus adapters that are installed."""
    from gmp_atl_dist.corpora.base import adapter_names

    print("\n".join(adapter_names()))
    return 0


@corpora_app.command("check")
def corpora_check(config: ConfigOption, set_: SetOption = None) -> int:
    """List a corpus and its folds without reading audio; every bad item at once."""
    from gmp_atl_dist.corpora.base import read_corpus
    from gmp_atl_dist.store.filesystem import Store

    experiment = load_experiment(config, set_, None)
    listing = read_corpus(experiment.corpus, Store.open(experiment.runtime.corpus))
    table = Table("emotion", "female", "male", "speakers")
    for emotion in listing.emotions:
        mine = [u for u in listing.utterances if u.emotion == emotion]
        table.add_row(
            emotion,
            *(str(sum(u.gender == g for u in mine)) for g in ("female", "male")),
            str(len({u.speaker for u in mine})),
        )
    Console().print(table)
    for problem in listing.problems:
        print(f"dropped: {problem}")
    speakers = {u.speaker for u in listing.utterances}
    print(f"{len(listing.utterances)} utterances of {len(speakers)} speakers")
    return 0


@corpora_app.command("synth")
def corpora_synth(
    out: Annotated[Path, typer.Option(help="folder to write; new, or written by this command")],
    seed: int = 0,
    utterances: Annotated[int, typer.Option(help="per speaker and emotion")] = 6,
) -> int:
    """Write a small licence-free corpus in IEMOCAP's own tree."""
    from gmp_atl_dist.corpora.synth import write_synthetic_corpus

    count = write_synthetic_corpus(out, seed=seed, utterances_per_speaker_and_emotion=utterances)
    print(f"{count} utterances in {out}")
    return 0


@config_app.command("list")
def config_list() -> int:
    """List the shipped configurations; --config takes their names."""
    files = shipped_configs()
    width = max(map(len, files), default=0)
    for name, path in files.items():
        print(f"{name:{width}}  {summary_of(path)}")
    return 0


@config_app.command("check")
def config_check(config: ConfigOption, set_: SetOption = None) -> int:
    """Check a configuration and print all of it, defaults included, as JSON."""
    print(load_experiment(config, set_, None).model_dump_json(indent=2))
    return 0


@config_app.command("schema")
def config_schema() -> int:
    """Print the JSON schema of a configuration."""
    print(json.dumps(RunConfig.model_json_schema(), indent=2))
    return 0


@features_app.command("export")
def features_export(
    fingerprint: Annotated[str, typer.Argument(help="of extract, or how it begins")],
    layer: Annotated[int, typer.Option(min=0)],
    out: Annotated[Path, typer.Option(help="folder to write to")],
    root: Annotated[str, typer.Option(help="folder or s3:// URI of all artefacts")],
    name: Annotated[str, typer.Option(help="{split}_{rank}_{nshard}")] = "train_0_1",
    labels: Annotated[str | None, typer.Option(help="fingerprint of label, for a .km")] = None,
    scale: Annotated[int, typer.Option(min=0, help="of the labels")] = 0,
) -> int:
    """Write a layer's features, and labels if asked to, as fairseq does."""
    from gmp_atl_dist.exchange.exporting import export_features, export_labels
    from gmp_atl_dist.store.artifact import artifact_of
    from gmp_atl_dist.store.filesystem import Store

    store = Store.open(root)
    features = artifact_of(store, "extract", fingerprint)
    pseudo_labels = None if labels is None else artifact_of(store, "label", labels)
    listing = export_features(features, layer, out, name)
    frames = sum(count for _, count in listing)
    print(
        f"extract {features.key.fingerprint}: {len(listing)} utterances, {frames} frames of layer "
        f"{layer} in {out / name}.npy"
    )
    if pseudo_labels is not None:
        export_labels(pseudo_labels, scale, out, name, listing)
        print(f"label {pseudo_labels.key.fingerprint}: scale {scale} in {out / name}.km")
    return 0


@features_app.command("import")
def features_import(
    npy: Annotated[Path, typer.Argument(help="features of all utterances")],
    layer: Annotated[int, typer.Option(min=0, help="that they are of")],
    root: Annotated[str, typer.Option(help="folder or s3:// URI of all artefacts")],
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
    from gmp_atl_dist.store.filesystem import Store

    imported = import_features(Store.open(root), FairseqFiles.beside(npy, lengths, tsv, km), layer)
    receipts = imported.features.manifest.receipts
    print(
        f"extract {imported.features.key.fingerprint}: {sum(r.rows for r in receipts)} utterances, "
        f"{sum(r.frames for r in receipts)} frames of layer {layer}"
    )
    if imported.labels is not None:
        print(f"label {imported.labels.key.fingerprint}: scale 0")
    return 0


@app.command()
def version() -> int:
    """Print the version."""
    print(__version__)
    return 0


if __name__ == "__main__":
    sys.exit(main())
