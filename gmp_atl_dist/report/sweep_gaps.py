"""Cells of a sweep without a result: which they are, and what is said of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from gmp_atl_dist.report.sweep_content import MissingContent
from gmp_atl_dist.report.sweep_input import ArmReports, MissingCell, SeedReports

_NOT_RUN = "no result"


def with_seeds(arm: ArmReports, missing: Sequence[str]) -> ArmReports:
    """``arm`` with its seeds that have no report yet."""
    known = {seed.seed for seed in arm.seeds}
    more = [SeedReports(seed, ()) for seed in dict.fromkeys(missing) if seed not in known]
    return ArmReports(arm.name, arm.title, (*arm.seeds, *more))


def folds_of(arms: Sequence[ArmReports]) -> tuple[str, ...]:
    """Every fold that some report has, in the order of the reports."""
    names = [fold.name for arm in arms for seed in arm.seeds for fold, _ in seed.folds()]
    return tuple(dict.fromkeys(names))


def gaps_of(
    arms: Sequence[ArmReports], folds: Sequence[str], missing: Iterable[MissingCell]
) -> tuple[MissingContent, ...]:
    """Every cell without a result, in the order of arms, seeds and folds."""
    reasons = {(cell.arm, cell.seed, cell.fold): cell.reason for cell in missing}
    for arm in arms:
        for seed in arm.seeds:
            done = {fold.name for fold, _ in seed.folds()}
            for fold in folds:
                if fold in done:  # an earlier attempt may have failed
                    reasons.pop((arm.name, seed.seed, fold), None)
                else:
                    reasons.setdefault((arm.name, seed.seed, fold), _NOT_RUN)
    order = {arm.name: i for i, arm in enumerate(arms)}
    at = {fold: i for i, fold in enumerate(folds)}
    keys = sorted(reasons, key=lambda k: (order.get(k[0], len(order)), k[1], at.get(k[2], len(at))))
    return tuple(
        MissingContent(arm=arm, seed=seed, fold=fold, reason=reasons[arm, seed, fold])
        for arm, seed, fold in keys
    )


def about_gaps(
    arms: Sequence[ArmReports], complete: Mapping[str, Sequence[SeedReports]], baseline: str
) -> Iterator[str]:
    """What a reader must know of incomplete seeds. ``complete`` are the complete ones by arm."""
    for arm in arms:
        left_out = [seed.seed for seed in arm.seeds if seed not in complete[arm.name]]
        if not complete[arm.name]:
            yield f"{arm.name} has no seed with a result in every fold, so it has no figure."
        elif left_out:
            yield f"{arm.name}: no figure includes {_seeds(left_out)}: some folds have no result."
    if not complete.get(baseline):
        yield f"The baseline {baseline} has no complete seed, so no difference is shown."


def _seeds(seeds: Sequence[str]) -> str:
    return f"seed{'' if len(seeds) == 1 else 's'} {', '.join(seeds)}"
