"""Bayesian variance inference (Brännvall, "Exponential-Family Membership Inference: From LiRA and
RMIA to BaVarIA", 2026).

`lira`'s Gaussians, with a prior for each record's mean and variance in place of the choice between
a variance of its own and one for all: of the n values x of a record under shadow models of a kind,

    x ~ N(mu, sigma^2), mu ~ N(m, sigma^2 / kappa), sigma^2 ~ InverseGamma(alpha, beta),

the next is a Student-t with 2 alpha_n degrees of freedom, location m_n and scale^2 = beta_n
(kappa_n + 1) / (alpha_n kappa_n), where

    kappa_n = kappa + n, alpha_n = alpha + n / 2, m_n = (kappa m + n mean) / kappa_n and
    beta_n = beta + sum (x - mean)^2 / 2 + kappa n (mean - m)^2 / (2 kappa_n).

That is the form which the paper calls BaVarIA-t.

What the paper's abstract leaves open is ours:

- m, kappa, alpha and beta are those of the largest marginal likelihood of all records of the shadow
  models (empirical Bayes), one prior for IN and one for OUT. They are fitted once: where a shadow
  plays the victim, its values are among those of the prior, which all records share, and not among
  those of any record's n.
- Offline the score is one-sided, as `lira`'s is: how unlikely so high a value of a non-member is.
- One shadow model of a kind is enough for a score.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.optimize import minimize
from scipy.special import digamma, gammaln
from scipy.stats import t as student_t

from attackers.calibration import threshold_attack
from attackers.evidence import Evidence, Verdict
from attackers.lira import RESOLUTION
from attackers.signals import log_odds
from attackers.statistic import Statistic, mean_where
from core.console import NotApplicable

# kappa, alpha: from next to no prior to one that no number of shadow models outweighs, where a
# likelihood that grows without end stops
LIMITS = {"kappa": (1e-6, 1e6), "alpha": (0.1, 1e4)}
START_ALPHA = 2.0


@dataclass(frozen=True)
class Prior:
    """A normal-inverse-gamma distribution of a record's mean and variance.

    Attributes:
        mean: of the records' means.
        kappa: how many values the prior of the mean is worth.
        alpha, beta: of the variance; 2 alpha values of variance beta / alpha.
    """

    mean: float
    kappa: float
    alpha: float
    beta: float


@dataclass(frozen=True, eq=False)
class RecordSums:
    """What a Gaussian's likelihood depends on, of each of n records.

    Attributes:
        count: (n,), of its values.
        mean: (n,), of these; 0 where there are none.
        squares: (n,), sum of their squared distances to it.
    """

    count: np.ndarray
    mean: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(cls, phi: np.ndarray, chosen: np.ndarray) -> RecordSums:
        """Of phi (S, n) over the chosen shadows of each record."""
        count = chosen.sum(axis=0)
        mean = np.where(count > 0, mean_where(phi, chosen, least=1), 0.0)
        return cls(count, mean, (np.where(chosen, phi - mean, 0.0) ** 2).sum(axis=0))


def fit_prior(phi: np.ndarray, chosen: np.ndarray) -> Prior:
    """The prior of the largest marginal likelihood of phi (S, n) over the chosen shadows.

    Where no record has two values, nothing tells the spread between records from that between
    models for one record: half of the variance is taken for either.

    Raises NotApplicable where nothing is chosen.
    """
    known = chosen.any(axis=0)
    if not known.any():
        raise NotApplicable(
            "no shadow model was trained without any of these records (or with any, online), so "
            "that nothing is known of how such models answer"
        )
    sums = RecordSums.of(phi[:, known], chosen[:, known])
    total = sums.count.sum()
    centre = (sums.count * sums.mean).sum() / total
    between = (sums.count * (sums.mean - centre) ** 2).sum()
    spread = np.sqrt((between + sums.squares.sum()) / total)
    if spread <= RESOLUTION:
        alpha = LIMITS["alpha"][1]
        return Prior(float(centre), 1.0, alpha, alpha * RESOLUTION**2)
    unit = RecordSums(sums.count, (sums.mean - centre) / spread, sums.squares / spread**2)
    mean, kappa, alpha, beta = _largest_likelihood(unit, smallest=(RESOLUTION / spread) ** 2)
    return Prior(float(centre + spread * mean), kappa, alpha, float(spread**2 * beta))


def _largest_likelihood(sums: RecordSums, *, smallest: float) -> tuple[float, float, float, float]:
    """(mean, kappa, alpha, beta) of the prior for values of mean 0 and variance 1, beta / alpha at
    least `smallest`."""
    freedom = (sums.count - 1).sum()
    variance = max(smallest, sums.squares.sum() / freedom if freedom else 0.5)
    between = max(1e-3, 1 - variance)
    found = minimize(
        _minus_log_likelihood,
        [0.0, np.log(variance / between), np.log(START_ALPHA), np.log(variance)],
        args=(sums,),
        jac=True,
        method="L-BFGS-B",
        bounds=[
            (None, None),
            tuple(np.log(LIMITS["kappa"])),
            tuple(np.log(LIMITS["alpha"])),
            (np.log(smallest), None),
        ],
        options={"ftol": 1e-15, "gtol": 1e-9, "maxiter": 1000},
    )
    mean, (kappa, alpha, variance) = found.x[0], np.exp(found.x[1:])
    return float(mean), float(kappa), float(alpha), float(alpha * variance)


def _minus_log_likelihood(parameters: np.ndarray, sums: RecordSums) -> tuple[float, np.ndarray]:
    """Minus the mean log marginal likelihood of a record, and its gradient, in m, log kappa, log
    alpha and log (beta / alpha)."""
    m, (kappa, alpha, variance) = parameters[0], np.exp(parameters[1:])
    beta = alpha * variance
    n, off = sums.count, sums.mean - m
    shrunk = n / (kappa + n)
    alpha_n = alpha + n / 2
    beta_n = beta + sums.squares / 2 + kappa * shrunk * off**2 / 2
    precision = alpha_n / beta_n
    # counts take few values: gamma functions of each once
    values, index = np.unique(n, return_inverse=True)
    log_gammas = (gammaln(alpha + values / 2) - gammaln(alpha))[index]
    digammas = (digamma(alpha + values / 2) - digamma(alpha))[index]
    log_ratio = np.log(beta / beta_n)
    likelihood = (
        log_gammas
        + alpha * log_ratio
        - n / 2 * np.log(beta_n)
        + np.log(kappa / (kappa + n)) / 2
        - n / 2 * np.log(2 * np.pi)
    )
    by_beta = beta * (1 / variance - precision)
    gradient = np.array(
        [
            (precision * kappa * shrunk * off).mean(),
            (shrunk / 2 - kappa * precision * shrunk**2 * off**2 / 2).mean(),
            (alpha * (digammas + log_ratio) + by_beta).mean(),
            by_beta.mean(),
        ]
    )
    return -float(likelihood.mean()), -gradient


def predictive(
    phi: np.ndarray, chosen: np.ndarray, prior: Prior
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Degrees of freedom, location and scale, (n,) each, of the Student-t of each record's next
    value, given phi (S, n) over the chosen shadows; a location of NaN where none is chosen."""
    sums = RecordSums.of(phi, chosen)
    n, kappa_n, alpha_n = sums.count, prior.kappa + sums.count, prior.alpha + sums.count / 2
    location = (prior.kappa * prior.mean + n * sums.mean) / kappa_n
    off = prior.kappa * n * (sums.mean - prior.mean) ** 2 / kappa_n
    beta_n = prior.beta + (sums.squares + off) / 2
    scale = np.sqrt(beta_n * (kappa_n + 1) / (alpha_n * kappa_n))
    return 2 * alpha_n, np.where(n > 0, location, np.nan), np.maximum(scale, RESOLUTION)


def normal_deviate(z: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    """About the normal deviate of the same tail probability as a Student-t's z (Wallace, Annals of
    Mathematical Statistics 1959).

    Increasing in z, and finite where the probability itself would round to 0 or 1 and tie the
    surest members. Within 0.04 of the exact one for z up to 6 from 3 degrees of freedom on.
    """
    size = np.sqrt(freedom * np.log1p(z**2 / freedom))
    return np.sign(z) * (8 * freedom + 1) / (8 * freedom + 3) * size


def offline_score(phi: Statistic, *, out: Prior) -> np.ndarray:
    """How unlikely so high a phi of a non-member is, as a normal deviate, (n,) of the targets."""
    target = phi.target
    freedom, location, scale = predictive(phi.shadows[:, target], ~phi.member[:, target], out)
    return normal_deviate((phi.victim[target] - location) / scale, freedom)


def online_score(phi: Statistic, *, inside: Prior, out: Prior) -> np.ndarray:
    """log t_in(phi_victim) - log t_out(phi_victim), (n,) of the targets."""
    target = phi.target
    shadows, member, victim = phi.shadows[:, target], phi.member[:, target], phi.victim[target]
    of_in, of_out = predictive(shadows, member, inside), predictive(shadows, ~member, out)
    return student_t.logpdf(victim, *of_in) - student_t.logpdf(victim, *of_out)


def bavaria(evidence: Evidence, **_) -> dict[str, Verdict]:
    """Online where shadows were trained on targets too, else offline.

    Raises NotApplicable where the shadows are too few for one to play the victim.
    """
    phi = evidence.measure(log_odds)
    out = fit_prior(phi.every_shadow, ~phi.every_member)
    if evidence.online:
        score = partial(online_score, inside=fit_prior(phi.every_shadow, phi.every_member), out=out)
    else:
        score = partial(offline_score, out=out)
    return {"bavaria": threshold_attack(evidence, log_odds, score)}
