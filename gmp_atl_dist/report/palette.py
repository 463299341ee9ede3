"""Colours of classes and folds, for light and dark pages.

Each palette has twelve colours. They were chosen from a grid, as far from each other as possible, as
seen with normal sight and with each kind of colour blindness. The first eight differ most. A test measures
the distances.
"""

from __future__ import annotations

LIGHT = (
    "#0066aa",
    "#ff9900",
    "#883300",
    "#bb99ff",
    "#440066",
    "#aa00ff",
    "#ff0055",
    "#44ccaa",
    "#0000bb",
    "#888899",
    "#113333",
    "#bb0077",
)
DARK = (
    "#66aaff",
    "#ddff00",
    "#aa3300",
    "#9900dd",
    "#ff66aa",
    "#226677",
    "#55ffff",
    "#889900",
    "#eebb88",
    "#8866bb",
    "#aa7766",
    "#88cc00",
)
SIZE = len(LIGHT)


def css_variables(colours: tuple[str, ...]) -> str:
    """``--c0`` to ``--c11``."""
    return " ".join(f"--c{i}: {colour};" for i, colour in enumerate(colours))


def css_classes() -> str:
    """Classes ``f0`` to ``f11`` fill with a colour, ``l0`` to ``l11`` draw lines in it."""
    return " ".join(
        f".f{i} {{ fill: var(--c{i}); background: var(--c{i}); }} .l{i} {{ stroke: var(--c{i}); }}"
        for i in range(SIZE)
    )
