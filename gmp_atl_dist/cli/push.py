"""The command ``gmp-atl model push``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def push(
    folder: Annotated[Path, typer.Argument(help="folder that gmp-atl model export wrote")],
    repo_id: Annotated[str, typer.Argument(help="repository of the hub: USER/NAME")],
    private: Annotated[
        bool, typer.Option("--private", help="only you and your organisation can see it")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="upload; without it nothing is sent")] = False,
) -> int:
    """Show what an upload to the Hugging Face hub would send; with --yes, send it."""
    from gmp_atl_dist.exchange.hub import check_repository, plan_push
    from gmp_atl_dist.exchange.hub import push as upload

    check_repository(repo_id)
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
