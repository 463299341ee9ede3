"""Commands about damage below a root: verify, repair."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gmp_atl_dist.cli.options import SetOption, load_experiment
from gmp_atl_dist.console import Reporter
from gmp_atl_dist.tags import Tags

if TYPE_CHECKING:
    from gmp_atl_dist.runs.repair import Repair
    from gmp_atl_dist.store.faults import Fault, Findings
    from gmp_atl_dist.store.filesystem import Store
    from gmp_atl_dist.store.manifest import ArtifactKey

_DAMAGED = 4
_SHOWN_PLACES = 20
RootConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="TOML file that names the root")
]
RootOption = Annotated[
    str | None, typer.Option(help="folder or URI (s3://, gs://, az://) of all artefacts")
]
JsonOption = Annotated[bool, typer.Option("--json", help="for machines")]


def chosen_root(config: Path | None, set_: list[str] | None, root: str | None, verb: str) -> Store:
    """The store at ``--root``, or at the root of ``--config``.

    Raises:
        ConfigError: neither is given.
        ArtifactError: the root is no usable folder or URI, or of another layout.
    """
    from gmp_atl_dist.errors import ConfigError
    from gmp_atl_dist.store.layout import open_root

    if config is not None:
        root = load_experiment(config, set_, root).runtime.root
    if root is None:
        raise ConfigError(f"no root to {verb}; give --root or --config")
    return open_root(root)


def _findings(store: Store, command: str, *, quiet: bool = False) -> Findings:
    from gmp_atl_dist.errors import ArtifactError
    from gmp_atl_dist.store.faults import find_faults

    if quiet:
        findings = find_faults(store)
    else:
        with Reporter().bar(Tags(stage=command)) as bar:
            findings = find_faults(store, lambda done, total: bar.update(done, total))
    if not findings.num_artifacts:
        left = len(findings.of("unsealed"))
        also = f", and {left} unfinished ones, which have no manifest" if left else ""
        raise ArtifactError(
            f"there is no artefact below {store.uri}{also}, so there was nothing to {command}; check the "
            f"URI, and after a restore that the manifests (_manifest.json) have arrived"
        )
    return findings


def verify(config: RootConfigOption = None, set_: SetOption = None, root: RootOption = None) -> int:
    """Hash every artefact and checkpoint below the root again. Exit code 4 if one is damaged."""
    from gmp_atl_dist.errors import ArtifactError

    store = chosen_root(config, set_, root, "verify")
    findings = _findings(store, "verify")
    bad = [f for f in findings.of("damaged", "missing") if not f.needed_by]
    if bad:
        lines = [f"{store.uri}/{fault.place} is {fault.what}: {fault.detail}" for fault in bad]
        raise ArtifactError.of_all(
            f"{store.uri} is damaged; gmp-atl repair --root {store.uri} shows what was made from it:",
            lines,
        )
    what = f"{findings.num_artifacts} artefacts"
    if findings.num_checkpoints:
        what += f" and {findings.num_checkpoints} checkpoints of trainings"
    print(f"{what} below {store.uri} are intact")
    for fault in findings.of("missing"):
        names = ", ".join(_short(key) for key in fault.needed_by[:3])
        print(f"note: {fault.place} is not here, an input of {names}")
    for fault in findings.of("outdated"):
        print(f"note: {fault.place}: {fault.detail}")
    return 0


def repair(
    only: Annotated[
        list[str] | None,
        typer.Argument(help="repair these alone: how their fingerprints or paths begin"),
    ] = None,
    config: RootConfigOption = None,
    set_: SetOption = None,
    root: RootOption = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="set it aside; without it, only show it")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Show what is damaged, missing, outdated, orphaned or unsealed, with what was made from it."""
    from gmp_atl_dist.runs.repair import plan_repair, set_aside

    store = chosen_root(config, set_, root, "repair")
    findings = _findings(store, "repair", quiet=as_json)
    plan = plan_repair(store, findings, only or ())
    if not as_json:
        for line in _about(plan, store.uri):
            print(line)
    folder = set_aside(store, plan) if yes and not plan.is_empty else ""
    if as_json:
        print(json.dumps(_as_json(plan, folder)))
    elif folder:
        print(
            f"moved to {store.uri}/{folder}: give the command of the run again, which makes them again; "
            f"delete the folder when nothing in it is wanted"
        )
    elif not plan.is_empty:
        print("nothing was moved; --yes moves it")
    return 0 if folder or plan.is_empty else _DAMAGED


def _short(key: ArtifactKey) -> str:
    return f"{key.kind} {key.fingerprint[:12]}"


def _about(plan: Repair, root: str) -> Iterator[str]:
    for what in ("damaged", "missing", "outdated", "orphaned", "unsealed"):
        yield from _shown([fault for fault in plan.faults if fault.what == what])
    for key in plan.faulty:
        yield f"set aside {_short(key)}"
    for key, why in plan.dependants.items():
        yield f"set aside {_short(key)}: made from {why}"
    for place in plan.places[:_SHOWN_PLACES]:
        yield f"set aside {place}"
    if len(plan.places) > _SHOWN_PLACES:
        yield f"set aside {len(plan.places) - _SHOWN_PLACES} more objects"
    for user, what in sorted(plan.held.items()):
        yield f"{user} works now and uses {what}: stop it first"
    if not plan.faults:
        yield f"nothing is wrong below {root}"
    elif plan.is_empty:
        yield f"nothing below {root} is to be set aside"


def _shown(faults: Sequence[Fault]) -> Iterator[str]:
    for fault in faults[:_SHOWN_PLACES]:
        needed = ", ".join(_short(key) for key in fault.needed_by)
        tail = f"; {needed} were made from it" if needed else ""
        if fault.what == "unsealed":
            tail = "; a run continues it"
        yield f"{fault.what}: {fault.place}: {fault.detail}{tail}"
    if len(faults) > _SHOWN_PLACES:
        yield f"{faults[0].what}: {len(faults) - _SHOWN_PLACES} more"


def _as_json(plan: Repair, folder: str) -> dict[str, object]:
    def name(key: ArtifactKey) -> str:
        return f"{key.kind}/{key.fingerprint}"

    return {
        "faults": [
            {
                "what": fault.what,
                "place": fault.place,
                "detail": fault.detail,
                "artifact": None if fault.key is None else name(fault.key),
                "needed_by": [name(key) for key in fault.needed_by],
            }
            for fault in plan.faults
        ],
        "artifacts": [name(key) for key in plan.faulty],
        "dependants": {name(key): why for key, why in plan.dependants.items()},
        "places": list(plan.places),
        "held": plan.held,
        "quarantine": folder,
    }
