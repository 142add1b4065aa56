"""How far what an attack says can be relied on, record by record.

In the in/out split each target is IN half of the shadow models and OUT of the others. With each of
them in the victim's place (`Verdict.shadow_scores`) a record has as many scores as there are shadow
models, and what a single victim cannot tell can be counted: how often the record would be named.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit
from scipy.stats import norm, rankdata

from attackers import metrics, ties
from attackers.bavaria import fit_prior, offline_score
from attackers.evidence import Evidence, Verdict
from attackers.signals import log_odds
from attackers.statistic import Statistic, mean_where

RISK_FPR = 0.01


def scores_in_turn(verdict: Verdict, evidence: Evidence) -> np.ndarray | None:
    """What the targets score where each shadow plays the victim, (S, n); None where that is not
    known of all, as in the paper's split."""
    if verdict.shadow_scores is None:
        return None
    scores = verdict.shadow_scores[:, evidence.target]
    return None if np.isnan(scores).any() else scores


@dataclass(frozen=True, eq=False)
class Risk:
    """How often each of n records is named where a shadow model is attacked, at one threshold for
    all records and shadow models.

    Attributes:
        models: (2, n), how many shadow models were trained without the record, and with it.
        named: (2, n), in how many of these it is named.
    """

    models: np.ndarray
    named: np.ndarray

    @property
    def risk(self) -> np.ndarray:
        """(n,), the share of the models with the record that it is named in: its own TPR."""
        return self.named[1] / self.models[1]

    @property
    def interval(self) -> np.ndarray:
        """(n, 2), Clopper & Pearson's of the risk: another training with the record is one more
        draw of such a model."""
        pairs, index = np.unique([self.named[1], self.models[1]], axis=1, return_inverse=True)
        return np.array([metrics.clopper_pearson(*pair) for pair in pairs.T])[index.ravel()]

    @property
    def false_alarms(self) -> np.ndarray:
        """(n,), the share of the models without the record that it is named in: its own FPR."""
        return self.named[0] / self.models[0]


def risk(of_shadows: np.ndarray, member: np.ndarray, *, limit: float = RISK_FPR) -> Risk | None:
    """The risk of each record at a FPR in all non-members of all shadow models together.

    None where these do not tell such a rate, by the rules of `metrics.measures`: the scores are
    binary, or more than 90 % of them equal, or there are fewer than 10 / FPR non-members; and where
    a record is IN none or all of the models.

    Args:
        of_shadows: (S, n), what the records score where each shadow plays the victim.
        member: (S, n) bool, whom each was trained on.
    """
    models = np.stack([(~member).sum(axis=0), member.sum(axis=0)])
    if (
        len(np.unique(of_shadows)) <= 2
        or (ties.tied_share(of_shadows.ravel()) or 0) > ties.MOST
        or models[0].sum() * limit < 10
        or not models.all()
    ):
        return None
    above = of_shadows > metrics.score_to_exceed(of_shadows[~member], limit=limit)
    return Risk(models, np.stack([(above & ~member).sum(axis=0), (above & member).sum(axis=0)]))


def memorisation(evidence: Evidence) -> np.ndarray:
    """By how much the posterior of a target's class is larger where a model was trained on it, (n,)
    from -1 to 1: its mean over the shadow models that are IN minus that over those OUT; NaN where
    there is none of a kind.

    The estimator of Feldman & Zhang ("What Neural Networks Memorize and Why", NeurIPS 2020) from
    models of random subsets, with two departures: they take right answers, 0 or 1, of 2,000 models
    of 70 % of the records; of a few models of half of them the posterior says more.
    """
    target = evidence.target
    p = evidence.measure(lambda signals, labels: expit(log_odds(signals, labels)))
    shadows, member = p.every_shadow[:, target], p.every_member[:, target]
    return mean_where(shadows, member, least=1) - mean_where(shadows, ~member, least=1)


def standardised(verdict: Verdict, evidence: Evidence) -> np.ndarray:
    """Each target's score held against its own scores under models without it, (n,), so that one
    threshold means more nearly the same FPR for every record.

    One threshold for raw scores gives records different FPRs: where it takes a few of them for
    members in any case, the TPR is an average of unlike things (Jaelkoe et al., arXiv 2605.25819,
    2026, who calibrate scores by Gaussians before they pool them). Here all scores, whose order
    alone counts, are first replaced by the normal deviates of their ranks, so that it does not
    matter on which scale they are. The few of a record under the shadow models that are OUT then
    have `bavaria`'s prior of mean and variance, and the victim's becomes the normal deviate of its
    tail in the Student-t of a next one.

    That holds of the victim alone: where a shadow plays the victim, it is among the references of
    the others whose scores it would be held against, and these tell of which kind it is.

    Raises:
        ValueError: the verdict has no scores of shadow models, see `scores_in_turn`.
    """
    in_turn = scores_in_turn(verdict, evidence)
    if in_turn is None:
        raise ValueError("no scores of the targets where shadows play the victim are known")
    member = evidence.member[:, evidence.target]
    everything = np.ones(member.shape, dtype=bool)
    scores = np.vstack([verdict.scores, in_turn])
    deviates = norm.ppf(rankdata(scores).reshape(scores.shape) / (scores.size + 1))
    of_all = Statistic(deviates[0], deviates[1:], member, everything, everything[0])
    return offline_score(of_all, out=fit_prior(deviates[1:], ~member))
