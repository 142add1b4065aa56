"""How figures look: colours, lines and markers of attacks, axes, legends.

An attack has the same colour, line and marker in each; colours are Okabe & Ito's, which the
colour-blind tell apart.
"""

from __future__ import annotations

import functools
import io
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from attackers import registered_position
from reporting.columns import ordered_attacks

if TYPE_CHECKING:
    import pandas as pd

WIDTH, PIXELS = 9.0, 192  # inches, which a page shows as 96 pixels each; of the image, an inch
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
LINES, MARKERS = ("-", "--", ":"), "osD^vPX<>"
# of further curves of an attack: none of LINES
DASHES = ((0, (6, 1, 1, 1)), (0, (2, 3)), (0, (6, 1, 1, 1, 1, 1)), (0, (8, 4)))
GREY = "#777777"
MEMBER, NON_MEMBER = "#D55E00", "#0072B2"
STYLE: dict = {
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.labelsize": 9.5,
    "legend.fontsize": 9,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.4,
    "lines.markersize": 5,
    "legend.frameon": False,
    "svg.hashsalt": "report",
}


def line_style(verdict: str) -> dict[str, Any]:
    """Colour, line and marker of an attack, by its registered name."""
    position = registered_position(verdict)
    return {
        "color": COLOURS[position % len(COLOURS)],
        "marker": MARKERS[position % len(MARKERS)],
        "linestyle": LINES[position // len(COLOURS) % len(LINES)],
    }


def line_styles(attacks: dict[str, str]) -> dict[str, dict[str, Any]]:
    """The style of each attack as it is printed, from {that: its registered name}; those of one
    name, which differ in the releases held or in options, have its colour and marker and a line
    each."""
    seen: Counter[str] = Counter()
    styles = {}
    for attack, verdict in attacks.items():
        styles[attack] = line_style(verdict)
        if seen[verdict]:
            dashes = DASHES[(seen[verdict] - 1) % len(DASHES)]
            styles[attack] |= {"linestyle": dashes, "markerfacecolor": "white"}
        seen[verdict] += 1
    return styles


def panels(rows: int, columns: int, *, height: float, **how) -> tuple[Figure, np.ndarray]:
    """An empty figure of the page's width and its axes (rows, columns); `height` of a row, inches."""
    figure = Figure(figsize=(WIDTH, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **how)


def as_png(draw: Callable[..., Figure]) -> Callable[..., bytes]:
    """Decorate what draws a figure: it is drawn in STYLE, and its PNG returned."""

    @functools.wraps(draw)
    def png(*args, **kwargs) -> bytes:
        buffer = io.BytesIO()
        with matplotlib.rc_context(STYLE):
            figure = draw(*args, **kwargs)
            figure.savefig(buffer, format="png", dpi=PIXELS, metadata={"Software": None})
        return buffer.getvalue()

    return png


def add_legend(figure: Figure, handles: list, **how) -> None:
    """A legend at the right of all panels."""
    figure.legend(handles=handles, loc="outside right upper", **how)


def attack_handles(rows: pd.DataFrame) -> list[Line2D]:
    """The legend's entries for all attacks of rows with columns attack and verdict, in order."""
    styles = line_styles(ordered_attacks(rows))
    return [Line2D([], [], label=attack, **style) for attack, style in styles.items()]


def logarithmic(axis, direction: str, low: float, high: float, *, scale: float = 1.0) -> None:
    """Make an axis logarithmic from `low` to `high`, with plain numbers at some three ticks or more.

    Args:
        direction: "x" or "y".
        scale: what the numbers in print are multiplied by.
    """
    getattr(axis, f"set_{direction}scale")("log")
    getattr(axis, f"set_{direction}lim")(low, high)
    ticks = getattr(axis, f"{direction}axis")
    ticks.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 50 * low else (1,), numticks=20))
    ticks.set_major_formatter(FuncFormatter(lambda at, _: f"{scale * at:g}"))
    ticks.set_minor_formatter(NullFormatter())


def attack_curves(
    axis, data: pd.DataFrame, x: str, *, styles: dict[str, dict[str, Any]], shift: float = 0.0
) -> None:
    """A line for each attack over column `x`, with a bar of a standard deviation to both sides, in
    percent.

    Args:
        data: columns attack, verdict, mean, sd and `x`.
        styles: of `line_styles`, of these attacks and maybe more.
        shift: of each attack's points against the last one's, so that bars don't hide one another.
    """
    order = list(ordered_attacks(data))
    # in the order of `x`: which line lies above which follows from it
    for attack, points in data.sort_values(x).groupby("attack", sort=False):
        style = styles[str(attack)]
        axis.errorbar(
            points[x] + shift * (order.index(str(attack)) - len(order) / 2),
            100 * points["mean"],
            100 * points["sd"].fillna(0.0),
            elinewidth=0.8,
            ecolor=(style["color"], 0.4),
            **style,
        )
