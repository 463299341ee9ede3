"""The command ``gmp-atl model push``."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from gmp_atl_dist.cli.options import RootOption
from gmp_atl_dist.errors import ConfigError


def push(
    model: Annotated[
        str,
        typer.Argument(
            metavar="RUN_OR_FOLDER",
            help="name of a run below --root, or a folder that gmp-atl model export wrote",
        ),
    ],
    repo_id: Annotated[str, typer.Argument(help="repository of the hub: USER/NAME")],
    root: RootOption = None,
    fold: Annotated[
        int | None, typer.Option(min=1, help="fold of the run, from 1; needed if there are several")
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="only you and your organisation can see it")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="upload; without it nothing is sent")] = False,
) -> int:
    """Show what an upload to the Hugging Face hub would send; with --yes, send it."""
    from gmp_atl_dist.exchange.hub import check_repository, plan_push
    from gmp_atl_dist.exchange.hub import push as upload

    check_repository(repo_id)
    with _exported(model, root, fold) as folder:
        plan = plan_push(folder)
        visible = "private" if private else "public"
        print(f"{plan.title}\nto {repo_id} ({visible}), licence: {plan.license}")
        for name, size in plan.files:
            print(f"  {name:26} {size / 1e6:10.3f} MB")
        print(f"  {'all':26} {sum(size for _, size in plan.files) / 1e6:10.3f} MB")
        for warning in plan.warnings:
            print(f"warning: {warning}")
        if not yes:
            print("nothing was sent; --yes uploads it")
            return 0
        print(f"uploaded: {upload(plan, repo_id, private=private)}")
    return 0


@contextmanager
def _exported(model: str, root: str | None, fold: int | None) -> Iterator[Path]:
    """The folder ``model``, or a temporary one with the classifier of the run ``model``."""
    if Path(model).is_dir():
        if root is not None or fold is not None:
            raise ConfigError(f"{model} is a folder; --root and --fold go with the name of a run")
        yield Path(model)
        return
    from gmp_atl_dist.cli.chosen import choose_run
    from gmp_atl_dist.exchange.models import export_model
    from gmp_atl_dist.stage_survey import find_fold
    from gmp_atl_dist.store.filesystem import Store

    chosen = choose_run(model, None, None, root)
    experiment, source = chosen.config, Store.open(chosen.config.runtime.corpus)
    with tempfile.TemporaryDirectory(prefix="gmp-atl-") as folder:
        to = Path(folder) / "model"
        corpus, backbone, made = find_fold(experiment, chosen.store, source, fold, chosen.inputs())
        export_model(experiment, corpus, backbone, made, to, what="classifier", run=chosen.record)
        yield to
