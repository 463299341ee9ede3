"""Who gets which task of a pool."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gmp_atl_dist.runtime.actor_pool import Turns


@given(tasks=st.integers(0, 60), processes=st.integers(1, 7), data=st.data())
def test_every_task_is_given_once_whoever_is_slow(
    tasks: int, processes: int, data: st.DataObject
) -> None:
    turns = Turns(tasks, processes)
    started = sorted(data.draw(st.sets(st.integers(0, processes - 1), min_size=1)))
    given_to: dict[int, int] = {}
    running: list[int] = []
    done: set[int] = set()
    due = 0
    while due < tasks:
        for process, task in turns.take(started, due):
            assert task not in given_to
            assert process in started
            given_to[task] = process
            running.append(task)
        # Something is always under way, or nothing would ever end.
        assert running
        finished = running.pop(data.draw(st.integers(0, len(running) - 1)))
        turns.done(finished)
        done.add(finished)
        while due in done:
            due += 1
        # What was answered before its turn waits in memory, so it must not be much.
        assert max(given_to) - due < 5 * processes + 1
    assert sorted(given_to) == list(range(tasks))
    if len(started) == processes and tasks <= processes:
        assert all(task % processes == process for task, process in given_to.items())


def test_a_process_gets_the_same_tasks_again_when_all_keep_step() -> None:
    for _ in range(3):
        turns = Turns(12, 3)
        held: dict[int, int] = {}
        queue = turns.take([0, 1, 2], 0)
        while queue:
            process, task = queue.pop(0)
            held[task] = process
            turns.done(task)
            queue += turns.take([process], len(held))
        assert held == {task: task % 3 for task in range(12)}


def test_the_first_task_is_given_even_if_its_own_process_never_starts() -> None:
    turns = Turns(40, 4)
    seen = [task for _, task in turns.take([3], 0)]
    done: set[int] = set()
    while seen:
        done.add(task := seen.pop(0))
        turns.done(task)
        due = next((n for n in range(40) if n not in done), 40)
        seen += [task for _, task in turns.take([3], due)]
    assert done == set(range(40))
