"""Attacks that see the predicted class alone.

`noise_robustness` (Choquette-Choo et al., "Label-Only Membership Inference Attacks", ICML 2021)
asks for the classes of perturbed copies of a record; `boundary` (Li & Zhang, "Membership Leakage in
Label-Only Exposures", CCS 2021) takes the distance to the nearest other class. Either
finds its threshold on shadow models, as Choquette-Choo et al. do; Li & Zhang, whose attacker has
none, take a quantile of the distances of random images.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from attackers.calibration import best_threshold, identity_score, pooled_scores
from attackers.evidence import Verdict
from attackers.label_only_evidence import ClassSignals, LabelOnlyEvidence
from attackers.rmia import rank_auc
from attackers.statistic import Statistic
from core.console import NotApplicable


def robustness(signals: ClassSignals, labels: np.ndarray, *, level: int) -> np.ndarray:
    """Share of a record's copies at one strength that are put into its class, (N,): 0 where the
    record itself is not, as in the authors' code, NaN where it was not asked for."""
    if signals.copies is None:
        raise NotApplicable("noise_robustness needs the classes of perturbed copies (copies=...)")
    share = (signals.copies[level] == labels).mean(axis=0)
    share = np.where(signals.classes == labels, share, 0.0)
    return np.where(signals.classes < 0, np.nan, share)


def boundary_distance(signals: ClassSignals, labels: np.ndarray) -> np.ndarray:
    """Distance to the nearest other class, (N,): 0 where the record is put into one itself, NaN
    where it was not asked for."""
    if signals.distances is None:
        raise NotApplicable("boundary needs distances to the nearest other class (distances=...)")
    distances = np.where(signals.classes == labels, signals.distances, 0.0)
    return np.where(signals.classes < 0, np.nan, distances)


def mean_auc(measured: Statistic) -> float:
    """Mean AUC of a statistic over the shadow models that know it of members and non-members."""
    aucs = []
    for role, member in measured.leave_one_out():
        scores = identity_score(role)
        known = ~np.isnan(scores)
        if 0 < member[known].sum() < known.sum():
            aucs.append(rank_auc(scores[known], member[known]))
    return float(np.mean(aucs)) if aucs else -np.inf


def _verdict(measured: Statistic, **chosen: float) -> Verdict:
    """Score by the statistic itself, with one threshold for all."""
    scores, member, _ = pooled_scores(measured, identity_score)
    threshold = best_threshold(scores[member], scores[~member])
    return Verdict(identity_score(measured), threshold, chosen)


def noise_robustness(evidence: LabelOnlyEvidence, **_) -> dict[str, Verdict]:
    """The share of perturbed copies that keep the record's class, at the strength of the largest
    mean AUC over the shadow models; of equally good ones the first.

    The authors choose the strength on shadow models too, with more copies (up to 5,000) and each
    model asked with copies of its own.
    """
    levels = [
        evidence.measure(partial(robustness, level=level))
        for level in range(max(1, len(evidence.strengths)))
    ]
    best = int(np.argmax([mean_auc(measured) for measured in levels]))
    return {"noise_robustness": _verdict(levels[best], strength=evidence.strengths[best])}


def boundary(evidence: LabelOnlyEvidence, **_) -> dict[str, Verdict]:
    """The distance to the nearest other class, as far as it was found."""
    return {"boundary": _verdict(evidence.measure(boundary_distance))}
