"""The relative attack (Zarifzadeh et al., "Low-Cost High-Power Membership Inference Attacks", ICML
2024).

Its settings differ by data set in the paper; the authors' later code
(privacytrustlab/ml_privacy_meter) tunes a by the AUC of an attack on a reference model and fixes
temperature and gamma at 1. Here all four are chosen on the shadow models, for the form that is
attacked, unless they are given.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit
from scipy.stats import rankdata

from attackers.calibration import best_threshold_and_rate, pooled_scores, threshold_attack
from attackers.evidence import Evidence, Verdict
from attackers.signals import log_odds
from attackers.statistic import MIN_SHADOWS, Statistic, mean_where
from attackers.votes import share_outvoted
from core.console import NotApplicable

if TYPE_CHECKING:
    from datasets import Records

CHOOSE = "choose"
NO_POPULATION = "of no population record a shadow model is known that was not trained on it"
A_IMAGES, A_TABLES = 0.3, 0.2  # the paper's, for CIFAR and CINIC-10, and for Purchase-100
# of equally good settings the first counts
SETTINGS_GRID = {
    "temperature": (1.0, 2.0),  # the authors' later code; the paper
    "trim": (0.0, 0.2),  # the paper's text and the later code; the code of the paper
    "a": tuple(np.linspace(0, 1, 11).round(1).tolist()),  # the later code's
    "gamma": (1.0, 2.0),  # the later code; the paper
}
RANGES = {
    "temperature": (lambda value: 0 < value < np.inf, "a number above 0"),
    "trim": (lambda value: 0 <= value < 0.5, "a number from 0 to below .5"),
    "a": (lambda value: 0 <= value <= 1, "a number from 0 to 1, 'paper'"),
    "gamma": (lambda value: 0 < value < np.inf, "a number above 0"),
}


@dataclass(frozen=True)
class Settings:
    """What the score depends on beside the models' outputs.

    Attributes:
        temperature: the logits are divided by it.
        trim: share of the shadow models, at either end, that the mean of a record's posteriors
            leaves out.
        a: 0 to 1, of the offline p(x) = ((1 + a) mean_out + 1 - a) / 2.
        gamma: by how much a target's ratio must exceed a population record's.
    """

    temperature: float
    trim: float
    a: float
    gamma: float


def true_posterior(signals, labels: np.ndarray, *, temperature: float) -> np.ndarray:
    """Softmax with this temperature of the true class, (N,), at least 1e-300: ratios of two zeros
    are none."""
    return np.maximum(expit(log_odds(signals, labels, temperature=temperature)), 1e-300)


def reference_mean(
    p: Statistic, records: np.ndarray, *, trim: float, online: bool, least: int = MIN_SHADOWS
) -> np.ndarray:
    """Mean posterior under the shadow models of the chosen records (N,) bool; NaN where too few are
    known.

    Offline of the OUT models. Online (mean_in + mean_out) / 2; trimmed, of both together, the first
    m of each where m is the number of the fewer, as in the authors' code.
    """
    shadows, member = p.shadows[:, records], p.member[:, records]
    if not online:
        return mean_where(shadows, ~member, least=least, trim=trim)
    if not trim:
        return (
            mean_where(shadows, member, least=least) + mean_where(shadows, ~member, least=least)
        ) / 2
    fewer = np.minimum(member.sum(axis=0), (~member).sum(axis=0))
    first = [kind & (np.cumsum(kind, axis=0) <= fewer) for kind in (member, ~member)]
    return mean_where(shadows, first[0] | first[1], least=2 * least, trim=trim)


def offline_evidence(mean_out: np.ndarray, a: float) -> np.ndarray:
    """p(x) where only the mean over OUT models is known: that over IN models is taken to be a
    mean_out + 1 - a."""
    return ((1 + a) * mean_out + (1 - a)) / 2


def likelihood_ratio(
    p: Statistic, records: np.ndarray, settings: Settings, *, online: bool, least: int = MIN_SHADOWS
) -> np.ndarray:
    """r(x) = p(x | victim) / p(x) of the chosen records (N,) bool; NaN where too few shadows are
    known."""
    mean = reference_mean(p, records, trim=settings.trim, online=online, least=least)
    return p.victim[records] / (mean if online else offline_evidence(mean, settings.a))


def score(p: Statistic, settings: Settings, *, online: bool) -> np.ndarray:
    """Share of the population records z with r(x) / r(z) > gamma, (n,) of the targets, without
    ties.

    The population has no model that was trained on it to compare with: r(z) is offline always. As
    the share is a step function of r(x), part of a step is added that grows with r(x): for the
    targets of one model the order is that of r(x), whatever gamma, also where all of them exceed
    all of the population or none of it.
    """
    of_population = likelihood_ratio(p, ~p.target, settings, online=False, least=1)
    return relative_score(
        likelihood_ratio(p, p.target, settings, online=online), of_population, gamma=settings.gamma
    )


def score_of_queries(p: Statistic, settings: Settings, *, online: bool) -> np.ndarray:
    """`score`; of several queries the share of the population records z with r(x) / r(z) > gamma in
    more than half of them (the authors' code; see `votes.share_outvoted`)."""
    first, *others = p.each()
    if not others:
        return score(first, settings, online=online)
    of_targets, of_population = (
        np.stack([likelihood_ratio(one, records, settings, **how) for one in (first, *others)])
        for records, how in (
            (p.target, {"online": online}),
            (~p.target, {"online": False, "least": 1}),
        )
    )
    return share_outvoted(of_targets, settings.gamma * known_columns(of_population))


def known_columns(of_population: np.ndarray) -> np.ndarray:
    """The population's ratios (Q, m) where they are known. Raises NotApplicable where none is."""
    known = ~np.isnan(of_population[0])
    if not known.any():
        raise NotApplicable(NO_POPULATION)
    return of_population[:, known]


def relative_score(
    of_targets: np.ndarray, of_population: np.ndarray, *, gamma: float
) -> np.ndarray:
    """The score (n,) from the ratios of the targets (n,) and of the population (m,); NaN where a
    ratio is not known."""
    limits = np.sort(gamma * known_columns(of_population[None])[0])
    return rank_without_ties(of_targets, limits) / len(limits)


def rank_without_ties(ratios: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """How many of the sorted limits each ratio exceeds, (n,), and part of a step by which equal
    ranks are told apart.

    Strictly increasing in the ratio; the part is linear between two limits, where it is 1 only at
    the next limit itself. Below and above all limits it is x / (1 + x) with x = log(1 + r), which
    compares from one model to another, as the smallest and the largest limit do not, and tells
    ratios apart however large they are. Limits and ratios are 0 or more. NaN where the ratio is.
    """
    below = np.searchsorted(limits, ratios, side="left")
    last, following = (limits[np.clip(below + one, 0, len(limits) - 1)] for one in (-1, 0))
    inside = (below > 0) & (below < len(limits))
    outside = np.log1p(ratios)
    part = np.where(inside, ratios - last, outside) / np.where(
        inside, following - last, 1 + outside
    )
    return np.where(np.isnan(ratios), np.nan, below + part)


def rank_auc(scores: np.ndarray, member: np.ndarray) -> float:
    """`metrics.auc` by the ranks of the members (Mann-Whitney U), which is much faster: settings
    are compared by hundreds of them."""
    m = int(member.sum())
    return float((rankdata(scores)[member].sum() - m * (m + 1) / 2) / m / (len(member) - m))


def choose(evidence: Evidence, fixed: dict[str, float]) -> Settings:
    """The settings that serve best where each shadow in turn plays the victim; those that
    are fixed stay.

    First what decides the order of a model's targets, by the mean AUC over the shadows:
    temperature, trim and, in the offline form, a. The AUC, which all records enter: the TPR at a
    low FPR of a shadow hangs on a handful. Then what moves only the scores of one model against
    another's, by (TPR + TNR) / 2 at the best threshold of all shadows together: gamma and, online,
    where only the population's ratios have it, a.

    Raises NotApplicable where the shadows are too few for one to play the victim.
    """
    grid = {
        name: (fixed[name],) if name in fixed else values for name, values in SETTINGS_GRID.items()
    }
    best, largest = Settings(**{name: values[0] for name, values in grid.items()}), -np.inf
    if max(map(len, grid.values())) == 1:
        return best
    for temperature in grid["temperature"]:
        p = evidence.measure(partial(true_posterior, temperature=temperature))
        for settings, quality in _ranking_quality(
            p, replace(best, temperature=temperature), grid, evidence.online
        ):
            if quality > largest:
                best, largest = settings, quality
    p = evidence.measure(partial(true_posterior, temperature=best.temperature))
    candidates = [
        replace(best, gamma=gamma, a=a)
        for gamma, a in product(grid["gamma"], grid["a"] if evidence.online else (best.a,))
    ]
    return _best_for_all(p, candidates, evidence.online) if len(candidates) > 1 else best


def _ranking_quality(
    p: Statistic, settings: Settings, grid: dict, online: bool
) -> Iterator[tuple[Settings, float]]:
    """The mean AUC over the shadows of each trim and, offline, a; those shadows count that know
    both kinds."""
    candidates = [
        replace(settings, trim=trim, a=a)
        for trim, a in product(grid["trim"], grid["a"][:1] if online else grid["a"])
    ]
    aucs: dict[Settings, list[float]] = {one: [] for one in candidates}
    for role, member in p.leave_one_out():
        means = {
            trim: reference_mean(role, role.target, trim=trim, online=online)
            for trim in grid["trim"]
        }
        known = ~np.isnan(next(iter(means.values())))
        if not 0 < member[known].sum() < known.sum():
            continue
        victim = role.victim[role.target][known]
        for one in candidates:
            mean = means[one.trim][known]
            ratios = victim / (mean if online else offline_evidence(mean, one.a))
            aucs[one].append(rank_auc(ratios, member[known]))
    for one, of_shadows in aucs.items():
        yield one, float(np.mean(of_shadows)) if of_shadows else -np.inf


def _best_for_all(p: Statistic, candidates: list[Settings], online: bool) -> Settings:
    """Of settings that share all but gamma and, online, a: that of the best threshold of all
    shadows together."""
    roles = [role for role, _ in p.leave_one_out()]
    of_targets = [
        likelihood_ratio(role, role.target, candidates[0], online=online) for role in roles
    ]
    mean_out = [
        reference_mean(role, ~role.target, trim=candidates[0].trim, online=False, least=1)
        for role in roles
    ]

    def quality(settings: Settings) -> float:
        scores_of = {
            role.as_victim: relative_score(
                ratios,
                role.victim[~role.target] / offline_evidence(mean, settings.a),
                gamma=settings.gamma,
            )
            for role, ratios, mean in zip(roles, of_targets, mean_out)
        }
        scores, member, _ = pooled_scores(p, lambda role: scores_of[role.as_victim])
        return best_threshold_and_rate(scores[member], scores[~member])[1]

    return max(candidates, key=quality)


def default_a(records: Records | None) -> float:
    """The paper's a: .2 for tables, .3 for images and where records are not known."""
    return A_TABLES if records is not None and len(records.shape) == 1 else A_IMAGES


def defaults(given: dict, *, records: Records | None, **_) -> dict:
    """The options that depend on the records, where the paper's are asked for."""
    a = given["rmia_a"]
    return {"rmia_a": default_a(records) if a == "paper" else a}


def checked(name: str, value: float | str) -> float:
    """A setting as a number. Raises ValueError where it is neither that, in its range, nor
    "choose"."""
    holds, expected = RANGES[name]
    if not isinstance(value, (int, float, np.number)) or not holds(value):
        raise ValueError(f"rmia_{name} must be {expected} or 'choose', not {value!r}")
    return float(value)


def rmia(
    evidence: Evidence,
    *,
    rmia_a: float | str = CHOOSE,
    rmia_temperature: float | str = CHOOSE,
    rmia_trim: float | str = CHOOSE,
    rmia_gamma: float | str = CHOOSE,
    **_,
) -> dict[str, Verdict]:
    """Online where shadows were trained on targets too, else offline.

    Args, each a number or "choose" (see `choose`); `Settings` tells what they are:
        rmia_a: from 0 to 1; or "paper": .2 for tables, .3 for all else.
        rmia_temperature, rmia_gamma: above 0; 2 in the paper.
        rmia_trim: from 0, for none, to below .5.
    Raises:
        NotApplicable: there is no population, or the shadows are too few for one to play the
            victim.
        ValueError: a setting is out of its range.
    """
    evidence.need_population()
    options = {
        "temperature": rmia_temperature,
        "trim": rmia_trim,
        "gamma": rmia_gamma,
        "a": defaults({"rmia_a": rmia_a}, records=evidence.records)["rmia_a"],
    }
    fixed = {name: checked(name, value) for name, value in options.items() if value != CHOOSE}
    settings = choose(evidence, fixed)
    verdict = threshold_attack(
        evidence,
        partial(true_posterior, temperature=settings.temperature),
        partial(score_of_queries, settings=settings, online=evidence.online),
        measure=Evidence.measure_views,
    )
    chosen = {name: value for name, value in asdict(settings).items() if name not in fixed}
    return {"rmia": replace(verdict, chosen=chosen)}
