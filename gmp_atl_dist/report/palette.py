"""Colours of classes and folds, for light and dark pages.

Each palette has twelve colours. They were chosen one after the other from a grid, each as far as possible
from those before, as seen with normal sight and with each kind of colour blindness. The first ones differ
most. A test measures the distances.
"""

from __future__ import annotations

LIGHT = (
    "#0066aa",
    "#ee9900",
    "#bb0000",
    "#11bbdd",
    "#550055",
    "#bb66ff",
    "#ff6688",
    "#0000aa",
    "#669900",
    "#8800ee",
    "#774466",
    "#770000",
)
DARK = (
    "#66aaff",
    "#ffff00",
    "#cc2211",
    "#aa22ee",
    "#ff9966",
    "#338899",
    "#00ffee",
    "#998800",
    "#ff55aa",
    "#229988",
    "#ccdd99",
    "#8866ff",
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
