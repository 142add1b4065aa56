"""The figure of victims by test accuracy and by their strongest attack."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from defenders import DEFENDERS
from reporting.style import COLOURS, GREY, MARKERS, add_legend, as_png, panels

_DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))


@as_png
def privacy(points: pd.DataFrame) -> Figure:
    """Victims by test accuracy and by their strongest attack.

    Args:
        points: columns series, defend (None of an original), label, test, attack, worst (its
            accuracy under the strongest attacker), blind (under one that doesn't know the defence;
            NaN where not attacked so), front (bool); accuracies in percent.
    """
    figure, axes = panels(1, 1, height=5.0)
    axis = axes[0, 0]
    handles = [_series_points(axis, points, name) for name in dict.fromkeys(points["series"])]
    front = points[points["front"]].sort_values("test")
    line: dict[str, Any] = {"color": "#444444", "linewidth": 1, "linestyle": "--", "zorder": 1}
    axis.step(front["test"], front["worst"], where="pre", **line)
    ring: dict[str, Any] = {"color": "#444444", "markerfacecolor": "none"}
    axis.plot(front["test"], front["worst"], "o", markersize=13, **ring)
    axis.set(
        xlabel="test accuracy of the victim (%)",
        ylabel="accuracy of the strongest attack (%; 50 = guessing)",
    )
    axis.margins(0.1)
    hollow = Line2D([], [], linestyle="", marker="o", color=GREY, markerfacecolor="white")
    hollow.set_label("does not know\nthe defence")
    ringed = Line2D([], [], linestyle="--", marker="o", markersize=11, label="Pareto front", **ring)
    unaware = [hollow] if points["blind"].notna().any() else []
    add_legend(figure, [*handles, *unaware, ringed], title="victims")
    _place_labels(figure, axis, points)
    return figure


def _series_points(axis, points: pd.DataFrame, name: str) -> Line2D:
    """Draw the points of a series; the legend's entry for it."""
    series_points, defences = points[points["series"] == name], list(DEFENDERS)
    defence = series_points["defend"].iloc[0]
    colour, marker, size = GREY, "*", 10
    if defence is not None:
        alike = list(dict.fromkeys(points.loc[points["defend"] == defence, "series"]))
        place = alike.index(name)
        # colours tell defences apart, and where there are none, series
        several = points["defend"].nunique() > 1
        colour = COLOURS[(defences.index(defence) + 4 if several else place) % len(COLOURS)]
        marker, size = MARKERS[place % len(MARKERS)], 7
    style: dict[str, Any] = {"color": colour, "markersize": size}
    axis.vlines(
        series_points["test"],
        series_points["blind"],
        series_points["worst"],
        color=colour,
        linewidth=1,
    )
    axis.plot(
        series_points["test"], series_points["blind"], marker, markerfacecolor="white", **style
    )
    axis.plot(series_points["test"], series_points["worst"], marker, **style)
    return Line2D([], [], linestyle="", marker=marker, label=name, **style)


def _place_labels(figure: Figure, axis, points: pd.DataFrame) -> None:
    """Name each point where its name hides no other name or point; leave it out elsewhere."""
    figure.draw_without_rendering()
    values = [points[["test", "worst"]], points[["test", "blind"]].dropna()]
    spots = axis.transData.transform(np.concatenate(values))
    gap = 10 * figure.dpi / 72  # from a point's middle to its name
    taken = [(x - 0.7 * gap, y - 0.7 * gap, x + 0.7 * gap, y + 0.7 * gap) for x, y in spots]
    for (x, y), label in zip(spots, points["label"]):
        size = (5.0 * len(label) * figure.dpi / 72, 10 * figure.dpi / 72)
        box = _free_box(axis, (x, y), size, gap=gap, taken=taken)
        if box is None:
            continue
        taken.append(box)
        middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        point, at = axis.transData.inverted().transform([(x, y), middle])
        axis.annotate(
            label,
            point,
            at,
            fontsize=9,
            color="#333333",
            ha="center",
            va="center",
            bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 0.5},
            arrowprops={"arrowstyle": "-", "color": "#999999", "linewidth": 0.6},
            in_layout=False,  # else the axes would move under it
        )


def _free_box(axis, spot, size, *, gap: float, taken: list) -> tuple | None:
    """The first box of this size beside a spot that is inside the axes and hides nothing."""
    (x, y), (width, height) = spot, size
    for right, up in _DIRECTIONS:
        left = x + right * gap - width * (1 - right) / 2
        low = y + up * gap - height * (1 - up) / 2
        box = (left, low, left + width, low + height)
        horizontal = axis.bbox.x0 < box[0] and box[2] < axis.bbox.x1
        vertical = axis.bbox.y0 < box[1] and box[3] < axis.bbox.y1
        hidden = any(
            box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken
        )
        if horizontal and vertical and not hidden:
            return box
    return None
