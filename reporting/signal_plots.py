"""Figures of what a victim answers for members and for non-members."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from reporting.style import MEMBER, NON_MEMBER, add_legend, as_png, logarithmic, panels

SIGNAL_LABELS = {
    "confidence": "confidence: posterior of the true class",
    "sensitivity": "sensitivity of the true class's posterior (log scale)",
}


@dataclass(frozen=True, eq=False)
class TrueClassSignals:
    """What a victim answers for the true class of its targets, those of all seeds together.

    Attributes:
        value: (n,), the posterior or the sensitivity.
        labels, member: (n,), the truth.
        seeds: how many victims these are.
    """

    value: np.ndarray
    labels: np.ndarray
    member: np.ndarray
    seeds: int


@as_png
def histograms(rows: dict[str, dict[str, TrueClassSignals]]) -> Figure:
    """Members and non-members apart: a row for each victim, a column for each signal."""
    kinds = list(next(iter(rows.values())))
    figure, axes = panels(len(rows), len(kinds), height=2.9, sharex="col", sharey="col")
    for (victim, row), line in zip(rows.items(), axes):
        for axis, kind in zip(line, kinds):
            bins = np.linspace(0, 1, 41)
            if kind == "sensitivity":
                bins = _logarithmic_bins(
                    np.concatenate([other[kind].value for other in rows.values()])
                )
            _two_histograms(axis, row[kind], bins)
            axis.set(
                title=victim,
                yscale="log",
                xlabel=SIGNAL_LABELS[kind],
                ylabel="share of records (%)",
            )
            axis.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:g}"))
            if kind == "sensitivity":
                logarithmic(axis, "x", bins[0], bins[-1])
            axis.xaxis.set_tick_params(labelbottom=True)
            axis.legend(
                loc="lower center",
                bbox_to_anchor=(0.5, 1.1),
                ncols=2,
                handlelength=1.4,
                columnspacing=1.2,
            )
    return figure


def _logarithmic_bins(values: np.ndarray) -> np.ndarray:
    """Edges (41,) of bins that hold all values; those of 0 are to be put at the left end."""
    floor = max(values.max() * 1e-8, values[values > 0].min(initial=values.max() or 1.0))
    return np.geomspace(floor, max(values.max(), 2 * floor) * 1.01, 41)


def _two_histograms(axis, signals: TrueClassSignals, bins: np.ndarray) -> None:
    for kind, colour, hatch, selected in (
        ("members", MEMBER, None, signals.member),
        ("non-members", NON_MEMBER, "////", ~signals.member),
    ):
        value = np.maximum(signals.value[selected], bins[0])
        mean = signals.value[selected].mean()
        axis.hist(
            value,
            bins,
            weights=np.full(len(value), 100 / len(value)),
            histtype="stepfilled",
            facecolor="none" if hatch else colour + "66",
            edgecolor=colour,
            hatch=hatch,
            linewidth=1.2,
            label=f"{kind}, mean {mean:.3g}",
        )
        axis.axvline(mean, color=colour, linewidth=1.6, linestyle="--" if hatch else "-")


def class_means(signals: TrueClassSignals, *, least: int) -> pd.DataFrame:
    """Means of members and of non-members of each class, and the gap; a row a class.

    Classes with fewer than `least` of either are left out.
    """
    means = {}
    for label in np.unique(signals.labels):
        selected = signals.labels == label
        inside = signals.value[selected & signals.member]
        outside = signals.value[selected & ~signals.member]
        if min(len(inside), len(outside)) >= least:
            means[int(label)] = {"members": inside.mean(), "non_members": outside.mean()}
    table = pd.DataFrame.from_dict(means, orient="index", columns=["members", "non_members"])
    return table.assign(gap=table["members"] - table["non_members"])


@as_png
def by_class(means_of: dict[str, pd.DataFrame], kind: str) -> Figure:
    """A dumbbell for each class: {victim: `class_means`}, sorted by the gap of the last victim."""
    order = list(means_of.values())[-1]["gap"].abs().sort_values().index
    height = 0.19 * len(order) + 1.5
    figure, axes = panels(1, len(means_of), height=height, sharey=True, sharex=True)
    for axis, (victim, means) in zip(axes[0], means_of.items()):
        means = means.reindex(order)
        at = np.arange(len(order))
        axis.hlines(at, means["members"], means["non_members"], "#999999", lw=1.6, zorder=2)
        axis.plot(means["members"], at, "o", color=MEMBER, label="members", zorder=3)
        style: dict[str, Any] = {
            "color": NON_MEMBER,
            "label": "non-members",
            "markersize": 4.5,
            "zorder": 3,
        }
        axis.plot(means["non_members"], at, "D", **style)
        gaps = means["gap"].abs()
        axis.set(
            title=f"{victim}\nmean gap {means['gap'].mean():.3g}, largest {gaps.max():.3g}",
            xlabel=f"mean {SIGNAL_LABELS[kind].replace(' (log scale)', '')}",
            yticks=at,
            yticklabels=order,
            ylim=(-0.7, len(order) - 0.3),
        )
    axes[0, 0].set_ylabel("class, largest gap at the top")
    add_legend(figure, axes[0, 0].get_legend_handles_labels()[0])
    return figure
