"""Which process of a pool gets which task."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gmp_atl_dist.runtime.actor_pool import TaskSchedule


@given(tasks=st.integers(0, 60), processes=st.integers(1, 7), data=st.data())
def test_every_task_is_assigned_once_in_any_order_of_answers(
    tasks: int, processes: int, data: st.DataObject
) -> None:
    schedule = TaskSchedule(tasks, processes)
    started = sorted(data.draw(st.sets(st.integers(0, processes - 1), min_size=1)))
    given_to: dict[int, int] = {}
    running: list[int] = []
    done: set[int] = set()
    next_task = 0
    while next_task < tasks:
        for process, task in schedule.assign(started, next_task):
            assert task not in given_to
            assert process in started
            given_to[task] = process
            running.append(task)
        # Something is always running, or the loop would never end.
        assert running
        finished = running.pop(data.draw(st.integers(0, len(running) - 1)))
        schedule.finish(finished)
        done.add(finished)
        while next_task in done:
            next_task += 1
        # Early answers wait in memory, so there must be few of them.
        assert max(given_to) - next_task < 5 * processes + 1
    assert sorted(given_to) == list(range(tasks))
    if len(started) == processes and tasks <= processes:
        assert all(task % processes == process for task, process in given_to.items())


def test_a_process_gets_the_same_tasks_for_each_request() -> None:
    for _ in range(3):
        schedule = TaskSchedule(12, 3)
        held: dict[int, int] = {}
        queue = schedule.assign([0, 1, 2], 0)
        while queue:
            process, task = queue.pop(0)
            held[task] = process
            schedule.finish(task)
            queue += schedule.assign([process], len(held))
        assert held == {task: task % 3 for task in range(12)}


def test_a_task_is_assigned_even_if_its_own_process_never_starts() -> None:
    schedule = TaskSchedule(40, 4)
    seen = [task for _, task in schedule.assign([3], 0)]
    done: set[int] = set()
    while seen:
        done.add(task := seen.pop(0))
        schedule.finish(task)
        next_task = next((n for n in range(40) if n not in done), 40)
        seen += [task for _, task in schedule.assign([3], next_task)]
    assert done == set(range(40))
