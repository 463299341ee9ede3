"""Walks over the method side by side: each in a thread, each stage once, as the cluster has room.

A lane is one walk, such as that of one fold. The threads of lanes wait most of the time: for room, for a
stage that another lane runs, or for Ray. The main thread hands out room and watches for a stop. It does
nothing else, so Ctrl-C is always seen.

**Order.** Lanes have an order, and the first one that can start a stage does. A lane between two stages holds
back those behind it, for the milliseconds until its next stage is known. So with room for one stage at a
time, the order is that of lanes run one after another. What a lane that waits needs is kept for it, so
later lanes overtake it only with what it cannot use.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from gmp_atl_dist import runtime, stopping
from gmp_atl_dist.errors import StoppedError, WorkerError
from gmp_atl_dist.scheduling.demands import Demand
from gmp_atl_dist.scheduling.room import Grant, Offers, Room
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.manifest import ArtifactKey

State = Literal["not_started", "thinking", "waiting", "blocked", "running", "over"]

_POLL_S = 0.2
_NODES_EVERY_S = 5.0
_GRACE_S = 10.0
"""How long a stage without a checkpoint to save may go on after a stop; its finished parts are kept."""


class NotRunError(WorkerError):
    """A stage was not run, because one that it needs failed in another lane, or all of it ends."""

    was_ended = False
    """Whether the command was stopped, and nothing that this stage needs failed."""


@dataclass
class Lane:
    """One walk. ``after``: it starts when these lanes are over, and only if none of them failed."""

    name: str
    walk: Callable[[Lane], None]
    after: tuple[Lane, ...] = ()
    state: State = "not_started"
    error: BaseException | None = None
    saves: bool = False
    """Whether the stage that it runs saves a checkpoint at a stop."""
    demands: tuple[Demand, ...] = ()
    alone_with: str = ""
    """Stages with the same text here do not run at the same time."""
    grant: Grant | None = None

    @property
    def failed(self) -> bool:
        return self.error is not None


@dataclass
class _Shared:
    """A stage that at least one lane has reached."""

    owner: Lane
    over: bool = False
    artifact: Artifact | None = None
    error: BaseException | None = None
    label: str = ""


@dataclass
class Lanes:
    """Runs lanes to their ends.

    Args:
        open_cluster: called in the main thread before the first stage that starts workers.
        nodes: what the cluster offers; None where that is not known: then one stage runs at a time.
        fail_fast: after an error no lane starts another stage. Otherwise the other lanes go on.
    """

    open_cluster: Callable[[], object]
    nodes: Callable[[], Offers | None] = runtime.cluster_nodes
    fail_fast: bool = False
    _lanes: list[Lane] = field(default_factory=list)
    _stages: dict[ArtifactKey, _Shared] = field(default_factory=dict)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _ending: bool = False
    _opened: bool = False
    _offers: Offers | None = None
    _asked_s: float = float("-inf")

    def run(self, lanes: Sequence[Lane]) -> None:
        """Run all lanes; their errors are in ``Lane.error``.

        Raises:
            StoppedError: the command was asked to stop. Trainings have saved their checkpoints.
        """
        self._lanes = list(lanes)
        with stopping.deferred("saving checkpoints"):
            with self._changed:
                while any(lane.state != "over" for lane in self._lanes):
                    self._start_lanes()
                    if not self._ending:
                        self._grant_room()
                    self._changed.wait(_POLL_S)
                    if stopping.requested() is not None:
                        break
            if stopping.requested() is not None:
                self._stop()

    @property
    def knows_nodes(self) -> bool:
        """Whether the cluster was open when it was asked last what it offers."""
        return self._opened and self._asked_s > float("-inf")

    @property
    def offers(self) -> Offers | None:
        """What the cluster offered when it was asked last."""
        return self._offers

    # Called by the threads of lanes.

    def once(
        self, lane: Lane, key: ArtifactKey, label: str, make: Callable[[], Artifact]
    ) -> tuple[Artifact, bool]:
        """The artefact of a stage, and whether this lane made or looked it up (not another one).

        Raises:
            NotRunError: it failed in another lane; the message names it.
        """
        with self._changed:
            self._check(lane)
            shared = self._stages.get(key)
            mine = shared is None
            if shared is None:
                shared = self._stages[key] = _Shared(lane, label=label)
            elif not shared.over:
                lane.state = "blocked"
                self._changed.notify_all()
                while not shared.over:
                    self._changed.wait()
                    self._check(lane)
                lane.state = "thinking"
        if not mine:
            if shared.artifact is None:
                raise NotRunError(f"{label} failed in {shared.owner.name}; see there")
            return shared.artifact, False
        try:
            shared.artifact = make()
        except BaseException as e:
            shared.error = e
            raise
        finally:
            with self._changed:
                shared.over = True
                self._changed.notify_all()
        return shared.artifact, True

    def with_room(
        self,
        lane: Lane,
        demands: tuple[Demand, ...],
        work: Callable[[Grant | None], Artifact],
        *,
        saves: bool = False,
        alone_with: str = "",
    ) -> Artifact:
        """``work``, once its workers have room. Its argument is None where the room is not known."""
        with self._changed:
            lane.demands, lane.saves, lane.alone_with = demands, saves, alone_with
            lane.state, lane.grant = "waiting", None
            self._changed.notify_all()
            while lane.state == "waiting":
                self._changed.wait()
                self._check(lane)
        try:
            return work(lane.grant)
        finally:
            with self._changed:
                lane.state, lane.grant, lane.saves = "thinking", None, False
                lane.alone_with = ""
                self._changed.notify_all()

    def _check(self, lane: Lane) -> None:
        """End a lane that must not start anything more. Call it with the condition."""
        if self._ending:
            lane.state = "thinking"
            ended = NotRunError(
                "not run: the command was stopped, or another part of the run failed"
            )
            ended.was_ended = True
            raise ended

    # Of the main thread.

    def _start_lanes(self) -> None:
        for lane in self._lanes:
            if lane.state != "not_started" or any(other.state != "over" for other in lane.after):
                continue
            failed = next((other for other in lane.after if other.failed), None)
            if failed is not None or self._ending:
                name = "" if failed is None else f"{failed.name} is not done"
                lane.state, lane.error = "over", NotRunError(f"{lane.name} was not run: {name}")
                continue
            lane.state = "thinking"
            threading.Thread(
                target=self._run_lane, args=(lane,), name=lane.name, daemon=True
            ).start()

    def _run_lane(self, lane: Lane) -> None:
        error: BaseException | None = None
        try:
            lane.walk(lane)
        except BaseException as e:
            error = e
        with self._changed:
            lane.state, lane.error = "over", error
            if error is not None and self.fail_fast and not isinstance(error, NotRunError):
                self._ending = True
            self._changed.notify_all()

    def _grant_room(self) -> None:
        """Let waiting lanes run, in their order, as far as there is room. Call it with the condition."""
        running = [lane for lane in self._lanes if lane.state == "running"]
        waiting = self._next_in_order()
        if not waiting:
            return
        if not self._opened and any(lane.demands for lane in waiting):
            self._opened = True
            self.open_cluster()
            # What was asked before may not have been the cluster.
            self._asked_s = float("-inf")
        if time.monotonic() - self._asked_s >= _NODES_EVERY_S:
            self._offers, self._asked_s = self.nodes(), time.monotonic()
        if self._offers is None:
            if not running:
                self._let_run(waiting[0], None)
            return
        room = Room(self._offers)
        for lane in running:
            if lane.grant is not None:
                room.hold(lane.grant)
        granted: list[tuple[Lane, Grant]] = []
        exclusive = {lane.alone_with for lane in running if lane.alone_with}
        # A lane that is between two stages may soon want room that an elastic stage would take.
        soon = any(lane.state == "thinking" for lane in self._lanes)
        postponed = False
        for lane in waiting:
            if lane.alone_with in exclusive:
                continue
            if soon and any(demand.most > demand.fewest for demand in lane.demands):
                room.reserve(lane.demands)
                postponed = True
                continue
            grant = room.admit(lane.demands, self._offers)
            if grant is None:
                room.reserve(lane.demands)
                continue
            granted.append((lane, grant))
            exclusive |= {lane.alone_with} - {""}
        if not granted and not running and not postponed:
            # It does not fit an empty cluster: Ray, an autoscaler or doctor has the last word.
            self._let_run(waiting[0], None)
        for lane, grant in granted:
            # With more room than all the waiting ones need at least, the first ones get more workers.
            self._let_run(lane, room.widen(grant))

    def _next_in_order(self) -> list[Lane]:
        """Waiting lanes before the first one whose next stage is not known yet."""
        waiting: list[Lane] = []
        for lane in self._lanes:
            if lane.state == "thinking":
                break
            if lane.state == "waiting":
                waiting.append(lane)
        return waiting

    def _let_run(self, lane: Lane, grant: Grant | None) -> None:
        lane.grant, lane.state = grant, "running"
        self._changed.notify_all()

    def _stop(self) -> None:
        """Have trainings save, and give everything else up.

        Raises:
            StoppedError: always.
        """
        signum = stopping.requested()
        assert signum is not None
        with self._changed:
            self._ending = True
            self._changed.notify_all()
            until_s = time.monotonic() + _GRACE_S
            while left := [
                lane for lane in self._lanes if lane.state not in ("over", "not_started")
            ]:
                if time.monotonic() > until_s and not any(lane.saves for lane in left):
                    break
                self._changed.wait(_POLL_S)
            saved = [
                e.message.partition(": ")[2]
                for lane in self._lanes
                if isinstance(e := lane.error, StoppedError)
            ]
        detail = "; ".join([*saved, "finished stages and parts are kept"])
        raise stopping.stopped(signum, detail)
