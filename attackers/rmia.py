"""The relative attack (Zarifzadeh et al., "Low-Cost High-Power Membership Inference Attacks", ICML 2024)."""
from functools import partial

import numpy as np
from scipy.special import expit

from attackers.calibration import judge
from attackers.metrics import area
from attackers.signals import LEAST, Evidence, Measured, Verdict, log_odds, mean_where
from core.console import NotApplicable
from datasets import Records

TEMPERATURE = 2.0
GAMMA = 2.0
A_IMAGES, A_TABLES = 0.3, 0.2
CHOICES = np.linspace(0, 1, 11)


def true_posterior(signals, labels: np.ndarray) -> np.ndarray:
    """Softmax with temperature 2 of the true class, (N,)."""
    return expit(log_odds(signals, labels, temperature=TEMPERATURE))


def ratio(p: Measured, chosen: np.ndarray, *, a: float, online: bool, least: int = LEAST) -> np.ndarray:
    """r(x) = p(x | victim) / p(x) of the chosen records (N,) bool; NaN where too few shadows are known.

    Offline p(x) = ((1 + a) mean_out + (1 - a)) / 2, online the mean of mean_in and mean_out.
    """
    shadows, member = p.shadows[:, chosen], p.member[:, chosen]
    mean_out = mean_where(shadows, ~member, least=least)
    if online:
        evidence = (mean_where(shadows, member, least=least) + mean_out) / 2
    else:
        evidence = ((1 + a) * mean_out + (1 - a)) / 2
    return p.victim[chosen] / evidence


def score(p: Measured, *, a: float, gamma: float, online: bool) -> np.ndarray:
    """Share of the population records z with r(x) / r(z) > gamma, (n,) of the targets.

    The population has no model that was trained on it to compare with: r(z) is offline always.
    """
    of_population = ratio(p, ~p.target, a=a, online=False, least=1)
    limits = np.sort(gamma * of_population[~np.isnan(of_population)])
    if not len(limits):
        raise NotApplicable("of no population record a shadow model is known that was not trained on it")
    of_targets = ratio(p, p.target, a=a, online=online)
    return np.where(np.isnan(of_targets), np.nan, np.searchsorted(limits, of_targets, side="left") / len(limits))


def best_a(p: Measured, *, gamma: float, online: bool) -> float:
    """The a of the largest AUC where each shadow in turn plays the victim."""
    def quality(a: float) -> float:
        found = [(score(role, a=a, gamma=gamma, online=online), member) for role, member in p.in_turn()]
        scores, member = map(np.concatenate, zip(*found))
        sure = ~np.isnan(scores)
        return area(scores[sure], member[sure])

    return max(CHOICES.tolist(), key=quality)


def default_a(records: Records | None) -> float:
    """.2 for tables, .3 for images and where records are not known."""
    return A_TABLES if records is not None and len(records.shape) == 1 else A_IMAGES


def rmia(evidence: Evidence, *, rmia_gamma: float = GAMMA, rmia_a: float | str | None = None,
         **_) -> dict[str, Verdict]:
    """Online where shadows were trained on targets too, else offline.

    Args:
        rmia_gamma: by how much a target's ratio must exceed a population record's.
        rmia_a: 0 to 1, of all offline p(x), so that of the population in either form; "choose": on the shadows;
            None: .2 for tables, .3 for all else.
    """
    evidence.need_population()
    if rmia_a == "choose":
        rmia_a = best_a(evidence.measure(true_posterior), gamma=rmia_gamma, online=evidence.online)
    elif rmia_a is None:
        rmia_a = default_a(evidence.records)
    return {"rmia": judge(evidence, true_posterior,
                          partial(score, a=rmia_a, gamma=rmia_gamma, online=evidence.online))}
