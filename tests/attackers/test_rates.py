"""AUC, accuracy and TPR at a low FPR: counted by hand, over pairs and over all thresholds."""

import math

import numpy as np
import pytest
from metric_cases import SEEDS, balanced, by_pairs, tied
from scipy.stats import norm
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from attackers import metrics


@pytest.mark.parametrize("seed", SEEDS)
def test_the_area_equals_a_count_of_pairs(seed):
    scores, member = tied(seed)
    assert len(np.unique(scores)) < len(scores)
    assert metrics.auc(scores, member) == pytest.approx(by_pairs(scores, member), abs=1e-12)
    assert metrics.auc(scores, member) == pytest.approx(roc_auc_score(member, scores), abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_balanced_accuracy_is_the_mean_of_two_rates(seed):
    scores, member = tied(seed)
    found = metrics.balanced_accuracy(scores >= 0.5, member)
    assert found == pytest.approx(balanced(scores >= 0.5, member)) and isinstance(found, float)
    assert found == pytest.approx(balanced_accuracy_score(member, scores >= 0.5))


def tpr_by_thresholds(scores, member, limit):
    """The largest TPR of all thresholds that let at most this share of non-members pass."""
    best = 0.0
    for threshold in [*scores, math.inf]:
        said = scores >= threshold
        if said[~member].sum() <= limit * (~member).sum() + 1e-9:
            best = max(best, said[member].mean())
    return best


@pytest.mark.parametrize("limit", [0.5, 0.1, 0.01])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_tpr_at_an_fpr_is_the_largest_of_all_thresholds(seed, limit):
    scores, member = tied(seed)
    assert metrics.tpr_at_fpr(scores, member, limit=limit) == pytest.approx(
        tpr_by_thresholds(scores, member, limit)
    )


def test_a_tpr_worked_by_hand_without_interpolation():
    # non-members 10, 8, 6, 5, 4, 3, 2, 1, 0, -1; one of ten may pass, so the threshold is above 8
    others = [10, 8, 6, 5, 4, 3, 2, 1, 0, -1]
    for members, exact in [
        ([12, 9, 9, 7], 0.75),
        ([12, 8, 8, 8], 0.25),
        ([12, 10, 8, 8], 0.5),
        ([7, 7, 7, 7], 0),
    ]:
        scores, member = np.array(members + others, float), np.arange(14) < 4
        assert metrics.tpr_at_fpr(scores, member, limit=0.1) == exact
        assert metrics.tpr_at_fpr(scores, member, limit=0.15) == exact  # between one and two of ten
    scores, member = np.array([5, 5, 1] + 2 * [5] + 8 * [0], float), np.arange(13) < 3
    assert (
        metrics.tpr_at_fpr(scores, member, limit=0.1) == 0
    )  # whoever ties passes with them: two of ten


@pytest.mark.parametrize("count", [10, 30, 70, 1000, 10_000])
def test_exactly_the_limit_may_pass(count):
    """That no rounding keeps out the last non-member whom the limit lets pass."""
    for limit in metrics.FPRS:
        passing = round(count * limit)
        if passing / count == pytest.approx(limit):
            others = np.arange(count)[::-1]
            members = np.array([count - passing - 0.5] * 3 + [count - passing - 1.5])
            scores, member = np.concatenate([members, others]), np.arange(count + 4) < 4
            assert metrics.tpr_at_fpr(scores, member, limit=limit) == 0.75


def test_the_tpr_of_gaussian_scores_is_the_analytic_one():
    draw, n, d = np.random.default_rng(0), 200_000, 1.0
    member = np.arange(2 * n) < n
    scores = draw.normal(size=2 * n) + d * member
    for limit in metrics.FPRS:
        cut = norm.ppf(limit)
        rate, slope = norm.cdf(d + cut), norm.pdf(d + cut) / norm.pdf(cut)
        spread = math.sqrt((rate * (1 - rate) + slope**2 * limit * (1 - limit)) / n)
        assert abs(metrics.tpr_at_fpr(scores, member, limit=limit) - rate) < 4 * spread
