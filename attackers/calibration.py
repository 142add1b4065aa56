"""Thresholds from shadow models alone."""

from collections.abc import Callable

import numpy as np

from attackers.evidence import Evidence, Verdict
from attackers.signals import Signals
from attackers.statistic import Statistic
from core.console import NotApplicable


def threshold_attack(
    evidence: Evidence,
    statistic: Callable[[Signals, np.ndarray], np.ndarray],
    score: Callable[[Statistic], np.ndarray],
    *,
    per_class: bool = False,
    measure: Callable[..., Statistic] = Evidence.measure,
) -> Verdict:
    """Score the targets; the threshold is what serves best where each shadow in turn plays the
    victim.

    Args:
        statistic: (signals, labels) -> (N,), one number a record and model.
        score: takes what was measured, returns a number for each of its targets; NaN where it
            cannot tell.
        per_class: a threshold for each class, by the shadows' records of that class; the global one
            for a class without members or without non-members.
        measure: how the statistic is taken: `Evidence.measure`, `measure_views` or
            `measure_releases`.
    Raises:
        NotApplicable: the shadows are too few for one to play the victim.
    """
    played = measure(evidence, statistic)
    each = np.full(played.every_member.shape, np.nan)
    for role, _ in played.leave_one_out():
        each[role.as_victim, role.target] = score(role)
    scores, member, sure = pooled_scores(played, lambda role: each[role.as_victim, role.target])
    threshold = best_threshold(scores[member], scores[~member])
    if per_class:
        labels = np.concatenate([evidence.labels[mask] for mask in evidence.calibration_mask])[sure]
        limits = class_thresholds(
            scores, labels, member, num_cls=evidence.victim.logits.shape[1], default=threshold
        )
        threshold = limits[evidence.labels[evidence.target]]
    return Verdict(score(played), threshold, shadow_scores=each)


def pooled_scores(
    played: Statistic, score: Callable[[Statistic], np.ndarray]
) -> tuple[np.ndarray, ...]:
    """The scores (m,) of all shadows' targets, each shadow in turn as the victim, and who of them
    is a member (m,).

    Scores that are NaN are left out; the third array, (M,) bool of all targets in this order, tells
    of which they are.

    Raises:
        NotApplicable: too few shadows for one to play the victim: of members or of non-members no
            score is known.
    """
    scores, member = (
        np.concatenate(parts)
        for parts in zip(*((score(role), truth) for role, truth in played.leave_one_out()))
    )
    sure = ~np.isnan(scores)
    scores, member = scores[sure], member[sure]
    if member.all() or not member.any():
        raise NotApplicable(
            f"no threshold can be found on {len(played.every_shadow)} shadow models: where one plays the "
            f"victim, too few others are left that were trained without a record (or with it)"
        )
    return scores, member, sure


def identity_score(measured: Statistic) -> np.ndarray:
    """The score that is a record's number itself."""
    return measured.victim[measured.target]


def class_thresholds(
    values: np.ndarray, labels: np.ndarray, member: np.ndarray, *, num_cls: int, default: float
) -> np.ndarray:
    """The best threshold of each class, (C,); `default` for a class without members or without
    non-members."""
    limits = np.full(num_cls, default)
    for label in range(num_cls):
        of_class = labels == label
        ins, outs = values[of_class & member], values[of_class & ~member]
        if len(ins) and len(outs):
            limits[label] = best_threshold(ins, outs)
    return limits


def best_threshold(members: np.ndarray, others: np.ndarray) -> float:
    """The value among both that maximises (TPR + TNR) / 2 where value >= threshold means member.

    Of equally good ones the first counts, in the order members, then others, as in the published
    code, whose search over all pairs this replaces by one sort: O(n log n).
    """
    return best_threshold_and_rate(members, others)[0]


def best_threshold_and_rate(members: np.ndarray, others: np.ndarray) -> tuple[float, float]:
    """The threshold of `best_threshold`, and (TPR + TNR) / 2 there."""
    values = np.concatenate([members, others])
    order = np.argsort(values, kind="stable")
    in_order = values[order]
    # the first of each run of ties: `>=` takes all of them
    first = np.searchsorted(in_order, in_order, side="left")
    members_below = np.concatenate([[0], np.cumsum(order < len(members))])[first]
    # TPR + TNR times both counts, in integers: equally good is exactly equal
    quality = (len(members) - members_below) * len(others) + (first - members_below) * len(members)
    best = quality.max()
    threshold = float(values[order[quality == best].min()])
    return threshold, float(best / (2 * len(members) * len(others)))
