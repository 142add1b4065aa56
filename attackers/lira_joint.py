"""The likelihood-ratio attack of `attackers.lira` on several releases of the same models together.

Each record has K log odds under each model, one a release. Among the models with it, and among
those without it, they are taken for a multivariate normal, whose covariance is D R D: the standard
deviations D of `lira` in each release, and one correlation matrix R for all records. With one
release every score here is that of `lira`. Ours, in the notation of Carlini et al. (S&P 2022).
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from attackers.calibration import threshold_attack
from attackers.evidence import Evidence, Verdict
from attackers.lira import defaults, gaussian_fit
from attackers.signals import log_odds
from attackers.statistic import Statistic, mean_where

# of the correlations: copies of one release, whose correlation is 1, leave a matrix of full rank
LEAST_SHRINKAGE = 1e-6


@dataclass(frozen=True, eq=False)
class JointNormal:
    """A normal of K numbers for each of n records, with mean `mean` and covariance D R D.

    Attributes:
        mean: (n, K); NaN where too few shadows say something of a record.
        deviation: (n, K), the diagonal of each record's D.
        correlation: (K, K), R, of full rank.
    """

    mean: np.ndarray
    deviation: np.ndarray
    correlation: np.ndarray

    def standardise(self, phi: np.ndarray) -> np.ndarray:
        """z = D^-1 (phi - mean) of phi (n, K)."""
        return (phi - self.mean) / self.deviation

    def log_density(self, phi: np.ndarray) -> np.ndarray:
        """log N(phi; mean, D R D), (n,)."""
        z = self.standardise(phi)
        squares = (z @ np.linalg.inv(self.correlation) * z).sum(axis=1)
        constant = np.linalg.slogdet(self.correlation)[1] + z.shape[1] * np.log(2 * np.pi)
        return -0.5 * (squares + constant) - np.log(self.deviation).sum(axis=1)


def joint_fit(phi: np.ndarray, chosen: np.ndarray, *, fix_variance: bool) -> JointNormal:
    """The normal of phi (S, n, K) over the chosen shadows (S, n) of each record.

    Mean and deviation are those of `lira.gaussian_fit` in each release. R is the sum of the
    products of standardised residuals over that of n_i - 1, so that its diagonal is 1, shrunk
    towards the identity, see `shrinkage`; with `fix_variance` D R D is the pooled covariance but
    for that.
    """
    fits = [
        gaussian_fit(phi[..., k], chosen, fix_variance=fix_variance) for k in range(phi.shape[-1])
    ]
    mean, deviation = (np.stack(of_releases, axis=-1) for of_releases in zip(*fits))
    known = chosen & ~np.isnan(mean[:, 0])
    residuals = ((phi - mean) / deviation)[known]  # (all chosen, K)
    freedom = len(residuals) - int(known.any(axis=0).sum())
    correlation = residuals.T @ residuals / max(1, freedom)
    correlation *= 1 - shrinkage(residuals, freedom)
    np.fill_diagonal(correlation, 1.0)
    return JointNormal(mean, deviation, correlation)


def shrinkage(residuals: np.ndarray, freedom: int) -> float:
    """By which share correlations are taken towards 0, from `LEAST_SHRINKAGE` to 1.

    Ledoit & Wolf's (Journal of Multivariate Analysis 2004) for standardised residuals (m, K), whose
    target, the mean variance times the identity, is then the diagonal. Their estimate of the error
    falls as 1 / m; here it is 1 / `freedom`, as each record's mean is estimated too.
    """
    if residuals.shape[1] == 1 or freedom < 1:
        return 1.0  # no correlation, or none that is known
    from sklearn.covariance import ledoit_wolf_shrinkage

    share = ledoit_wolf_shrinkage(residuals, assume_centered=True) * len(residuals) / freedom
    return float(np.clip(share, LEAST_SHRINKAGE, 1.0))


def member_shift(phi: Statistic) -> np.ndarray:
    """By how much members' log odds exceed non-members' in each release, (K,): the difference of
    the means of a record's shadows with and without it, over all records that have both.

    A difference of means from n_in and n_out shadows has the weight n_in n_out / (n_in + n_out),
    the inverse of its variance. One below 0 counts as 0, as memorising a record raises its log
    odds; where none is above 0, or no record has both, all are 1.
    """
    count = phi.member.sum(axis=0), (~phi.member).sum(axis=0)
    weight = count[0] * count[1] / np.maximum(1, count[0] + count[1])
    shift = np.zeros(phi.victim.shape[1])
    if weight.any():
        for k in range(len(shift)):
            of_shadows = phi.shadows[..., k]
            inside = mean_where(of_shadows, phi.member, least=1)
            outside = mean_where(of_shadows, ~phi.member, least=1)
            both = weight > 0
            shift[k] = np.average((inside - outside)[both], weights=weight[both])
    shift = np.maximum(shift, 0.0)
    return shift if shift.any() else np.ones_like(shift)


def offline_score(phi: Statistic, *, fix_variance: bool) -> np.ndarray:
    """d' R^-1 z / sqrt(d' R^-1 d), (n,) of the targets, with z = D^-1 (phi_victim - mu_out) and
    d = D^-1 `member_shift`.

    Where a member's log odds are those of a non-member and a shift that is the same for all
    records, log N(phi; mu_out + shift, DRD) - log N(phi; mu_out, DRD) = d' R^-1 z - d' R^-1 d / 2:
    this is the projection that decides, scaled to a standard normal of non-members. With one
    release it is lira's z, whatever the shift. (A Mahalanobis distance z' R^-1 z would take low
    log odds for a member's.) The shift is learnt on records that some shadows were trained on: in
    the paper's split the population, never the targets.
    """
    target = phi.target
    outside = joint_fit(phi.shadows[:, target], ~phi.member[:, target], fix_variance=fix_variance)
    d = member_shift(phi) / outside.deviation
    weights = d @ np.linalg.inv(outside.correlation)
    z = outside.standardise(phi.victim[target])
    return (weights * z).sum(axis=1) / np.sqrt((weights * d).sum(axis=1))


def online_score(phi: Statistic, *, fix_variance: bool) -> np.ndarray:
    """log N(phi_victim; mu_in, Sigma_in) - log N(phi_victim; mu_out, Sigma_out), (n,) of the
    targets.

    Each release adds about 2 / m to the score's variance, as its means come from m shadows with and
    m without a record: one that tells nothing costs a little.
    """
    target = phi.target
    of_shadows, member = phi.shadows[:, target], phi.member[:, target]
    of_victim = phi.victim[target]
    inside = joint_fit(of_shadows, member, fix_variance=fix_variance)
    outside = joint_fit(of_shadows, ~member, fix_variance=fix_variance)
    return inside.log_density(of_victim) - outside.log_density(of_victim)


def lira_joint(evidence: Evidence, *, fix_variance: bool | None = None, **_) -> dict[str, Verdict]:
    """Online where shadows were trained on targets too, else offline; `fix_variance` as of `lira`.

    Raises NotApplicable where there is but one release.
    """
    evidence.need_releases("lira_joint")
    settings = defaults({"fix_variance": fix_variance}, shadow_num=len(evidence.shadows))
    score = partial(online_score if evidence.online else offline_score, **settings)
    return {
        "lira_joint": threshold_attack(evidence, log_odds, score, measure=Evidence.measure_releases)
    }
