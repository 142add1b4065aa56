"""The figures of an audit's page: arrays in, a PNG out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from attackers.metrics import FPRS, score_to_exceed
from auditing.result import AttackResult, Audit
from auditing.wording import attack_text
from reporting.style import GREY, MEMBER, NON_MEMBER, as_png, line_styles, logarithmic

SIZE = (5.2, 3.5)  # inches, two side by side
CURVES = 4  # the strongest, the same on the original, and others
MOST_BINS, LEAST_BINS = 50, 10
FEW_VALUES = 12  # as many different scores have bars of their own


@dataclass(frozen=True, eq=False)
class Curve:
    """An attack's scores (n,) under the name that the legend has for it."""

    label: str
    attack: AttackResult


def curves(audit: Audit) -> list[Curve]:
    """The strongest attack, the same on the original, and the next best of other names."""
    if audit.strongest is None:
        return []
    strongest = audit.attacks[audit.strongest]
    others = sorted(
        (one for one in audit.attacks if one is not strongest and _is_drawn(one)),
        key=lambda one: -one.measures["auc"],
    )
    same = [one for one in others if one.name == strongest.name and one.release == "original"]
    next_best = [one for one in others if one.name != strongest.name and one.release != "original"]
    chosen = [*([strongest] if _is_drawn(strongest) else []), *same, *next_best][:CURVES]
    return [Curve(attack_text(one), one) for one in chosen]


def _is_drawn(attack: AttackResult) -> bool:
    """Whether a ROC says more of an attack than a point."""
    return attack.measures["auc"] is not None and len(np.unique(attack.scores)) > 2


@as_png
def roc(chosen: list[Curve], member: np.ndarray, smallest_fpr: float | None) -> Figure:
    """ROC on two logarithmic axes; grey where there are too few non-members to tell."""
    from sklearn.metrics import roc_curve

    figure = Figure(figsize=SIZE, layout="constrained")
    axis = figure.subplots()
    low = min(0.1, 1 / (~member).sum())
    styles = line_styles({one.label: one.attack.name for one in chosen})
    axis.plot([low, 1], [low, 1], linestyle=(0, (4, 3)), color=GREY, label="guessing")
    for one in chosen:
        fpr, tpr, _ = roc_curve(member, one.attack.scores, drop_intermediate=True)
        axis.plot(
            fpr,
            np.where(tpr > 0, tpr, np.nan),
            drawstyle="steps-post",
            markevery=0.15,
            label=f"{one.label}  {one.attack.measures['auc']:.3f}",
            **styles[one.label],
        )
    unresolved = 1.0 if smallest_fpr is None else smallest_fpr
    axis.axvspan(low, unresolved, color="#f0f0f0", zorder=0)
    axis.set(xlabel="false-positive rate (%)", ylabel="true-positive rate (%)")
    logarithmic(axis, "x", low, 1, scale=100)
    logarithmic(axis, "y", low, 1.05, scale=100)
    axis.legend(title="AUC", loc="lower right", handlelength=2.4)
    return figure


@as_png
def score_histogram(attack: AttackResult, member: np.ndarray) -> Figure:
    """How members and non-members score, each as a share of their own, and the 1 % threshold.

    Scores beyond the middle 99 % are counted in the outermost bins; scores of few different values
    have a pair of bars each.
    """
    figure = Figure(figsize=SIZE, layout="constrained")
    axis = figure.subplots()
    values = np.unique(attack.scores)
    of_kind = {"non-members": attack.scores[~member], "members": attack.scores[member]}
    if len(values) <= FEW_VALUES:
        for shift, (kind, scores) in zip((-0.2, 0.2), of_kind.items()):
            shares = [100 * float((scores == value).mean()) for value in values]
            axis.bar(np.arange(len(values)) + shift, shares, width=0.38, label=kind, **_fill(kind))
        axis.set_xticks(range(len(values)), [f"{value:g}" for value in values])
    else:
        low, high = np.quantile(attack.scores, [0.005, 0.995])
        bins = np.clip(np.sqrt(len(member)), LEAST_BINS, MOST_BINS)
        edges = np.linspace(low, high, int(bins) + 1)
        for kind, scores in of_kind.items():
            weights = np.full(len(scores), 100 / len(scores))
            axis.hist(
                np.clip(scores, low, high),
                edges.tolist(),
                weights=weights,
                histtype="stepfilled",
                label=kind,
                **_fill(kind),
            )
        if attack.estimate("tpr_at_0.01"):
            threshold = score_to_exceed(of_kind["non-members"], limit=FPRS[1])
            at = np.clip(threshold, low, high)
            axis.axvline(at, color="black", linewidth=1, linestyle="--", label="FPR 1 %")
    axis.set(xlabel=f"score of {attack.name} (larger: rather a member)", ylabel="share (%)")
    axis.legend(loc="best")
    return figure


def histogram_note(attack: AttackResult) -> str:
    """What a reader of `score_histogram` has to know beside its axes; begins with a space."""
    if len(np.unique(attack.scores)) <= FEW_VALUES:
        return ""
    line = ""
    if attack.estimate("tpr_at_0.01"):
        line = " Right of the dashed line lie 1\N{NO-BREAK SPACE}% of the non-members."
    return " The outermost bars take the scores beyond them." + line


def _fill(kind: str) -> dict:
    """Members are hatched and outlined, so that they are told apart without colour."""
    if kind == "members":
        return {"facecolor": "none", "edgecolor": MEMBER, "hatch": "////", "linewidth": 1.2}
    return {"facecolor": (NON_MEMBER, 0.45), "edgecolor": NON_MEMBER, "linewidth": 0.8}
