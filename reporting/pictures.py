"""Which numbers a section's figures show, and what is said beneath them.

Each function returns a `Picture`, or a sentence on why there is none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from defenders import accounting
from reporting import figures
from reporting.document import Picture
from reporting.privacy_plot import privacy
from reporting.summary import HEADLINE_SPARSITY, pareto
from reporting.wording import count

if TYPE_CHECKING:
    from bench.results import VictimResults

MAX_CURVES = 8  # attacks in a ROC figure


def sparsity_figure(summary: pd.DataFrame) -> Picture | str:
    """Attack accuracy against sparsity, of victims that differ in nothing else."""
    data = summary[summary["measure"] == "accuracy"]
    data = data.assign(sparsity=100 * data["prune_sparsity"])
    original = data[data["original"]].assign(sparsity=0.0)
    series = {}
    for title, points in data[~data["original"]].groupby("series", sort=False):
        if points["sparsity"].nunique() > 1:
            plain = (points["defend"] == "").all() and original["victim"].nunique() == 1
            series[str(title)] = pd.concat([original, points] if plain else [points])
    if not series:
        return "Attack accuracy against sparsity: no victim was pruned to more than one sparsity."
    shown = pd.concat(series.values())
    return Picture(
        "sparsity",
        "Attack accuracy against sparsity",
        "Accuracy of each attack over the share of weights that is pruned; at the left, beside "
        "the scale, the original. Bars are a standard deviation to both sides, shifted a little "
        f"so that they can be told apart; dotted: guessing. {count(shown)}.",
        figures.sparsity(series),
    )


def roc_figure(rows: pd.DataFrame, victims: list[str]) -> Picture | str:
    """ROC of the attacks with the largest AUC on the last of these victims."""
    areas = rows[rows["measure"] == "auc"]
    means = areas[areas["victim"] == victims[-1]].groupby("attack")["value"].mean().sort_values()
    best = means.index[::-1][:MAX_CURVES]
    grid = np.geomspace(1 / areas["non_members"].max(), 1, 300)
    runs = areas.groupby(["victim", "attack"])
    seeds = areas.assign(
        seeds=runs["seed"].transform("nunique"), trainings=runs["value"].transform("count")
    )
    curves_of = {
        victim: _mean_curves(areas[(areas["victim"] == victim) & areas["attack"].isin(best)], grid)
        for victim in victims
    }
    curves_of = {victim: curves for victim, curves in curves_of.items() if curves}
    if not curves_of:
        return "ROC: no scores of the attacks shown can be read."
    return Picture(
        "roc",
        "ROC",
        "True-positive rate over false-positive rate, both logarithmic, mean over seeds: the "
        f"{len(best)} attacks with the largest AUC on {victims[-1]}. Dashed: guessing. The axes "
        "begin at one false positive; nothing is interpolated. "
        f"{count(seeds[seeds['attack'].isin(best)])}.",
        figures.roc(curves_of),
    )


def _mean_curves(areas: pd.DataFrame, grid: np.ndarray) -> dict[str, figures.RocCurve]:
    """{attack: its mean ROC over a grid of FPRs}, of those whose scores can be read."""
    curves = {}
    for attack, runs in areas.groupby("attack"):
        each = [rates_within(row.victim_results, row.line, grid) for row in runs.itertuples()]
        readable = [tpr for tpr in each if tpr is not None]
        if readable:
            verdict, mean = runs["verdict"].iloc[0], np.mean(readable, axis=0)
            curves[str(attack)] = figures.RocCurve(verdict, grid, mean, runs["value"].mean())
    return curves


def rates_within(victim_results: VictimResults, line: dict, grid: np.ndarray) -> np.ndarray | None:
    """The largest TPR of a threshold whose FPR does not exceed each of the grid's, (n,).

    None where the scores of the line cannot be read.
    """
    from sklearn.metrics import roc_curve

    truth = victim_results.truth(line)
    if truth is None:
        return None
    fpr, tpr, _ = roc_curve(truth["member"], truth["scores"], drop_intermediate=False)
    return tpr[np.searchsorted(fpr, grid * (1 + 1e-9), side="right") - 1]


def low_fpr_figure(summary: pd.DataFrame, victims: list[str]) -> Picture | str:
    """TPR at low FPR of all attacks on these victims."""
    data = summary[summary["victim"].isin(victims)]
    order = ("tpr_at_0.01", "tpr_at_0.001", "tpr_at_0.1")
    measures = [measure for measure in order if (data["measure"] == measure).any()]
    if not measures:
        return "TPR at low FPR: too few non-members to tell such rates by."
    data = data[data["measure"].isin(measures)]
    return Picture(
        "low_fpr",
        "True-positive rate at low false-positive rates",
        "How many of the members an attacker names with few false alarms, sorted by the first "
        f"panel; {' (hatched) and '.join(victims)} (filled). Bars are a standard deviation to "
        f"both sides; dashed: guessing. {count(data)}.",
        figures.low_fpr({name: data[data["measure"] == name] for name in measures}, victims),
    )


def privacy_figure(summary: pd.DataFrame, accuracies: pd.DataFrame) -> Picture | str:
    """Test accuracy against the strongest of the attacks that were made on all victims."""
    data = summary[summary["measure"] == "accuracy"]
    common = set.intersection(*(set(rows["attack"]) for _, rows in data.groupby("victim")))
    if not common:
        return "Privacy against accuracy: no attack was made on all victims."
    if data["model"].nunique() < 2:
        return "Privacy against accuracy: there is one victim only."
    data = data[data["attack"].isin(common)]
    points = _privacy_points(data, accuracies)
    return Picture(
        "privacy",
        "Privacy against accuracy",
        "Each victim by its test accuracy and the accuracy of the strongest of the attacks that "
        "were made on all of them: "
        f"{', '.join(name for name in summary['attack'].unique() if name in common)}. Beside a "
        "point, where there is room, its sparsity and which attack that is; the tables have all. "
        "Filled: the strongest attacker, who may know the defence; hollow and joined to it: who "
        "does not. Ringed: the Pareto front, victims than which no other is as accurate and as "
        f"private. Means, {count(data)}.",
        privacy(points),
    )


def _privacy_points(data: pd.DataFrame, accuracies: pd.DataFrame) -> pd.DataFrame:
    """The points of `privacy_plot.privacy`, of attacks that were made on all victims."""
    strongest = data.loc[
        data.groupby("victim")["mean"].idxmax()
    ]  # by adaptive attackers and others
    worst = strongest.loc[strongest.groupby("model")["mean"].idxmax()].set_index("model")
    unaware = strongest[~strongest["adaptive"] & (strongest["defend"] != "")]
    points = accuracies[accuracies["model"].isin(worst.index)].set_index("model")
    original = points["original"].astype(bool)
    points = points.assign(
        worst=100 * worst["mean"],
        attack=worst["attack"],
        blind=100 * unaware.groupby("model")["mean"].max(),
        test=100 * points["test"],
        series=points["model_series"],
        defend=points["defend"].astype(object).where(~original, None),
    )
    pruned = points["prune_sparsity"].notna()
    at = (100 * points["prune_sparsity"]).map("{:g} % ".format).where(pruned, "")
    points["label"] = at + points["attack"]
    points["front"] = pareto(points["test"].to_numpy(), points["worst"].to_numpy())
    return points


def beyond_guarantee(rows: pd.DataFrame) -> str:
    """Which attacks on networks with a guarantee are surely better than it allows.

    "" where there is no such network.
    """
    private = rows[
        (rows["measure"] == "accuracy")
        & (rows["also"] == "")  # of other releases nothing is guaranteed
        & rows["from_scratch"]
        & rows["epsilon"].notna()
        & (rows["caveat"] == "")
    ]
    known = [
        (row, truth)
        for row in private.itertuples()
        if (truth := row.victim_results.truth(row.line)) is not None
    ]
    if not known:
        return ""
    beyond = [
        f"{row.attack} on {row.victim} (seed {row.seed})"
        for row, truth in known
        if accounting.beyond_guarantee(
            truth["scores"] >= truth["threshold"],
            truth["member"],
            epsilon=row.epsilon,
            delta=row.delta,
            tests=len(known),
        )
    ]
    return (
        f" Of {len(known)} attacks on networks with a guarantee, those surely better than it "
        f"allows (95 % over all): {', '.join(beyond) or 'none'}."
    )


def epsilon_figure(summary: pd.DataFrame, beyond: str = "") -> Picture | None:
    """Attack advantage against epsilon; None where no victim has one.

    Args:
        beyond: of `beyond_guarantee`, said in the caption.
    """
    finite = np.isfinite(summary["epsilon"]) & (summary["epsilon"] > 0)
    data = summary[(summary["measure"] == "accuracy") & finite]
    if data.empty:
        return None
    series, bounded, caveats = {}, set(), ""
    for name, rows in data.groupby("noise_series", sort=False):
        caveat = [text for text in rows["caveat"].unique() if text]
        title = "\n".join([str(name).replace(", ", "\n", 1), *caveat])
        series[title] = rows
        if rows["from_scratch"].all() and not caveat:
            bounded.add(title)
    for text in data["caveat"].unique():
        caveats += f" Of victims of seeded noise, {text}." if text else ""
    return Picture(
        "epsilon",
        "Epsilon against attack advantage",
        "Advantage, TPR - FPR = 2 accuracy - 1, of each attack on victims trained with "
        "differential privacy: of the network where it is trained from scratch, else of its "
        "fine-tuning only. Dash-dotted, where it is low enough to be in sight: what no attack on "
        f"the network can exceed, given epsilon and delta; dotted: guessing.{caveats}{beyond} "
        f"Bars are a standard deviation to both sides. delta {data['delta'].max():g}, "
        f"{count(data)}.",
        figures.epsilon(series, bounded, data["delta"].max()),
    )


def shadows_figure(summary: pd.DataFrame) -> Picture | None:
    """Attack accuracy against the number of shadow models; None where there is one number."""
    data = summary[(summary["measure"] == "accuracy") & (summary["defend"] == "")]
    numbers = data.groupby("model", sort=False)["shadow_num"].nunique()
    if numbers.empty or numbers.max() < 2:
        return None
    best = data[data["model"].isin(numbers[numbers == numbers.max()].index)]
    nearest = (best["prune_sparsity"] - HEADLINE_SPARSITY).abs().fillna(1).idxmin()
    victim = best.loc[nearest, "model"]
    data = data[data["model"] == victim]
    return Picture(
        "shadows",
        "Attack accuracy against the number of shadow models",
        f"Accuracy of each attack on {victim} by attackers with more or fewer shadow models. Bars "
        f"are a standard deviation to both sides. {count(data)}.",
        figures.shadows(data, victim),
    )
