"""Tables of the command line: nothing is cut, in a pipe and on any terminal."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support.terminal import on_a_terminal

HEADINGS = ("name", "state", "UAR")
ROWS = (("a-run-with-a-long-name-1a2b3c4d", "done", "41.6 % (33.4 to 49.7)"), ("b", "running", ""))
SCRIPT = f"from gmp_atl_dist.cli.tables import print_table; print_table({HEADINGS!r}, {ROWS!r})"


def test_a_pipe_gets_the_whole_table() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    first = next(line for line in done.stdout.splitlines() if ROWS[0][0] in line)
    assert all(cell in first for cell in ROWS[0])


@pytest.mark.parametrize("columns", [40, 80])
def test_a_narrow_terminal_gets_blocks_and_a_wide_one_a_table(columns: int) -> None:
    with on_a_terminal("-c", SCRIPT, columns=columns) as terminal:
        assert terminal.wait(60) == 0
        text = terminal.text
    assert ROWS[0][0] in text
    assert ("  UAR: 41.6 % (33.4 to 49.7)" in text) == (columns == 40)
    assert ("┃" in text) == (columns == 80)
