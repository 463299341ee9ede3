"""A strict reader of the LaTeX tables that are written: what it refuses, LaTeX would refuse or print wrongly.

No LaTeX is needed. It knows the commands that our tables use, and no others.
"""

from __future__ import annotations

import re

_COMMANDS = {
    *(rf"\{c}" for c in "%&_#${}"),
    *(r"\textbackslash", r"\textasciitilde", r"\textasciicircum"),
}
_MATH = {"$<$", "$>$", "$|$", "$-$", r"$\pm$"}
_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|\$[^$]*\$|.", re.DOTALL)


def read_latex_table(text: str) -> list[list[str]]:
    """The cells of a ``tabular`` by row, as a reader of the page sees them.

    Raises:
        AssertionError: a row has another number of cells than columns, or a character is not escaped.
    """
    lines = [line for line in text.splitlines() if line and not line.startswith("%")]
    begin = re.fullmatch(r"\\begin\{tabular\}\{([lcr]+)\}", lines[0])
    assert begin, lines[0]
    assert lines[-1] == r"\end{tabular}"
    rows = [line for line in lines[1:-1] if line != r"\hline"]
    assert lines.count(r"\hline") >= 3
    found = [_cells(row) for row in rows]
    assert {len(row) for row in found} == {len(begin[1])}, begin[1]
    return found


def _cells(row: str) -> list[str]:
    assert row.endswith(r" \\"), row
    body = row.removesuffix(r" \\")
    # "[...]" or "*" after a line break is an option of that line break.
    assert not body.lstrip().startswith(("[", "*")), row
    cells, depth = [""], 0
    for token in _TOKEN.findall(body):
        if token == "&":
            assert depth == 0, row
            cells.append("")
        elif token in "{}":
            depth += 1 if token == "{" else -1
            assert depth >= 0, row
        elif token.startswith("\\"):
            assert token in _COMMANDS, (token, row)
            cells[-1] += _shown(token)
        elif token.startswith("$"):
            assert token in _MATH, (token, row)
            cells[-1] += "±" if "pm" in token else token[1]
        else:
            # The last three are other signs in LaTeX's usual encoding.
            assert token not in "%#_^~<>|", (token, row)
            cells[-1] += token
    assert depth == 0, row
    return [cell.strip() for cell in cells]


def _shown(command: str) -> str:
    names = {"\\textbackslash": "\\", "\\textasciitilde": "~", "\\textasciicircum": "^"}
    return names.get(command, command[1:])
