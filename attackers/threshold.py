"""Threshold attacks on one number a record (Song & Mittal, USENIX Security 2021, section 4)."""

from collections.abc import Callable

import numpy as np

from attackers.calibration import identity_score, threshold_attack
from attackers.evidence import Evidence, Verdict
from attackers.signals import LOG_FLOOR, Signals


def confidence(p: np.ndarray, complement: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Conf: the posterior of the true class. p and 1 - p are (n, C), labels (n,); so below. Returns
    (n,)."""
    return p[np.arange(len(p)), labels]


def negative_entropy(p: np.ndarray, complement: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Xent: sum_i p_i ln p_i, the negated entropy. Its name is the reference's; the label is not
    used."""
    return (p * _log(p)).sum(axis=1)


def negative_modified_entropy(
    p: np.ndarray, complement: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """Mentr: (1 - p_y) ln p_y + sum_{i != y} p_i ln(1 - p_i) (their equation 8, negated)."""
    rows = np.arange(len(p))
    terms = p * _log(complement)
    terms[rows, labels] = complement[rows, labels] * _log(p[rows, labels])
    return terms.sum(axis=1)


def top1_confidence(p: np.ndarray, complement: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Top1-conf: the largest posterior."""
    return p.max(axis=1)


def _log(p: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(p, LOG_FLOOR))


# name -> (statistic, larger = member; whether each class has a threshold of its own)
SCORES: dict[str, tuple[Callable, bool]] = {
    "conf": (confidence, True),
    "xent": (negative_entropy, True),
    "mentr": (negative_modified_entropy, True),
    "top1_conf": (top1_confidence, False),
}


def threshold(evidence: Evidence, **_) -> dict[str, Verdict]:
    """All four threshold attacks; thresholds are chosen on the pooled records of all shadows."""

    def of(score: Callable) -> Callable[[Signals, np.ndarray], np.ndarray]:
        return lambda signals, labels: score(*signals.posteriors(), labels)

    return {
        name: threshold_attack(evidence, of(score), identity_score, per_class=per_class)
        for name, (score, per_class) in SCORES.items()
    }
