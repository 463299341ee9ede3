"""The commands ``gmp-atl runs ...``: list runs, show one, remove one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from gmp_atl_dist.cli.tables import print_table
from gmp_atl_dist.cli.words import how_long, score, size, when

if TYPE_CHECKING:
    from gmp_atl_dist.runs.removal import Removal
    from gmp_atl_dist.store.runs import Attempt, RunRecord

app = typer.Typer(help="Runs below a root: list them with their scores, show one, remove one.")

_RUN_HEADINGS = (
    *("name", "state", "started", "took", "stages done"),
    *("UAR", "chance", "WAR", "corpus"),
)
_STAGE_HEADINGS = (
    "stage",
    "state",
    "started",
    "took",
    "audio",
    "updates",
    "most memory",
    "artefact",
)
RootOption = Annotated[
    str | None, typer.Option(help="folder or URI (s3://, gs://, az://) of all artefacts")
]
NameArgument = Annotated[str, typer.Argument(help="name of the run")]
JsonOption = Annotated[bool, typer.Option("--json", help="for machines")]


@app.callback(invoke_without_command=True)
def list_(context: typer.Context, root: RootOption = None, as_json: JsonOption = False) -> int:
    """List the runs below a root: name, state, start, duration, stages done, scores with chance."""
    from gmp_atl_dist.runs.names import read_runs, started_s
    from gmp_atl_dist.store.layout import open_root
    from gmp_atl_dist.store.run_state import duration_s, run_state, stage_state

    if context.invoked_subcommand is not None:
        context.obj = root
        return 0
    store = open_root(_root(root))
    records = sorted(read_runs(store), key=started_s, reverse=True)
    if as_json:
        print(json.dumps([_as_json(record) for record in records]))
        return 0
    if not records:
        from gmp_atl_dist.errors import ArtifactError
        from gmp_atl_dist.runs.names import known_runs
        from gmp_atl_dist.store.layout import read_layout

        if read_layout(store) is None:
            raise ArtifactError(f"{store.uri} is empty or does not exist; give --root of a run")

        print(f"{store.uri}: {known_runs(store)}")
        return 0
    rows: list[tuple[str, ...]] = []
    for record in records:
        done = sum(stage_state(record, stage) == "done" for stage in record.stages)
        rows.append(
            (
                record.name,
                run_state(record),
                when(started_s(record)),
                how_long(duration_s(record)),
                f"{done} of {len(record.stages)} reached",
                score(record.scores.get("uar")),
                "" if record.chance is None else f"{100 * record.chance:.1f} %",
                score(record.scores.get("war"), interval=False),
                record.corpus_name,
            )
        )
    print_table(_RUN_HEADINGS, rows)
    return 0


@app.command("show")
def show(
    context: typer.Context, name: NameArgument, root: RootOption = None, as_json: JsonOption = False
) -> int:
    """Show all that is recorded of a run: attempts, machine, stages, scores."""
    from gmp_atl_dist.runs.names import get_run
    from gmp_atl_dist.store.layout import open_root

    store = open_root(_root(context.obj if root is None else root))
    record = get_run(store, name)
    if as_json:
        print(json.dumps(_as_json(record)))
        return 0
    console = Console(soft_wrap=True, highlight=False)
    for line in _facts(record, store.uri):
        console.print(line, markup=False)
    for number, attempt in enumerate(record.attempts, 1):
        for line in _about_attempt(number, attempt):
            console.print(line, markup=False)
    print_table(_STAGE_HEADINGS, list(_stages(record)))
    return 0


@app.command("rm")
def rm(
    context: typer.Context,
    name: NameArgument,
    root: RootOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would be deleted")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    as_json: JsonOption = False,
) -> int:
    """Delete a run's record, and its artefacts, checkpoints and logs that no other run uses."""
    from gmp_atl_dist.runs.removal import plan_removal, remove
    from gmp_atl_dist.store.layout import open_root

    store = open_root(_root(context.obj if root is None else root))
    removal = plan_removal(store, name)
    if not as_json:
        for line in _about_removal(removal, store.uri):
            print(line)
    if not dry_run and not yes and not _confirmed():
        print("nothing was deleted; --yes deletes without asking")
        return 0
    if not dry_run:
        remove(store, removal)
    if as_json:
        keys = {"deleted": removal.artifacts, "kept": removal.kept}
        listed = {
            what: [f"{k.kind}/{k.fingerprint}" for k in those] for what, those in keys.items()
        }
        counts = {"bytes": removal.num_bytes, "objects": removal.num_objects, "dry_run": dry_run}
        print(json.dumps({"run": name, **counts, **listed}))
    elif not dry_run:
        print(f"run {name} is deleted: {removal.num_objects} objects, {size(removal.num_bytes)}")
    return 0


def _confirmed() -> bool:
    """Whether a person says yes; no where nobody can answer."""
    try:
        return typer.confirm("delete them?")
    except typer.Abort:
        print()
        return False


def _root(root: str | None) -> str:
    from gmp_atl_dist.config import RuntimeConfig

    return RuntimeConfig().root if root is None else root


def _as_json(record: RunRecord) -> dict[str, object]:
    from gmp_atl_dist.store.run_state import duration_s, run_state

    seen = {"run_state": run_state(record), "duration_s": duration_s(record)}
    return {**record.model_dump(mode="json"), **seen}


def _facts(record: RunRecord, root: str) -> Iterator[str]:
    from gmp_atl_dist.store.run_state import duration_s, run_state
    from gmp_atl_dist.store.runs import PAGE_NAME, RUNS

    state = run_state(record)
    yield f"run {record.name}: {state}, wall time {how_long(duration_s(record))}"
    yield f"corpus: {record.corpus_name}"
    yield f"configuration: {record.config_name}, science {record.fingerprint[:12]}"
    for name in ("uar", "war"):
        found = record.scores.get(name)
        if found is not None:
            chance = "" if name != "uar" or record.chance is None else _chance(record.chance)
            confidence = f"{100 * found.confidence:g} % interval"
            yield f"{name.upper()}: {score(found)}, {confidence}{chance}"
    yield from record.verdict
    if record.report:
        yield f"report: {root}/{RUNS}/{record.name}/{PAGE_NAME}"


def _chance(chance: float) -> str:
    return f"; chance is {100 * chance:.1f} %"


def _about_attempt(number: int, attempt: Attempt) -> Iterator[str]:
    from gmp_atl_dist.store.run_state import attempt_state

    machine = attempt.machine
    ended_s = attempt.seen_s if attempt.ended_s is None else attempt.ended_s
    yield (
        f"attempt {number}: {attempt_state(attempt)}, {when(attempt.started_s)} to {when(ended_s)}, "
        f"{how_long(ended_s - attempt.started_s)}"
    )
    if attempt.message:
        yield f"  {attempt.message.partition(chr(10))[0]}"
    yield f"  command: {' '.join(attempt.command)}"
    yield (
        f"  machine: {machine.host}, {machine.system}, {machine.cpus} cores of {machine.cpu}, "
        f"{size(machine.memory_bytes)}"
    )
    for what, value in (
        ("GPUs", ", ".join(machine.gpus)),
        ("Ray", machine.ray_address),
        ("job", attempt.job),
        ("cluster", attempt.cluster),
        ("commit", attempt.git_commit),
        ("versions", ", ".join(f"{name} {v}" for name, v in attempt.versions.items())),
        ("log", attempt.log),
    ):
        if value:
            yield f"  {what}: {value}"


def _stages(record: RunRecord) -> Iterator[tuple[str, ...]]:
    from gmp_atl_dist.store.run_state import stage_state

    for stage in record.stages:
        state = stage_state(record, stage)
        yield (
            stage.label,
            "found" if stage.state == "found" else state,
            when(stage.started_s),
            # A stage that was done before took no time here, and 0.0 s is no measured duration.
            how_long(stage.total_s or None if stage.state == "found" else stage.total_s),
            f"{stage.audio_s / 3600:.3g} h" if stage.audio_s else "",
            str(stage.updates or ""),
            size(stage.peak_memory_bytes),
            stage.fingerprint[:12],
        )


def _about_removal(removal: Removal, root: str) -> Iterator[str]:
    for key in removal.artifacts:
        yield f"delete {key.kind} {key.fingerprint[:12]}"
    for key in removal.kept:
        yield f"keep {key.kind} {key.fingerprint[:12]}: others use it"
    yield (
        f"delete the record, checkpoints and logs of run {removal.name} below {root}: with the artefacts "
        f"{removal.num_objects} objects, {size(removal.num_bytes)}"
    )
