"""Several attacks as one: their scores, as ranks among non-members, in a logistic regression learnt
on the shadow models (ours).

Wang et al. ("Membership Inference Attacks as Privacy Tools: Reliability, Disparity and Ensemble",
CCS 2025) show that attacks of like accuracy find different members, and combine several trainings
of an attack, then several attacks. Their code (RPI-DSPlab/MIAE) does so by decisions, each at the
same false-positive rate on the victim: all, any or most trainings of an attack, then any attack; it
also has the mean of scores scaled to 0..1 on the victim, and a perceptron on these that learns
from one model more. Here nothing is scaled or chosen on the victim: what a score is worth, each
attack's weight and the threshold come from the shadow models, and the result is a score for every
false-positive rate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri

from attackers import ATTACKS, COMBINED, OPTION_NAMES, attack, can_be_combined, unfit
from attackers.calibration import best_threshold
from attackers.evidence import Evidence, Verdict
from attackers.learning import ShadowRecords, cross_fitted
from core.console import NotApplicable, UserError

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator


class NormalRanks:
    """Scores (m, K) as the normal deviates of their ranks among non-members, a column each.

    A score with a share u of the non-members below it, ties counted half, becomes Phi^-1(u):
    linear between two scores of non-members, so that no order is lost. Beyond the last one no
    non-member tells how sure a score is: there it grows by log(1 + its distance from it), in units
    of the slope between the first and the last.
    """

    def fit(self, x: np.ndarray, member: np.ndarray) -> NormalRanks:
        self.knots = [self._knots(column) for column in x[~member].T]
        return self

    @staticmethod
    def _knots(others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The scores of non-members, each once and in order, and their deviates."""
        values, counts = np.unique(others, return_counts=True)
        return values, ndtri((np.cumsum(counts) - counts / 2) / len(others))

    def transform(self, x: np.ndarray) -> np.ndarray:
        columns = [self._deviates(one, *of) for one, of in zip(x.T, self.knots, strict=True)]
        return np.stack(columns, axis=1)

    @staticmethod
    def _deviates(scores: np.ndarray, values: np.ndarray, deviates: np.ndarray) -> np.ndarray:
        spread = values[-1] - values[0]
        slope = (deviates[-1] - deviates[0]) / spread if spread > 0 else 1.0
        inside = np.interp(scores, values, deviates)
        above, below = (
            np.log1p(slope * np.maximum(distance, 0.0))
            for distance in (scores - values[-1], values[0] - scores)
        )
        return inside + above - below


def _combination(seed: int) -> BaseEstimator:
    """A logistic regression on the ranks, with the penalty that scikit-learn has by default."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    return make_pipeline(NormalRanks(), LogisticRegression(solver="newton-cholesky", tol=1e-8))


def _constituents(
    evidence: Evidence, names: tuple[str, ...], how: dict
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The scores of the targets (n,), and those of each shadow's records in turn (m,), by verdict of
    those of the attacks that can be made here."""
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    online, shadow_num = evidence.online, len(evidence.shadows)
    for name in names:
        if not can_be_combined(name):
            raise UserError(
                f"{name} cannot be combined: no shadow model plays the victim in it, or "
                f"it sees several releases, or classes alone"
            )
        if unfit(name, online=online, shadow_num=shadow_num, also=tuple(evidence.also)):
            continue
        foreign = set(OPTION_NAMES) - set(ATTACKS[name].options.get("option_names", ()))
        own = {option: value for option, value in how.items() if option not in foreign}
        try:
            verdicts = attack(name, evidence, **own)
        except NotApplicable:
            continue
        for verdict_name, verdict in verdicts.items():
            assert verdict.shadow_scores is not None  # see `can_be_combined`
            in_turn = verdict.shadow_scores[evidence.calibration_mask]
            found[verdict_name] = verdict.scores, in_turn
    return found


def ensemble(
    evidence: Evidence, *, ensemble_of: tuple[str, ...] = COMBINED, seed: int = 0, **how
) -> dict[str, Verdict]:
    """The log odds of a logistic regression on the ranks of each attack's score among non-members.

    It learns from what the attacks say where each shadow model plays the victim, with settings
    that they choose on all shadow models, as for their own thresholds. Its threshold is the best
    for shadow models that were held out from ranks and regression, as in `compleak`. Attacks that
    cannot be made in this split with so many shadow models are left out: `chosen` has the weight of
    those that were not. A record without a score in one of them has none, and is not learnt from.

    Raises:
        NotApplicable: none of the attacks can be made, or there are too few shadow records.
        UserError: one of the attacks has no scores of shadow models.
    """
    found = _constituents(evidence, ensemble_of, {"seed": seed, **how})
    if not found:
        raise NotApplicable(
            f"there is nothing to combine: none of {', '.join(ensemble_of) or 'no attacks'} can be made "
            f"of these models"
        )
    targets, x = (np.stack(scores, axis=1) for scores in zip(*found.values()))
    masks, known = evidence.calibration_mask, ~np.isnan(x).any(axis=1)
    records = ShadowRecords(x[known], evidence.member[masks][known], np.nonzero(masks)[0][known])
    held, combination = cross_fitted(
        _combination, lambda one, x: one.decision_function(x), records, seed
    )
    threshold = best_threshold(held[records.member], held[~records.member])
    scores, sure = np.full(len(targets), np.nan), ~np.isnan(targets).any(axis=1)
    if sure.any():
        scores[sure] = combination.decision_function(targets[sure])
    weights = combination[-1].coef_[0]
    chosen = {name: round(float(weight), 4) for name, weight in zip(found, weights)}
    return {"ensemble": Verdict(scores, threshold, chosen)}
