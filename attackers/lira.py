"""The likelihood-ratio attack (Carlini et al., "Membership Inference Attacks From First
Principles", S&P 2022)."""

from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.stats import norm

from attackers.calibration import threshold_attack
from attackers.evidence import Evidence, Verdict
from attackers.signals import log_odds
from attackers.statistic import MIN_SHADOWS, Statistic, mean_where
from core.console import NotApplicable

FIX_VARIANCE_BELOW = 64  # with fewer shadow models than this, all records share a variance
RESOLUTION = 1e-6  # of phi, whose logits are float32: a smaller standard deviation is none


def gaussian_fit(
    phi: np.ndarray, chosen: np.ndarray, *, fix_variance: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of phi (S, n) over the chosen shadows of each record, both (n,).

    With `fix_variance` all records share one: the squares of the residuals phi - mu over sum(n_i -
    1). NaN where fewer than two shadows are chosen. (The authors' code takes the median for the
    centre, and as the shared standard deviation that of all IN values about their grand mean, the
    spread between records included, for IN and OUT.)
    """
    mu = mean_where(phi, chosen, least=MIN_SHADOWS)
    freedom = np.where(np.isnan(mu), 0, chosen.sum(axis=0) - 1)
    squares = np.where(chosen & ~np.isnan(mu), phi - mu, 0.0) ** 2
    if fix_variance:
        variance = np.full(len(mu), squares.sum() / max(1, freedom.sum()))
    else:
        variance = squares.sum(axis=0) / np.maximum(1, freedom)
    return mu, np.maximum(np.sqrt(variance), RESOLUTION)


def mean_score(phi: Statistic, *, score: Callable[[Statistic], np.ndarray]) -> np.ndarray:
    """The mean of the score of each query alone, (n,) of the targets.

    Online that is 1 / Q times the ratio of two multivariate normals over the Q queries, each with a
    diagonal covariance: as in the authors' code, the mean of log densities. (With one deviation for
    all records, theirs is one for all queries too; here each query has its own.)
    """
    return np.mean([score(one) for one in phi.each()], axis=0)


def offline_score(phi: Statistic, *, fix_variance: bool) -> np.ndarray:
    """z = (phi_victim - mu_out) / sigma_out, (n,) of the targets: how unlikely so high a phi of a
    non-member is.

    The order is that of the paper's 1 - Pr[Z > phi] = Phi(z), whose logarithm rounds to 0 beyond z
    = 38 and would tie the surest members. The authors' code takes -log N(phi; mu_out, sigma_out):
    there a low phi speaks for a member too.
    """
    target = phi.target
    mu, sigma = gaussian_fit(
        phi.shadows[:, target], ~phi.member[:, target], fix_variance=fix_variance
    )
    return (phi.victim[target] - mu) / sigma


def online_score(phi: Statistic, *, fix_variance: bool) -> np.ndarray:
    """log N(phi_victim; mu_in, sigma_in) - log N(phi_victim; mu_out, sigma_out), (n,) of the
    targets."""
    target = phi.target
    of_shadows, member = phi.shadows[:, target], phi.member[:, target]
    of_victim = phi.victim[target]
    inside = gaussian_fit(of_shadows, member, fix_variance=fix_variance)
    outside = gaussian_fit(of_shadows, ~member, fix_variance=fix_variance)
    return norm.logpdf(of_victim, *inside) - norm.logpdf(of_victim, *outside)


def defaults(given: dict, *, shadow_num: int, **_) -> dict:
    """The options that depend on the number of shadow models, where they are not given."""
    fixed = given["fix_variance"]
    return {"fix_variance": shadow_num < FIX_VARIANCE_BELOW if fixed is None else fixed}


def _lira(
    name: str, evidence: Evidence, *, online: bool, fix_variance: bool | None
) -> dict[str, Verdict]:
    if fix_variance is None:
        given = {"fix_variance": fix_variance}
        fix_variance = defaults(given, shadow_num=len(evidence.shadows))["fix_variance"]
    of_one = partial(online_score if online else offline_score, fix_variance=fix_variance)
    score = partial(mean_score, score=of_one)
    return {name: threshold_attack(evidence, log_odds, score, measure=Evidence.measure_views)}


def lira(evidence: Evidence, *, fix_variance: bool | None = None, **_) -> dict[str, Verdict]:
    """Online where shadows were trained on targets too, else offline; `fix_variance` by default
    below 64 shadows."""
    return _lira("lira", evidence, online=evidence.online, fix_variance=fix_variance)


def lira_online(evidence: Evidence, *, fix_variance: bool | None = None, **_) -> dict[str, Verdict]:
    """The ratio of likelihoods with and without the record.

    Raises NotApplicable where no shadow was trained on a target.
    """
    if not evidence.online:
        raise NotApplicable(
            "no shadow model was trained on any target record, so that nothing is known of how "
            "models answer for their members: use lira, or a split in which they are "
            "(pretrain.py --split inout)"
        )
    return _lira("lira_online", evidence, online=True, fix_variance=fix_variance)


def lira_offline(
    evidence: Evidence, *, fix_variance: bool | None = None, **_
) -> dict[str, Verdict]:
    """How unlikely the outputs are for a model without the record, also where models with it are
    known."""
    return _lira("lira_offline", evidence, online=False, fix_variance=fix_variance)
