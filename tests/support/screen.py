"""What a terminal shows after it was sent some text: enough of a terminal for lines and progress bars.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import re
import unicodedata

_CONTROL = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])")


class Screen:
    """A terminal of ``columns`` columns whose lines scroll away upwards and are kept."""

    def __init__(self, columns: int) -> None:
        self._columns = columns
        self._lines: list[list[str]] = [[]]
        self._row = self._column = 0
        self.wrapped = 0
        """How often a character did not fit into its line any more."""

    @property
    def lines(self) -> list[str]:
        """Every line, without blanks at its end."""
        lines = ["".join(line).rstrip() for line in self._lines]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    def feed(self, text: str) -> None:
        """Show ``text``, which may have control sequences."""
        at = 0
        while at < len(text):
            control = _CONTROL.match(text, at)
            if control:
                self._control(control[1], control[2])
                at = control.end()
                continue
            self._put(text[at])
            at += 1

    def _put(self, char: str) -> None:
        if char == "\r":
            self._column = 0
        elif char == "\n":
            self._move(self._row + 1)
        elif char == "\b":
            self._column = max(0, self._column - 1)
        elif char >= " ":
            wide = 2 if unicodedata.east_asian_width(char) in "WF" else 1
            if self._column + wide > self._columns:
                self.wrapped += 1
                self._move(self._row + 1)
                self._column = 0
            line = self._lines[self._row]
            line += [" "] * (self._column + wide - len(line))
            line[self._column] = char
            if wide == 2:
                line[self._column + 1] = ""
            self._column += wide

    def _move(self, row: int) -> None:
        self._row = max(0, row)
        while len(self._lines) <= self._row:
            self._lines.append([])

    def _control(self, numbers: str, letter: str) -> None:
        count = int(numbers) if numbers.isdigit() else 0
        if letter == "A":
            self._move(self._row - max(1, count))
        elif letter == "B":
            self._move(self._row + max(1, count))
        elif letter == "C":
            self._column += max(1, count)
        elif letter == "D":
            self._column = max(0, self._column - max(1, count))
        elif letter == "G":
            self._column = max(1, count) - 1
        elif letter == "K":
            line = self._lines[self._row]
            del line[0 if count == 2 else self._column :]
        elif letter == "J":
            del self._lines[self._row][0 if count == 2 else self._column :]
            del self._lines[self._row + 1 :]
