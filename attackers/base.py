"""The Bayes-optimal attack (Lassila et al., "Practical Bayes-Optimal Membership Inference Attacks",
NeurIPS 2025).

Where a model is drawn in proportion to its likelihood of its records, the log-likelihood ratio of a
record (x, y) in training and not is log p(y | x) under the victim minus the log of its mean over
models without the record (Sablayrolles et al., ICML 2019). It needs no population. For the records
of one model the order is that of `rmia`'s ratio r(x) at the same temperature, without trimming:
online of either, offline with scale 1 here and a = 1 there.

Departures from the authors' code (aidotse/LeakPro), whose mean online is over all shadow models,
IN and OUT, and whose offline score takes 0.33 times the log of the mean over OUT models, at
temperature 2:

- online, IN and OUT models weigh alike, which is the same where a record has as many of either;
- temperature and, offline, the scale are chosen on the shadow models (`choose`), not fixed;
- means near a posterior of 1 keep the digits of 1 - p, so that sure records are no ties.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from attackers.calibration import threshold_attack
from attackers.evidence import Evidence, Verdict
from attackers.rmia import rank_auc
from attackers.signals import log_odds
from attackers.statistic import Statistic, mean_where

# of equally good settings the first counts
TEMPERATURES = (1.0, 2.0)  # the posterior as it is; the authors' code
SCALES = tuple(np.linspace(1, 0, 11).round(1).tolist())  # from Bayes' rule to no calibration


@dataclass(frozen=True)
class Settings:
    """What the score depends on beside the models' outputs.

    Attributes:
        temperature: the logits are divided by it.
        scale: 0 to 1, by which the log of the mean is multiplied; below 1 offline alone, where that
            mean lacks the models with the record.
    """

    temperature: float
    scale: float = 1.0


def log_posterior(signals, labels: np.ndarray, *, temperature: float) -> np.ndarray:
    """log of the true class's softmax with this temperature, (N,), with all digits next to 0."""
    return -np.logaddexp(0.0, -log_odds(signals, labels, temperature=temperature))


def log_mean(log_p: np.ndarray, chosen: np.ndarray, *, least: int = 1) -> np.ndarray:
    """log of the mean of exp(log_p) (S, n) over the chosen of each column, (n,); NaN where they are
    fewer than `least`.

    As the largest value plus log1p of the mean of expm1 of the distances to it: a mean of
    posteriors 1 - q keeps the digits of q, where the mean itself would be rounded to 1.
    """
    largest = np.where(chosen, log_p, -np.inf).max(axis=0, initial=-np.inf)
    largest = np.where(chosen.any(axis=0), largest, 0.0)
    below = np.expm1(np.where(chosen, log_p, largest) - largest)
    return largest + np.log1p(mean_where(below, chosen, least=least))


def log_evidence(log_p: Statistic, *, online: bool) -> np.ndarray:
    """log of the targets' mean posterior under the shadow models, (n,): offline of those OUT,
    online of the means over IN and over OUT; NaN where there is no model of a kind."""
    shadows, member = log_p.shadows[:, log_p.target], log_p.member[:, log_p.target]
    of_out = log_mean(shadows, ~member)
    if not online:
        return of_out
    both = np.stack([log_mean(shadows, member), of_out])
    return log_mean(both, ~np.isnan(both), least=2)


def score(log_p: Statistic, *, scale: float = 1.0, online: bool) -> np.ndarray:
    """log p(y | x) under the victim minus scale times the log of its mean under the shadow models,
    (n,) of the targets."""
    return log_p.victim[log_p.target] - scale * log_evidence(log_p, online=online)


def choose(evidence: Evidence) -> Settings:
    """The settings of the largest mean AUC over the shadows, each in turn the victim.

    Shadows count that know members and non-members. The AUC, which all records enter: the TPR at a
    low FPR of a shadow hangs on a handful.
    """
    best, largest = Settings(TEMPERATURES[0]), -np.inf
    for temperature in TEMPERATURES:
        log_p = evidence.measure(partial(log_posterior, temperature=temperature))
        for scale, quality in _mean_aucs(log_p, evidence.online):
            if quality > largest:
                best, largest = Settings(temperature, scale), quality
    return best


def _mean_aucs(log_p: Statistic, online: bool) -> Iterator[tuple[float, float]]:
    """Each scale, 1 alone online, and its mean AUC over the shadows."""
    aucs: dict[float, list[float]] = {scale: [] for scale in (SCALES[:1] if online else SCALES)}
    for role, member in log_p.leave_one_out():
        mean = log_evidence(role, online=online)
        known = ~np.isnan(mean)
        if not 0 < member[known].sum() < known.sum():
            continue
        victim = role.victim[role.target][known]
        for scale, of_shadows in aucs.items():
            of_shadows.append(rank_auc(victim - scale * mean[known], member[known]))
    for scale, of_shadows in aucs.items():
        yield scale, float(np.mean(of_shadows)) if of_shadows else -np.inf


def base(evidence: Evidence, **_) -> dict[str, Verdict]:
    """Online where shadows were trained on targets too, else offline.

    Raises NotApplicable where the shadows are too few for one to play the victim.
    """
    settings = choose(evidence)
    verdict = threshold_attack(
        evidence,
        partial(log_posterior, temperature=settings.temperature),
        partial(score, scale=settings.scale, online=evidence.online),
    )
    chosen = {"temperature": settings.temperature}
    if not evidence.online:
        chosen["scale"] = settings.scale
    return {"base": replace(verdict, chosen=chosen)}
