"""The figures of attacks: numbers in, a PNG out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from defenders.accounting import advantage_bound
from reporting.columns import MEASURES, ordered_attacks
from reporting.style import (
    GREY,
    add_legend,
    as_png,
    attack_curves,
    attack_handles,
    line_style,
    line_styles,
    logarithmic,
    panels,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False)
class RocCurve:
    """A mean ROC: rates (n,), and the AUC, a fraction; of an attack by its registered name."""

    verdict: str
    fpr: np.ndarray
    tpr: np.ndarray
    auc: float


@as_png
def sparsity(series: dict[str, pd.DataFrame]) -> Figure:
    """Attack accuracy over sparsity, a panel for each series.

    Args:
        series: columns attack, verdict, sparsity (%; 0 of the original), mean, sd.
    """
    columns = min(len(series), 3)
    rows = -(-len(series) // columns)
    figure, axes = panels(rows, columns, height=3.6, sharey=True, sharex=True)
    every = pd.concat(series.values())
    there = np.unique(every.query("sparsity > 0")["sparsity"])
    step = np.diff(there).mean()
    beside = there[0] - step  # the original, which has no place on this axis
    styles = line_styles(ordered_attacks(every))
    for axis in list(axes.flat)[len(series) :]:
        axis.set_visible(False)
    for axis, (title, data) in zip(axes.flat, series.items()):
        data = data.assign(sparsity=data["sparsity"].where(data["sparsity"] > 0, beside))
        attack_curves(axis, data, "sparsity", styles=styles, shift=step / 45)
        axis.axhline(50, color=GREY, linewidth=0.8, linestyle=(0, (1, 2)))
        axis.set_xticks([beside, *there], ["original", *(f"{tick:g}" for tick in there)])
        axis.set(title=title.replace(", ", "\n", 1), xlabel="sparsity (% of weights pruned)")
        axis.xaxis.set_tick_params(labelbottom=True)
    for axis in axes[:, 0]:
        axis.set_ylabel("attack accuracy (%)")
    add_legend(figure, attack_handles(every))
    return figure


@as_png
def roc(curves_of: dict[str, dict[str, RocCurve]]) -> Figure:
    """ROC on two logarithmic axes, a panel for each victim: {victim: {attack: curve}}."""
    verdicts = {name: curve.verdict for each in curves_of.values() for name, curve in each.items()}
    styles = line_styles(dict(sorted(verdicts.items())))
    figure, axes = panels(1, len(curves_of), height=4.4, sharey=True, sharex=True)
    for axis, (title, curves) in zip(axes[0], curves_of.items()):
        low = min(float(curve.fpr[0]) for curve in curves.values())
        axis.plot([low, 1], [low, 1], linestyle=(0, (4, 3)), color=GREY, linewidth=0.9)
        for attack, curve in sorted(curves.items(), key=lambda item: -item[1].auc):
            axis.plot(
                curve.fpr,
                np.where(curve.tpr > 0, curve.tpr, np.nan),
                label=f"{attack}  {100 * curve.auc:.1f}",
                markevery=max(1, len(curve.fpr) // 8),
                **styles[attack],
            )
        axis.legend(title="AUC (%)", loc="lower right", handlelength=2.6)
        axis.set(title=title, xlabel="false-positive rate (%)")
        logarithmic(axis, "x", low, 1, scale=100)
        logarithmic(axis, "y", low, 1.05, scale=100)
    axes[0, 0].set_ylabel("true-positive rate (%)")
    return figure


@as_png
def low_fpr(rates: dict[str, pd.DataFrame], victims: list[str]) -> Figure:
    """TPR at low FPR as bars, a panel for each measure; the last victim's bars are filled.

    Args:
        rates: {measure: columns attack, verdict, victim, mean, sd}.
    """
    first = next(iter(rates.values()))
    attacks = first[first["victim"] == victims[-1]].sort_values("mean")["attack"].tolist()
    figure, axes = panels(1, len(rates), height=0.34 * len(attacks) + 1.6, sharey=True)
    for axis, (measure, data) in zip(axes[0], rates.items()):
        _rate_bars(axis, data, attacks=attacks, victims=victims)
        axis.set(
            title=MEASURES[measure].title,
            xlabel="true-positive rate (%)",
            yticks=range(len(attacks)),
            yticklabels=attacks,
        )
        axis.set_xlim(0, axis.get_xlim()[1])
        chance = 100 * MEASURES[measure].chance
        axis.axvline(chance, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)))
        axis.grid(axis="y", visible=False)
    grey = [
        Patch(
            facecolor="#666666" if victim == victims[-1] else "white",
            edgecolor="#666666",
            label=victim,
            hatch=None if victim == victims[-1] else "////",
        )
        for victim in victims
    ]
    guessing = Line2D([], [], color=GREY, linestyle=(0, (4, 3)), label="guessing")
    figure.legend(handles=[*grey, guessing], loc="outside lower center", ncols=3)
    return figure


def _rate_bars(axis: Axes, data: pd.DataFrame, *, attacks: list[str], victims: list[str]) -> None:
    """A bar for each attack and victim, the first attack at the bottom."""
    data = data[data["attack"].isin(attacks)]
    for row in data.itertuples():
        colour, last = line_style(row.verdict)["color"], row.victim == victims[-1]
        beside = 0.4 * (len(victims) - 1) / 2 - 0.4 * victims.index(row.victim)
        axis.barh(
            attacks.index(row.attack) + beside,
            100 * row.mean,
            height=0.38,
            xerr=0 if np.isnan(row.sd) else 100 * row.sd,
            color=colour if last else "white",
            edgecolor=colour,
            hatch=None if last else "////",
            linewidth=0.8,
            error_kw={"elinewidth": 0.8, "ecolor": "#444444"},
        )


@as_png
def epsilon(series: dict[str, pd.DataFrame], bounded: set[str], delta: float) -> Figure:
    """Attack advantage over epsilon, a panel for each series.

    Args:
        series: columns attack, verdict, epsilon, mean, sd.
        bounded: which get `accounting.advantage_bound`, of this `delta`.
    """
    columns, pooled = min(len(series), 2), pd.concat(series.values())
    every, bound_seen = pooled["epsilon"], False
    rows, styles = -(-len(series) // columns), line_styles(ordered_attacks(pooled))
    figure, axes = panels(rows, columns, height=3.4, sharey=True, sharex=True)
    for axis in list(axes.flat)[len(series) :]:
        axis.set_visible(False)
    for axis, (title, data) in zip(axes.flat, series.items()):
        advantage = data.assign(mean=2 * data["mean"] - 1, sd=2 * data["sd"])
        attack_curves(axis, advantage, "epsilon", styles=styles)
        axis.axhline(0, color=GREY, linewidth=0.8, linestyle=(0, (1, 2)))
        axis.set(title=title, xlabel="epsilon of the victim (log scale)")
        axis.xaxis.set_tick_params(labelbottom=True)
        logarithmic(axis, "x", every.min() / 1.3, every.max() * 1.3)
        limits = axis.get_ylim()
        if title in bounded:
            grid = np.geomspace(every.min() / 1.3, every.max() * 1.3, 200)
            bound = 100 * advantage_bound(grid, delta)
            bound_seen |= bool(bound.min() < limits[1])
            axis.plot(grid, bound, color=GREY, linestyle="-.")
            axis.set_ylim(limits)
    for axis in axes[:, 0]:
        axis.set_ylabel("attack advantage, TPR - FPR (%)")
    extra = [Line2D([], [], color=GREY, linestyle="-.", label="bound")] if bound_seen else []
    add_legend(figure, [*attack_handles(pooled), *extra])
    return figure


@as_png
def shadows(data: pd.DataFrame, victim: str) -> Figure:
    """Attack accuracy over the number of shadow models.

    Args:
        data: columns attack, verdict, shadow_num, mean, sd.
    """
    figure, axes = panels(1, 1, height=4.0)
    axis = axes[0, 0]
    attack_curves(axis, data, "shadow_num", styles=line_styles(ordered_attacks(data)))
    ticks = sorted(set(data["shadow_num"]))
    axis.set(
        xscale="log",
        title=victim,
        xlabel="number of shadow models (log scale)",
        ylabel="attack accuracy (%)",
    )
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_xticks([], minor=True)
    add_legend(figure, attack_handles(data))
    return figure
