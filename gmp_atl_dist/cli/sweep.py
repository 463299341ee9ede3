"""``gmp-atl sweep``: arms x folds x seeds by one command."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from gmp_atl_dist.cli.options import RootOption, SetOption
from gmp_atl_dist.cli.run import run_context
from gmp_atl_dist.cli.words import costs, device_hours, how_long
from gmp_atl_dist.report.sweep_cost import price_of

if TYPE_CHECKING:
    from gmp_atl_dist.config.sweep import Sweep
    from gmp_atl_dist.scheduling.room import Offers
    from gmp_atl_dist.store.artifact import Artifact
    from gmp_atl_dist.sweeps.planning import SweepPlan
    from gmp_atl_dist.sweeps.record import SweepRecord

SweepOption = Annotated[
    str,
    typer.Option("--config", "-c", help="TOML file of a sweep, or a shipped one: sweeps/emodb"),
]
_ASK_S = 30.0


def sweep(
    config: SweepOption,
    set_: SetOption = None,
    root: RootOption = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="say what would run, on what and for how long; run nothing"),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="with --dry-run: for machines")] = False,
) -> int:
    """Run every arm, fold and seed of a sweep that is not done yet. Exit code 9 if some cells failed."""
    from gmp_atl_dist.config.sweep import load_sweep
    from gmp_atl_dist.errors import ConfigError

    loaded = load_sweep(config, set_ or (), root)
    if as_json and not dry_run:
        raise ConfigError(
            "--json goes with --dry-run; gmp-atl status --json shows a sweep that runs"
        )
    if dry_run:
        return _show_plan(loaded, as_json)
    from gmp_atl_dist.sweeps.running import run_sweep

    runtime = loaded.config.runtime.model_copy(update={"run_name": loaded.name})
    with run_context(loaded.config.model_copy(update={"runtime": runtime})) as context:
        record = run_sweep(loaded, context)
        for line in _ending(record, context.store.uri):
            context.reporter.line(line)
    return 0


def _ending(record: SweepRecord, root: str) -> list[str]:
    lines = [
        f"{report.arm} seed {report.seed}: {_scores(report.scores)}" for report in record.reports
    ]
    place = root.removeprefix("file://")
    return [*lines, f"next:\n  gmp-atl status {record.name} --root {place}"]


def _scores(scores: dict[str, float]) -> str:
    return ", ".join(f"{name.upper()} {100 * value:.1f} %" for name, value in scores.items())


def _show_plan(loaded: Sweep, as_json: bool) -> int:
    from gmp_atl_dist.console import Reporter
    from gmp_atl_dist.execution import open_context
    from gmp_atl_dist.scheduling.walks import MethodRun
    from gmp_atl_dist.store.layout import check_layout
    from gmp_atl_dist.sweeps.planning import look_up_shared, plan_stages
    from gmp_atl_dist.sweeps.tested import check_listed_test_sets

    with open_context(loaded.config, Reporter()) as context:
        check_layout(context.store)
        folds = check_listed_test_sets(loaded, context.source)
        runs: list[MethodRun] = []
        known: dict[str, Artifact] = {}
        for one in loaded.runs:
            run = MethodRun(one.config, context, name=one.label)
            look_up_shared(run, folds, known)
            runs.append(run)
        plan = plan_stages(runs)
    offers, more, place = _offers(loaded, plan)
    cells = sum(len(run.folds) for run in runs)
    if as_json:
        print(json.dumps(_as_json(loaded, plan, cells, offers, more)))
        return 0
    for line in _wording(loaded, plan, cells, offers, more, place):
        print(line)
    return 0


def _offers(loaded: Sweep, plan: SweepPlan) -> tuple[Offers | None, Offers | None, str]:
    """What the nodes offer that a sweep would use, that with all that an autoscaler may add, and in words.

    The first is None where the cluster does not answer, the second where it has no autoscaler.
    """
    from gmp_atl_dist.ray_api.facts import Unanswered, ask_cluster, configured_address
    from gmp_atl_dist.scheduling.room import offer_of, with_autoscaler

    address = configured_address(loaded.config.runtime)
    facts = ask_cluster(address, _ASK_S)
    if isinstance(facts, Unanswered):
        return None, None, f"{address or 'this machine'}: {facts.said}"
    offers = [offer_of(node) for node in facts.nodes]
    more = with_autoscaler(facts, plan.most_workers) if facts.groups else None
    cpus, gpus = sum(n.cpus for n in facts.nodes), sum(n.gpus for n in facts.nodes)
    nodes = "1 node" if len(offers) == 1 else f"{len(offers)} nodes"
    return offers, more, f"{address or 'this machine'}: {nodes}, {cpus:g} cores, {gpus:g} GPUs"


def _wording(
    loaded: Sweep,
    plan: SweepPlan,
    cells: int,
    offers: Offers | None,
    more: Offers | None,
    place: str,
) -> list[str]:
    to_run, seeds = (
        plan.to_run,
        "1 seed" if len(loaded.seeds) == 1 else f"{len(loaded.seeds)} seeds",
    )
    lines = [
        f"sweep {loaded.name}: {len(loaded.arms)} arms x {cells // max(1, len(loaded.runs))} folds x "
        f"{seeds} = {cells} cells",
        f"{len(plan.stages)} unique stages; the arms, folds and seeds alone would run {plan.asked}",
        f"{len(plan.stages) - len(to_run)} are there already, {len(to_run)} to run",
    ]
    kinds: dict[str, int] = {}
    for stage in to_run:
        name = stage.label.partition(" ")[0]
        kinds[name] = kinds.get(name, 0) + 1
    if kinds:
        lines.append("  " + ", ".join(f"{count} x {name}" for name, count in kinds.items()))
    lines.append(f"on {place}")
    demands = {d.section: f"{d}" for stage in to_run for d in stage.demands}
    lines += [f"  {section}: {text}" for section, text in demands.items()]
    if to_run:
        lines += _duration(loaded, plan, offers, more)
    return lines


def _duration(
    loaded: Sweep, plan: SweepPlan, offers: Offers | None, more: Offers | None
) -> list[str]:
    unknown = plan.unknown
    if len(unknown) == len({s.label.partition(" ")[0] for s in plan.to_run}):
        return ["no estimate: no stage like these was measured below this root"]
    hours = plan.hours()
    settings = loaded.config.runtime.price
    price = costs(price_of(hours, settings.per_hour), settings.currency)
    least = "at least " if unknown else "about "
    lines = [
        f"{least}{how_long(plan.wall_s(offers))}; {device_hours(hours)}{price}, "
        f"by what stages took before below this root"
    ]
    if more is not None:
        lines.append(
            f"  {least}{how_long(plan.wall_s(more))} with all nodes that the autoscaler may add; how "
            f"long a node takes to start is not known"
        )
    if unknown:
        lines.append(f"  no measured rate for {', '.join(unknown)}")
    return lines


def _as_json(
    loaded: Sweep, plan: SweepPlan, cells: int, offers: Offers | None, more: Offers | None
) -> dict[str, object]:
    hours, settings = plan.hours(), loaded.config.runtime.price
    return {
        "sweep": loaded.name,
        "cells": cells,
        "asked": plan.asked,
        "unique": len(plan.stages),
        "to_run": [
            {
                "label": s.label,
                "run": s.first,
                "fingerprint": s.key.fingerprint,
                "seconds": s.seconds,
            }
            for s in plan.to_run
        ],
        "unknown": plan.unknown,
        "wall_s": plan.wall_s(offers),
        "wall_s_autoscaled": None if more is None else plan.wall_s(more),
        "core_hours": hours["CPU"],
        "gpu_hours": hours["GPU"],
        "price": price_of(hours, settings.per_hour),
        "currency": settings.currency,
    }
