"""Threshold attacks on one number a record (Song & Mittal, USENIX Security 2021, section 4)."""
from collections.abc import Callable

import numpy as np

from attackers.signals import Shadow, Signals, Verdict, posterior_and_complement

SMALLEST = 1e-30  # posteriors are clamped here before a logarithm


def confidence(p: np.ndarray, complement: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Conf: the posterior of the true class. p and 1 - p are (n, C), labels (n,); so below. Returns (n,)."""
    return p[np.arange(len(p)), labels]


def negative_entropy(p: np.ndarray, complement: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Xent: sum_i p_i ln p_i, the negated entropy. Its name is the reference's; the label is not used."""
    return (p * _log(p)).sum(axis=1)


def negative_modified_entropy(p: np.ndarray, complement: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mentr: (1 - p_y) ln p_y + sum_{i != y} p_i ln(1 - p_i) (their equation 8, negated)."""
    rows = np.arange(len(p))
    terms = p * _log(complement)
    terms[rows, labels] = complement[rows, labels] * _log(p[rows, labels])
    return terms.sum(axis=1)


def top1_confidence(p: np.ndarray, complement: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Top1-conf: the largest posterior."""
    return p.max(axis=1)


def _log(p: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(p, SMALLEST))


# name -> (score, larger = member; whether each class has a threshold of its own)
SCORES: dict[str, tuple[Callable, bool]] = {
    "conf": (confidence, True),
    "xent": (negative_entropy, True),
    "mentr": (negative_modified_entropy, True),
    "top1_conf": (top1_confidence, False),
}


def threshold(shadows: list[Shadow], target: Signals, **_) -> dict[str, Verdict]:
    """All four threshold attacks; thresholds are chosen on the pooled shadow records."""
    own = [posterior_and_complement(shadow.signals.logits) for shadow in shadows]
    labels = np.concatenate([shadow.signals.labels for shadow in shadows])
    member = np.concatenate([shadow.member for shadow in shadows])
    victim = posterior_and_complement(target.logits)
    verdicts = {}
    for name, (score, per_class) in SCORES.items():
        values = np.concatenate([score(*p, shadow.signals.labels) for p, shadow in zip(own, shadows)])
        limit = best_threshold(values[member], values[~member])
        if per_class:
            limit = class_thresholds(values, labels, member, num_cls=target.num_cls, default=limit)[target.labels]
        verdicts[name] = Verdict(score(*victim, target.labels), limit)
    return verdicts


def class_thresholds(values: np.ndarray, labels: np.ndarray, member: np.ndarray, *, num_cls: int,
                     default: float) -> np.ndarray:
    """The best threshold of each class, (C,); `default` for a class without members or without non-members."""
    limits = np.full(num_cls, default)
    for label in range(num_cls):
        here = labels == label
        ins, outs = values[here & member], values[here & ~member]
        if len(ins) and len(outs):
            limits[label] = best_threshold(ins, outs)
    return limits


def best_threshold(members: np.ndarray, others: np.ndarray) -> float:
    """The value among both that maximises (TPR + TNR) / 2 where value >= threshold means member.

    Of equally good ones the first counts, in the order members, then others, as in the published code,
    whose search over all pairs this replaces by one sort: O(n log n).
    """
    values = np.concatenate([members, others])
    order = np.argsort(values, kind="stable")
    in_order = values[order]
    first = np.searchsorted(in_order, in_order, side="left")  # of each run of ties: `>=` takes all of them
    members_below = np.concatenate([[0], np.cumsum(order < len(members))])[first]
    # TPR + TNR times both counts, in integers: equally good is exactly equal
    quality = (len(members) - members_below) * len(others) + (first - members_below) * len(members)
    return float(values[order[quality == quality.max()].min()])
