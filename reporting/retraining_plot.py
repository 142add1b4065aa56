"""The figure of members that are named in several trainings, and by several attacks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from reporting.style import GREY, as_png, line_style, panels


@dataclass(frozen=True, eq=False)
class NamedAgain:
    """The shares of the members (T,) that at least 1 to T trainings name, and those by chance; of
    an attack by its registered name."""

    verdict: str
    shares: np.ndarray
    chance: np.ndarray


@as_png
def retrainings(curves: dict[str, NamedAgain], matrix: np.ndarray) -> Figure:
    """Curves of the attacks over the number of trainings, and beside them a matrix.

    Args:
        matrix: (A, A), mean Jaccard index of two attacks, on the diagonal of two trainings; NaN
            where none is known.
    """
    height = max(3.6, 0.42 * len(curves) + 1.6)
    figure, axes = panels(1, 2, height=height, width_ratios=[1.0, 1.1])
    left, right = axes[0]
    for attack, curve in curves.items():
        times, style = np.arange(1, len(curve.shares) + 1), line_style(curve.verdict)
        left.plot(times, 100 * curve.shares, label=attack, **style)
        left.plot(times, 100 * curve.chance, color=style["color"], alpha=0.3)
    left.plot([], [], color=GREY, alpha=0.3, label="independent")
    most = max(len(curve.shares) for curve in curves.values())
    step = -(-most // 10)
    left.set(
        title="members named in several trainings",
        xlabel="trainings that name a member, at least",
        ylabel="share of the members (%)",
        xticks=range(1, most + 1, step),
    )
    left.set_ylim(bottom=0)
    left.legend(loc="upper right", handlelength=2.6)
    _matrix(right, matrix, list(curves))
    return figure


def _matrix(axis, matrix: np.ndarray, names: list[str]) -> None:
    axis.set_title("Jaccard index (framed: two trainings)")
    axis.imshow(matrix, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)
    places = range(len(names))
    axis.set_xticks(places, names, rotation=40, ha="right", rotation_mode="anchor")
    axis.set_yticks(places, names)
    axis.tick_params(length=0)
    for (row, column), value in np.ndenumerate(matrix):
        text = "-" if np.isnan(value) else f"{value:.2f}"
        colour = "white" if value > 0.55 else "black"
        axis.text(column, row, text, ha="center", va="center", color=colour, fontsize=9)
    for place in places:
        frame = Rectangle((place - 0.5, place - 0.5), 1, 1, fill=False, edgecolor="black", lw=1.2)
        axis.add_patch(frame)
