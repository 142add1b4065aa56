"""The figures of a report: numbers in, a `Picture` out.

An attack has the same colour, line and marker in each; colours are Okabe & Ito's, which the colour-blind tell apart.
"""

from __future__ import annotations

import functools
import io
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from attackers import VERDICTS
from defenders import DEFENDERS
from defenders.accounting import advantage_bound

if TYPE_CHECKING:
    import pandas as pd

WIDTH, PIXELS = 9.0, 192  # inches, which a page shows as 96 pixels each; of the image, an inch
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
LINES, MARKERS = ("-", "--", ":"), "osD^vPX<>"
MEMBER, OTHER = "#D55E00", "#0072B2"
STYLE = {
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


@dataclass(frozen=True)
class Picture:
    """A figure as a page shows it; `name` is that of its file, `png` its content."""

    name: str
    title: str
    caption: str
    png: bytes


@dataclass(frozen=True, eq=False)
class Answers:
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


def look(attack: str) -> dict:
    """Colour, line and marker of an attack, or of one with options behind its name."""
    names = list(VERDICTS)
    name = attack.split()[0]
    place = names.index(name) if name in names else len(names)  # one that is no more registered
    return {
        "color": COLOURS[place % len(COLOURS)],
        "marker": MARKERS[place % len(MARKERS)],
        "linestyle": LINES[place // len(COLOURS) % len(LINES)],
    }


def _panels(rows: int, columns: int, *, height: float, **how) -> tuple[Figure, np.ndarray]:
    """An empty figure of the page's width; `height` of a row, inches."""
    figure = Figure(figsize=(WIDTH, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **how)


def _drawn(draw: Callable[..., Figure]) -> Callable[..., bytes]:
    """Decorate what draws a figure: it is drawn in STYLE, and its PNG returned."""

    @functools.wraps(draw)
    def png(*args, **kwargs) -> bytes:
        buffer = io.BytesIO()
        with matplotlib.rc_context(STYLE):
            draw(*args, **kwargs).savefig(
                buffer, format="png", dpi=PIXELS, metadata={"Software": None}
            )
        return buffer.getvalue()

    return png


def _legend(figure: Figure, handles: list, **how) -> None:
    figure.legend(handles=handles, loc="outside right upper", **how)


def _logarithmic(axis, direction: str, low: float, high: float, *, scale: float = 1.0) -> None:
    """Make an axis logarithmic from `low` to `high`, with plain numbers, times `scale`, at some three ticks or more."""
    getattr(axis, f"set_{direction}scale")("log")
    getattr(axis, f"set_{direction}lim")(low, high)
    ticks = getattr(axis, f"{direction}axis")
    ticks.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 50 * low else (1,), numticks=20))
    ticks.set_major_formatter(FuncFormatter(lambda at, _: f"{scale * at:g}"))
    ticks.set_minor_formatter(NullFormatter())


def _handles(attacks: Iterable[str]) -> list[Line2D]:
    return [Line2D([], [], label=attack, **look(attack)) for attack in attacks]


def _curves(
    axis, data: pd.DataFrame, x: str, *, shift: float = 0.0, scale: float = 100, offset: float = 0.0
) -> None:
    """A line for each attack over column `x`, with a bar of a standard deviation to both sides."""
    there = data["attack"].str.split().str[0].unique().tolist()
    attacks = [name for name in VERDICTS if name in there] + [
        name for name in there if name not in VERDICTS
    ]
    for attack, points in data.sort_values(x).groupby("attack", sort=False):
        beside = shift * (
            attacks.index(attack.split()[0]) - len(attacks) / 2
        )  # so that bars don't hide one another
        axis.errorbar(
            points[x] + beside,
            scale * points["mean"] - offset,
            scale * points["sd"].fillna(0.0),
            elinewidth=0.8,
            ecolor=(look(attack)["color"], 0.4),
            **look(attack),
        )


def _in_order(data: pd.DataFrame) -> list[str]:
    """The attacks, as they are registered; a mean to sort by would be over other victims and seeds for each."""
    names = list(VERDICTS)
    return sorted(
        data["attack"].unique(),
        key=lambda name: (
            names.index(name.split()[0]) if name.split()[0] in names else len(names),
            name,
        ),
    )


@_drawn
def sparsity(series: dict[str, pd.DataFrame]) -> Figure:
    """Attack accuracy over sparsity: a panel for each series, with columns attack, sparsity (%), mean, sd."""
    import pandas as pd

    columns = min(len(series), 3)
    figure, axes = _panels(
        -(-len(series) // columns), columns, height=3.6, sharey=True, sharex=True
    )
    there = np.unique(pd.concat(series.values()).query("sparsity > 0")["sparsity"])
    step = np.diff(there).mean()
    beside = there[0] - step  # the original, which has no place on this axis
    for axis, (title, data) in itertools.zip_longest(
        axes.flat, series.items(), fillvalue=(None, None)
    ):
        if data is None:
            axis.set_visible(False)
            continue
        data = data.assign(sparsity=data["sparsity"].where(data["sparsity"] > 0, beside))
        _curves(axis, data, "sparsity", shift=step / 45)
        axis.axhline(50, color="#777777", linewidth=0.8, linestyle=(0, (1, 2)))
        axis.set_xticks([beside, *there], ["original", *(f"{tick:g}" for tick in there)])
        axis.set(title=title.replace(", ", "\n", 1), xlabel="sparsity (% of weights pruned)")
        axis.xaxis.set_tick_params(labelbottom=True)
    for axis in axes[:, 0]:
        axis.set_ylabel("attack accuracy (%)")
    _legend(figure, _handles(_in_order(pd.concat(series.values()))))
    return figure


@_drawn
def roc(panels: dict[str, dict[str, tuple[np.ndarray, np.ndarray, float]]]) -> Figure:
    """ROC on two logarithmic axes: {panel: {attack: (FPR, mean TPR, AUC)}}."""
    figure, axes = _panels(1, len(panels), height=4.4, sharey=True, sharex=True)
    for axis, (title, curves) in zip(axes[0], panels.items()):
        low = min(float(fpr[0]) for fpr, _, _ in curves.values())
        axis.plot([low, 1], [low, 1], linestyle=(0, (4, 3)), color="#777777", linewidth=0.9)
        for attack, (fpr, tpr, area) in sorted(curves.items(), key=lambda item: -item[1][2]):
            axis.plot(
                fpr,
                np.where(tpr > 0, tpr, np.nan),
                label=f"{attack}  {100 * area:.1f}",
                markevery=max(1, len(fpr) // 8),
                **look(attack),
            )
        axis.legend(title="AUC (%)", loc="lower right", handlelength=2.6)
        axis.set(title=title, xlabel="false-positive rate (%)")
        _logarithmic(axis, "x", low, 1, scale=100)
        _logarithmic(axis, "y", low, 1.05, scale=100)
    axes[0, 0].set_ylabel("true-positive rate (%)")
    return figure


@_drawn
def low_fpr(panels: dict[str, pd.DataFrame], victims: list[str]) -> Figure:
    """TPR at low FPR as bars: {title: columns attack, victim, mean, sd}; the last victim's bars are filled."""
    order = list(panels.values())[0]
    attacks = order[order["victim"] == victims[-1]].sort_values("mean")["attack"].tolist()
    figure, axes = _panels(1, len(panels), height=0.34 * len(attacks) + 1.6, sharey=True)
    for axis, (title, data) in zip(axes[0], panels.items()):
        data = data[data["attack"].isin(attacks)]
        for attack, victim, mean, sd in data[["attack", "victim", "mean", "sd"]].itertuples(
            index=False, name=None
        ):
            colour, last = look(attack)["color"], victim == victims[-1]
            beside = 0.4 * (len(victims) - 1) / 2 - 0.4 * victims.index(victim)
            axis.barh(
                attacks.index(attack) + beside,
                100 * mean,
                height=0.38,
                xerr=0 if np.isnan(sd) else 100 * sd,
                color=colour if last else "white",
                edgecolor=colour,
                hatch=None if last else "////",
                linewidth=0.8,
                error_kw={"elinewidth": 0.8, "ecolor": "#444444"},
            )
        axis.set(
            title=title,
            xlabel="true-positive rate (%)",
            yticks=range(len(attacks)),
            yticklabels=attacks,
        )
        axis.set_xlim(0, axis.get_xlim()[1])
        axis.axvline(
            float(title.split()[-2]), color="#777777", linewidth=0.9, linestyle=(0, (4, 3))
        )
        axis.grid(axis="y", visible=False)
    from matplotlib.patches import Patch

    grey = [
        Patch(
            facecolor="#666666" if victim == victims[-1] else "white",
            edgecolor="#666666",
            label=victim,
            hatch=None if victim == victims[-1] else "////",
        )
        for victim in victims
    ]
    figure.legend(
        handles=[*grey, Line2D([], [], color="#777777", linestyle=(0, (4, 3)), label="guessing")],
        loc="outside lower center",
        ncols=3,
    )
    return figure


AXES = {
    "confidence": "confidence: posterior of the true class",
    "sensitivity": "sensitivity of the true class's posterior (log scale)",
}


@_drawn
def histograms(rows: dict[str, dict[str, Answers]]) -> Figure:
    """Members and non-members apart: a row for each victim, a column for confidence and for sensitivity."""
    whats = list(next(iter(rows.values())))
    figure, axes = _panels(len(rows), len(whats), height=2.9, sharex="col", sharey="col")
    for (victim, row), line in zip(rows.items(), axes):
        for axis, what in zip(line, whats):
            answers = row[what]
            bins = np.linspace(0, 1, 41)
            if what == "sensitivity":
                every = np.concatenate([other[what].value for other in rows.values()])
                floor = max(every.max() * 1e-8, every[every > 0].min(initial=every.max() or 1.0))
                bins = np.geomspace(floor, max(every.max(), 2 * floor) * 1.01, 41)
            for kind, colour, hatch, here in (
                ("members", MEMBER, None, answers.member),
                ("non-members", OTHER, "////", ~answers.member),
            ):
                value = np.maximum(answers.value[here], bins[0])
                mean = answers.value[here].mean()
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
            axis.set(title=victim, yscale="log", xlabel=AXES[what], ylabel="share of records (%)")
            axis.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:g}"))
            if what == "sensitivity":
                _logarithmic(axis, "x", bins[0], bins[-1])
            axis.xaxis.set_tick_params(labelbottom=True)
            axis.legend(
                loc="lower center",
                bbox_to_anchor=(0.5, 1.1),
                ncols=2,
                handlelength=1.4,
                columnspacing=1.2,
            )
    return figure


def class_means(answers: Answers, *, least: int) -> pd.DataFrame:
    """Mean of members and of non-members of each class, those of fewer than `least` of either left out."""
    import pandas as pd

    means = {}
    for label in np.unique(answers.labels):
        here = answers.labels == label
        inside, outside = (
            answers.value[here & answers.member],
            answers.value[here & ~answers.member],
        )
        if min(len(inside), len(outside)) >= least:
            means[int(label)] = {"members": inside.mean(), "non_members": outside.mean()}
    table = pd.DataFrame.from_dict(means, orient="index", columns=["members", "non_members"])
    return table.assign(gap=table["members"] - table["non_members"])


@_drawn
def by_class(panels: dict[str, pd.DataFrame], what: str) -> Figure:
    """A dumbbell for each class: {victim: `class_means`}, sorted by the gap of the last victim."""
    order = list(panels.values())[-1]["gap"].abs().sort_values().index
    figure, axes = _panels(1, len(panels), height=0.19 * len(order) + 1.5, sharey=True, sharex=True)
    for axis, (victim, means) in zip(axes[0], panels.items()):
        means = means.reindex(order)
        places = np.arange(len(order))
        axis.hlines(
            places, means["members"], means["non_members"], color="#999999", linewidth=1.6, zorder=2
        )
        axis.plot(means["members"], places, "o", color=MEMBER, label="members", zorder=3)
        axis.plot(
            means["non_members"],
            places,
            "D",
            color=OTHER,
            label="non-members",
            markersize=4.5,
            zorder=3,
        )
        axis.set(
            title=f"{victim}\nmean gap {means['gap'].mean():.3g}, largest {means['gap'].abs().max():.3g}",
            xlabel=f"mean {AXES[what].replace(' (log scale)', '')}",
            yticks=places,
            yticklabels=order,
            ylim=(-0.7, len(order) - 0.3),
        )
    axes[0, 0].set_ylabel("class, largest gap at the top")
    _legend(figure, axes[0, 0].get_legend_handles_labels()[0])
    return figure


@_drawn
def privacy(points: pd.DataFrame) -> Figure:
    """Victims by test accuracy and by their strongest attack.

    `points` has columns series, defend, label, test, attack, worst (its accuracy under the strongest attacker), blind
    (under one that doesn't know the defence; NaN where not attacked so), front (bool); accuracies in percent.
    """
    figure, axes = _panels(1, 1, height=5.0)
    axis, series = axes[0, 0], list(dict.fromkeys(points["series"]))
    defences, handles = list(DEFENDERS), []
    for name in series:
        here = points[points["series"] == name]
        first = here.iloc[0]
        colour = (
            "#777777"
            if first["defend"] is None
            else COLOURS[(defences.index(first["defend"]) + 4) % len(COLOURS)]
        )
        same = [
            other
            for other in series
            if points[points["series"] == other].iloc[0]["defend"] == first["defend"]
        ]
        marker = MARKERS[same.index(name) % len(MARKERS)] if first["defend"] is not None else "*"
        size = 10 if marker == "*" else 7
        axis.vlines(here["test"], here["blind"], here["worst"], color=colour, linewidth=1)
        axis.plot(
            here["test"],
            here["blind"],
            marker,
            color=colour,
            markerfacecolor="white",
            markersize=size,
        )
        axis.plot(here["test"], here["worst"], marker, color=colour, markersize=size)
        handles.append(
            Line2D([], [], linestyle="", marker=marker, color=colour, label=name, markersize=size)
        )
    front = points[points["front"]].sort_values("test")
    axis.step(
        front["test"],
        front["worst"],
        where="pre",
        color="#444444",
        linewidth=1,
        linestyle="--",
        zorder=1,
    )
    axis.plot(
        front["test"], front["worst"], "o", color="#444444", markerfacecolor="none", markersize=13
    )
    axis.set(
        xlabel="test accuracy of the victim (%)",
        ylabel="accuracy of the strongest attack (%; 50 = guessing)",
    )
    axis.margins(0.1)
    handles += [
        Line2D(
            [],
            [],
            linestyle="",
            marker="o",
            color="#777777",
            markerfacecolor="white",
            label="does not know\nthe defence",
        ),
        Line2D(
            [],
            [],
            linestyle="--",
            marker="o",
            color="#444444",
            markerfacecolor="none",
            markersize=11,
            label="Pareto front",
        ),
    ]
    _legend(figure, handles, title="victims")
    _place_labels(figure, axis, points)
    return figure


def _place_labels(figure: Figure, axis, points: pd.DataFrame) -> None:
    """Name each point where its name hides no other name or point; leave it out where there is no such place."""
    figure.draw_without_rendering()
    spots = axis.transData.transform(
        np.concatenate([points[["test", "worst"]], points[["test", "blind"]].dropna()])
    )
    gap = 10 * figure.dpi / 72  # from a point's middle to its name
    taken = [(x - 0.7 * gap, y - 0.7 * gap, x + 0.7 * gap, y + 0.7 * gap) for x, y in spots]
    for (x, y), label in zip(spots, points["label"]):
        width, height = 5.0 * len(label) * figure.dpi / 72, 10 * figure.dpi / 72
        for right, up in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1)):
            left, low = (
                x + right * gap - width * (1 - right) / 2,
                y + up * gap - height * (1 - up) / 2,
            )
            box = (left, low, left + width, low + height)
            inside = (
                axis.bbox.x0 < box[0]
                and box[2] < axis.bbox.x1
                and axis.bbox.y0 < box[1]
                and box[3] < axis.bbox.y1
            )
            if inside and not any(
                box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken
            ):
                taken.append(box)
                point, middle = axis.transData.inverted().transform(
                    [(x, y), (left + width / 2, low + height / 2)]
                )
                axis.annotate(
                    label,
                    point,
                    middle,
                    fontsize=9,
                    color="#333333",
                    ha="center",
                    va="center",
                    bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 0.5},
                    arrowprops={"arrowstyle": "-", "color": "#999999", "linewidth": 0.6},
                    in_layout=False,
                )  # else the axes would move under it
                break


@_drawn
def epsilon(panels: dict[str, pd.DataFrame], bounded: set[str], delta: float) -> Figure:
    """Attack advantage over epsilon: {panel: columns attack, epsilon, mean, sd}; `bounded` panels get
    `accounting.advantage_bound`."""
    import pandas as pd

    columns, every, seen = min(len(panels), 2), pd.concat(panels.values())["epsilon"], False
    figure, axes = _panels(
        -(-len(panels) // columns), columns, height=3.4, sharey=True, sharex=True
    )
    for axis in list(axes.flat)[len(panels) :]:
        axis.set_visible(False)
    for axis, (title, data) in zip(axes.flat, panels.items()):
        _curves(axis, data, "epsilon", scale=200, offset=100)
        axis.axhline(0, color="#777777", linewidth=0.8, linestyle=(0, (1, 2)))
        axis.set(title=title, xlabel="epsilon of the victim (log scale)")
        axis.xaxis.set_tick_params(labelbottom=True)
        _logarithmic(axis, "x", every.min() / 1.3, every.max() * 1.3)
        top = axis.get_ylim()
        if title in bounded:
            grid = np.geomspace(every.min() / 1.3, every.max() * 1.3, 200)
            limit = 100 * advantage_bound(grid, delta)
            seen |= bool(limit.min() < top[1])
            axis.plot(grid, limit, color="#777777", linestyle="-.")
            axis.set_ylim(top)
    for axis in axes[:, 0]:
        axis.set_ylabel("attack advantage, TPR - FPR (%)")
    bound = [Line2D([], [], color="#777777", linestyle="-.", label="bound")] if seen else []
    _legend(figure, [*_handles(_in_order(pd.concat(panels.values()))), *bound])
    return figure


@_drawn
def shadows(data: pd.DataFrame, victim: str) -> Figure:
    """Attack accuracy over the number of shadow models: columns attack, shadow_num, mean, sd."""
    figure, axes = _panels(1, 1, height=4.0)
    axis = axes[0, 0]
    _curves(axis, data, "shadow_num")
    ticks = sorted(set(data["shadow_num"]))
    axis.set(
        xscale="log",
        title=victim,
        xlabel="number of shadow models (log scale)",
        ylabel="attack accuracy (%)",
    )
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_xticks([], minor=True)
    _legend(figure, _handles(_in_order(data)))
    return figure
