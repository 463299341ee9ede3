"""What is known of a sweep: ``sweeps/NAME/sweep.json`` below its root, a :class:`SweepRecord`.

The object is put as a whole at each change of a state, and every 15 s while the sweep works. Like the record
of a run it is a description: no stage reads it, and a lost one loses no result.

Schema, as JSON (fields that a later release adds are ignored by an older one)::

    name, file           the sweep's name, and the file as it was given
    fingerprint          digest of the science of all runs
    arms, seeds          in the order of the file
    folds                names of the folds: "fold1", "fold2", ...
    attempts             as in run.json: start, last sign of life, end, host, process, command
    ends_s               expected end in Unix time; null where nothing was measured
    device_hours         what the workers of all done stages held, by "CPU" (cores) and "GPU", times hours
    prices, currency     of an hour of each, where runtime.price sets one
    cells                one per arm, fold and seed:
      arm, fold, seed
      run                name of the run record of that arm and seed: gmp-atl runs show RUN
      state              waiting | running | done | failed
      stage              the stage that runs, or that failed
      message            the error of a failed cell
      evaluate, finetune fingerprints of these artefacts; empty until they are there
      utterances         tested utterances
      scores             {"war": x, "uar": y} of the fold, fractions in [0, 1]
    reports              one per arm and seed that has a report:
      arm, seed, run, fingerprint
      scores             {"war": x, "uar": y}, pooled over the folds
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.report.sweep_cost import price_of
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.run_state import attempt_state
from gmp_atl_dist.store.runs import Attempt, recorded_names

SWEEPS = "sweeps"
"""The folder below a root."""
RECORD_NAME = "sweep.json"

CellState: TypeAlias = Literal["waiting", "running", "done", "failed"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class GridCell(_Record):
    """One arm on one fold with one seed."""

    arm: str
    fold: str
    seed: int
    run: str
    state: CellState = "waiting"
    stage: str = ""
    message: str = ""
    evaluate: str = ""
    finetune: str = ""
    utterances: int = 0
    scores: dict[str, float] = Field(default_factory=dict)

    @property
    def name(self) -> str:
        """As people see it."""
        return f"{self.arm} {self.fold} seed {self.seed}"


class RunReport(_Record):
    """The report of one arm with one seed."""

    arm: str
    seed: int
    run: str
    fingerprint: str
    scores: dict[str, float] = Field(default_factory=dict)


class SweepRecord(_Record):
    """A sweep below a root; the fields are described at the top of this module."""

    name: str
    file: str
    fingerprint: str
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    folds: tuple[str, ...]
    cells: tuple[GridCell, ...]
    reports: tuple[RunReport, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    ends_s: float | None = None
    device_hours: dict[str, float] = Field(default_factory=dict)
    prices: dict[str, float] = Field(default_factory=dict)
    currency: str = ""

    @property
    def price(self) -> float | None:
        """Of the device-hours so far; None if no price was set."""
        return price_of(self.device_hours, self.prices)

    def count(self, state: CellState) -> int:
        return sum(cell.state == state for cell in self.cells)

    @property
    def failed(self) -> tuple[GridCell, ...]:
        return tuple(cell for cell in self.cells if cell.state == "failed")

    @property
    def state(self) -> str:
        """That of the last attempt; ``killed`` if its driver lives no more."""
        return attempt_state(self.attempts[-1]) if self.attempts else "waiting"


def write_sweep(store: Store, record: SweepRecord) -> None:
    """Replace the record of a sweep."""
    store.put(f"{SWEEPS}/{record.name}/{RECORD_NAME}", record.model_dump_json(indent=1).encode())


def read_sweep(store: Store, name: str) -> SweepRecord | None:
    """The record of a sweep; None where there is none.

    Raises:
        ArtifactError: it is damaged.
    """
    path = f"{SWEEPS}/{name}/{RECORD_NAME}"
    if not store.exists(path):
        return None
    try:
        return SweepRecord.model_validate_json(store.read(path))
    except ValidationError as e:
        raise ArtifactError(
            f"{store.uri}/{path} is damaged ({e.error_count()} problems); delete it: the next gmp-atl sweep "
            f"writes it again, and no result is lost"
        ) from e


def sweep_names(store: Store) -> tuple[str, ...]:
    """The names of all sweeps below a root, sorted."""
    return recorded_names(store, SWEEPS, RECORD_NAME)
