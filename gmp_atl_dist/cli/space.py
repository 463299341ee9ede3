"""Commands about the room that a root takes: gc, du."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gmp_atl_dist.cli.damage import JsonOption, RootConfigOption, RootOption, chosen_root
from gmp_atl_dist.cli.options import SetOption, load_experiment
from gmp_atl_dist.cli.tables import print_table
from gmp_atl_dist.cli.words import how_long, size
from gmp_atl_dist.console import Reporter
from gmp_atl_dist.tags import Tags

if TYPE_CHECKING:
    from gmp_atl_dist.config import RunConfig
    from gmp_atl_dist.runs.unreached import Collection, Unreached

_HEADINGS = ("kind", "artefact", "state", "size", "objects", "age", "reached by")
_USAGE_HEADINGS = ("below", "stage", "folders", "unsealed", "objects", "size")
_UNITS_S = {"h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_AGE = re.compile(r"(\d+)([hdw])")


def _age(text: str | float) -> float:
    """``30d``, ``12h`` or ``2w`` in seconds."""
    found = _AGE.fullmatch(str(text))
    if found is None:
        raise typer.BadParameter(f"{text!r} is no age; write 12h, 30d or 2w")
    return int(found[1]) * _UNITS_S[found[2]]


def gc(
    config: Annotated[
        list[Path] | None,
        typer.Option(
            "--config",
            "-c",
            help="keep what this configuration or sweep reaches; a TOML file or a shipped name; repeatable",
        ),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(help="keep a run, an artefact (its fingerprint) or a report.json; repeatable"),
    ] = None,
    root: RootOption = None,
    older_than: Annotated[
        float | None,
        typer.Option(parser=_age, metavar="AGE", help="only what has not changed for so long: 30d"),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="delete it; without it, only show it")] = False,
    as_json: JsonOption = False,
) -> int:
    """Show what no given configuration and no kept run reaches; --yes deletes it."""
    from gmp_atl_dist.errors import ConfigError
    from gmp_atl_dist.runs.unreached import collect, plan_collection
    from gmp_atl_dist.store.layout import open_root

    configs = dict(_loaded(config or (), root))
    roots = {c.runtime.root for c in configs.values()} if root is None else {root}
    if len(roots) != 1:
        raise ConfigError("the root is not clear: give --root, or configurations of one root")
    store = open_root(roots.pop())
    plan = plan_collection(store, configs, keep or (), older_than_s=older_than or 0.0)
    if not as_json:
        _show(plan)
    if yes and plan.unreached:
        if as_json:
            collect(store, plan, lambda *_: None)
        else:
            with Reporter().bar(Tags(stage="gc")) as bar:
                collect(store, plan, bar.update)
    if as_json:
        print(json.dumps(_as_json(plan, deleted=yes)))
    elif yes:
        print(f"deleted {len(plan.unreached)} folders, {size(_bytes(plan.unreached))}")
    elif plan.unreached:
        print("nothing was deleted; --yes deletes it")
    return 0


def _loaded(files: Sequence[Path], root: str | None) -> Iterator[tuple[str, RunConfig]]:
    """Each configuration by its file; of a sweep, one for each arm and seed."""
    from gmp_atl_dist.config.sweep import is_sweep, load_sweep

    for file in files:
        if is_sweep(file):
            for run in load_sweep(file, root=root).runs:
                yield f"{file} ({run.label})", run.config
        else:
            yield str(file), load_experiment(file, None, root)


def _show(plan: Collection) -> None:
    now_s = time.time()
    rows = [
        (
            item.key.kind,
            item.key.fingerprint[:12],
            "sealed" if item.is_sealed else "unsealed",
            size(item.num_bytes),
            str(item.num_objects),
            how_long(max(0.0, now_s - item.changed_s)),
            ", ".join(item.runs),
        )
        for item in plan.unreached
    ]
    if rows:
        print_table(_HEADINGS, rows)
    print(
        f"not reached: {len(rows)} folders, {size(_bytes(plan.unreached))}; reached: {plan.num_kept}"
    )
    for number, why in (
        (plan.num_young, "are too young, are being written, or are inputs of such"),
        (plan.num_imported, "were imported or made from imported ones: no run can make them again"),
    ):
        if number:
            print(f"kept, though not reached: {number} {why}")
    for user in sorted(set(plan.in_use.values())):
        number = sum(name == user for name in plan.in_use.values())
        print(f"kept, though not reached: {number} that {user} uses, which works now")


def _bytes(items: Sequence[Unreached]) -> int:
    return sum(item.num_bytes for item in items)


def _as_json(plan: Collection, *, deleted: bool) -> dict[str, object]:
    return {
        "deleted": deleted,
        "bytes": _bytes(plan.unreached),
        "unreached": [
            {
                "kind": item.key.kind,
                "fingerprint": item.key.fingerprint,
                "sealed": item.is_sealed,
                "bytes": item.num_bytes,
                "objects": item.num_objects,
                "changed_s": item.changed_s,
                "runs": list(item.runs),
            }
            for item in plan.unreached
        ],
        "reached": plan.num_kept,
        "young": plan.num_young,
        "imported": plan.num_imported,
        "in_use": {f"{key.kind}/{key.fingerprint}": user for key, user in plan.in_use.items()},
    }


def du(
    config: RootConfigOption = None,
    set_: SetOption = None,
    root: RootOption = None,
    as_json: JsonOption = False,
) -> int:
    """Show how much room a root takes, by kind and stage."""
    from gmp_atl_dist.runs.usage import usage_of

    store = chosen_root(config, set_, root, "measure")
    found = usage_of(store)
    total = sum(usage.num_bytes for usage in found.values())
    if as_json:
        rows = [
            {
                "below": below,
                "stage": stage,
                "folders": len(usage.folders),
                "unsealed": usage.unsealed,
                "objects": usage.num_objects,
                "bytes": usage.num_bytes,
            }
            for (below, stage), usage in found.items()
        ]
        print(json.dumps({"root": store.uri, "bytes": total, "rows": rows}))
        return 0
    print_table(
        _USAGE_HEADINGS,
        [
            (
                *(below, stage, str(len(usage.folders)), str(usage.unsealed or "")),
                *(str(usage.num_objects), size(usage.num_bytes)),
            )
            for (below, stage), usage in found.items()
        ],
    )
    print(f"{store.uri}: {size(total)}")
    return 0
