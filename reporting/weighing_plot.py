"""The figure of defences by test accuracy and by their strongest attack."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from defenders import DEFENDERS
from reporting.style import COLOURS, GREY, MARKERS, add_legend, as_png, panels


@as_png
def defences_plot(points: pd.DataFrame) -> Figure:
    """Networks by test accuracy and by the strongest attack on each.

    Args:
        points: columns defend ("" of an undefended one), rounds (bool, several of pruning), test,
            worst (accuracy of the strongest attack), in percent, and front (bool), of the
            undefended ones whether they are on their Pareto front.
    """
    figure, axes = panels(1, 1, height=5.6)
    axis = axes[0, 0]
    plain = points[points["defend"] == ""]
    axis.plot(plain["test"], plain["worst"], "o", color=GREY, markersize=4, alpha=0.7)
    front = plain[plain["front"]].sort_values("test")
    # between two networks nothing is at hand: as accurate is only the more accurate one
    axis.step(front["test"], front["worst"], where="pre", color=GREY, linewidth=1.6)
    handles = [Line2D([], [], color=GREY, marker="o", markersize=4, label="undefended, front")]
    names = list(DEFENDERS)
    defended = points[points["defend"] != ""]
    for name in sorted(defended["defend"].unique(), key=names.index):
        style = _style(names.index(name))
        handles.append(Line2D([], [], linestyle="", label=name, **style))
        for rounds, mine in defended[defended["defend"] == name].groupby("rounds"):
            face = {"markerfacecolor": "white"} if rounds else {}
            axis.plot(mine["test"], mine["worst"], linewidth=0.8, alpha=0.9, **style | face)
    axis.axhline(50, linestyle=":", color=GREY, linewidth=0.9)
    axis.set(
        xlabel="test accuracy of the network (%)",
        ylabel="accuracy of the strongest attack (%; 50 = guessing)",
    )
    axis.margins(0.06)
    if defended["rounds"].any():
        hollow: dict[str, Any] = {"markerfacecolor": "white", "color": GREY}
        handles.append(Line2D([], [], linestyle="", marker="o", label="several rounds", **hollow))
    add_legend(figure, handles, title="defence")
    return figure


def _style(position: int) -> dict[str, Any]:
    """Colour and marker of a defence: no two have both alike."""
    return {
        "color": COLOURS[position % len(COLOURS)],
        "marker": MARKERS[position % len(MARKERS)],
        "markersize": 6,
    }
