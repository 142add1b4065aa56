"""Attacks on the loss: the baselines that others are held against, and two ways to account for
difficulty."""

import numpy as np

from attackers.calibration import identity_score, threshold_attack
from attackers.evidence import Evidence, Verdict
from attackers.signals import Signals, cross_entropy, mean_of_views
from attackers.statistic import MIN_SHADOWS, Statistic, mean_where


def loss(evidence: Evidence, **_) -> dict[str, Verdict]:
    """Minus the cross-entropy, one threshold for all (Yeom et al., CSF 2018)."""
    return {
        "loss": threshold_attack(
            evidence, lambda signals, labels: -cross_entropy(signals, labels), identity_score
        )
    }


def gap(evidence: Evidence, **_) -> dict[str, Verdict]:
    """1 where the victim is right, 0 where it is wrong (Yeom et al., CSF 2018), of several queries
    the mean; needs no shadow models."""
    right = mean_of_views(is_right, evidence.victim, evidence.labels)
    return {"gap": Verdict(right[evidence.target], 0.5)}


def is_right(signals: Signals, labels: np.ndarray) -> np.ndarray:
    """1 where the largest logit is the label's, else 0, (N,) float64."""
    return (signals.logits.argmax(axis=1) == labels).astype(np.float64)


def calibrated_score(loss: Statistic) -> np.ndarray:
    """Mean loss under the shadows trained without a record, minus the victim's: positive = easier
    than it should be.

    (n,) of the targets; NaN where fewer than two shadows are OUT.
    """
    target = loss.target
    return (
        mean_where(loss.shadows[:, target], ~loss.member[:, target], least=MIN_SHADOWS)
        - loss.victim[target]
    )


def calibrated(evidence: Evidence, **_) -> dict[str, Verdict]:
    """Difficulty calibration (Watson et al., ICLR 2022)."""
    return {"calibrated": threshold_attack(evidence, cross_entropy, calibrated_score)}


def population_score(loss: Statistic) -> np.ndarray:
    """Share of the population with a larger loss under the victim, (n,) of the targets."""
    population = np.sort(loss.victim[~loss.target])
    below_or_equal = np.searchsorted(population, loss.victim[loss.target], side="right")
    return 1.0 - below_or_equal / len(population)


def attack_p(evidence: Evidence, **_) -> dict[str, Verdict]:
    """Attack P: the loss against that of the population, known non-members (Ye et al., CCS
    2022)."""
    evidence.need_population()
    return {"attack_p": threshold_attack(evidence, cross_entropy, population_score)}
