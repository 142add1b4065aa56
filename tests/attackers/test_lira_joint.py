"""The joint likelihood ratio: against lira, scipy's multivariate normal, and models whose truth is known."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from attack_cases import (
    balanced_member,
    gaussian_evidence,
    measured,
    odds_evidence,
    random_measured,
)
from scipy.stats import multivariate_normal, norm

from attackers import attack, lira, lira_joint
from attackers.calibration import pooled_scores
from attackers.metrics import auc
from attackers.signals import Release, log_odds

SCORES = {"online": "online_score", "offline": "offline_score"}


def releases_measured(*each):
    """One statistic of several, which differ in their values."""
    return replace(
        each[0],
        victim=np.stack([one.victim for one in each], axis=-1),
        every_shadow=np.stack([one.every_shadow for one in each], axis=-1),
    )


def with_release(evidence, other):
    """The same evidence with another one's models as the release "original"."""
    return replace(evidence, also={"original": Release(other.victim, other.shadows)})


# ---- one release, and numbers by hand --------------------------------------------------------------------------------


@pytest.mark.parametrize("fix_variance", [True, False])
@pytest.mark.parametrize("kind", SCORES)
def test_with_one_release_it_is_lira(kind, fix_variance):
    phi = random_measured(4, shadows=9, n=60, targets=45)
    expected = getattr(lira, SCORES[kind])(phi, fix_variance=fix_variance)
    found = getattr(lira_joint, SCORES[kind])(releases_measured(phi), fix_variance=fix_variance)
    assert np.isfinite(found).sum() > 10 and np.isnan(found).any()
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-12, nan_ok=True)


def test_a_fit_worked_by_hand(monkeypatch):
    """Residuals (-1, -1), (0, 2), (1, -1) and (-1, 0), (1, 0) of records with means (2, 1) and (5, 0)."""
    first = np.array([[1.0, 4.0, 9.0], [2.0, 6.0, 9.0], [3.0, 0.0, 0.0]])
    second = np.array([[0.0, 0.0, 9.0], [3.0, 0.0, 9.0], [0.0, 7.0, 0.0]])
    chosen = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0]], bool)
    monkeypatch.setattr(lira_joint, "shrinkage", lambda residuals, freedom: 0.25)
    fit = lira_joint.joint_fit(np.stack([first, second], axis=-1), chosen, fix_variance=True)
    assert fit.mean[:2].tolist() == [[2, 1], [5, 0]] and np.isnan(fit.mean[2]).all()
    # squares sum to 4 and 6, products to 0, over 2 + 1 degrees of freedom
    assert fit.deviation[:2] == pytest.approx(np.sqrt([[4 / 3, 2], [4 / 3, 2]]))
    assert fit.correlation == pytest.approx(np.eye(2))
    second[:2, 1] = [-1, 1]  # residuals -1 and 1 as in the first release: products sum to 2
    fit = lira_joint.joint_fit(np.stack([first, second], axis=-1), chosen, fix_variance=True)
    off = 0.75 * (2 / 3) / math.sqrt(4 / 3 * 8 / 3)
    assert fit.correlation == pytest.approx(np.array([[1, off], [off, 1]]))


def test_shrinkage_is_ledoit_and_wolfs_for_as_many_degrees_of_freedom():
    """By their formula, on standardised numbers: sum of squared errors of the products over squared correlations."""
    draw = np.random.default_rng(1)
    rows = draw.multivariate_normal([0, 0, 0], [[1, 0.6, 0], [0.6, 1, 0], [0, 0, 1]], size=60)
    rows /= np.sqrt((rows**2).mean(axis=0))
    covariance = rows.T @ rows / 60
    error = sum(((np.outer(row, row) - covariance) ** 2).sum() for row in rows) / 60**2
    expected = error / ((covariance - np.eye(3)) ** 2).sum()
    assert 0 < expected < 1
    assert lira_joint.shrinkage(rows, 60) == pytest.approx(expected)
    assert lira_joint.shrinkage(rows, 50) == pytest.approx(min(1, 1.2 * expected))
    assert lira_joint.shrinkage(rows[:, :1], 60) == lira_joint.shrinkage(rows[:0], 0) == 1
    signs = np.array([[1.0, 1.0], [-1.0, -1.0]])  # correlation 1 without an error
    assert lira_joint.shrinkage(signs, 1) == lira_joint.LEAST_SHRINKAGE


def test_a_member_shift_worked_by_hand():
    """Differences 3 (weight 2/3), 5 (weight 2/3) and one of a record without OUT, which says nothing."""
    member = np.array([[1, 0, 1], [0, 1, 1], [0, 1, 1]])
    one = measured([0, 0, 0], [[5, 1, 9], [1, 4, 9], [3, 8, 9]], member)
    two = measured([0, 0, 0], [[0, 1, 9], [1, 0, 9], [3, 0, 9]], member)
    assert lira_joint.member_shift(releases_measured(one, two)) == pytest.approx([4, 0])
    assert lira_joint.member_shift(releases_measured(two, two)).tolist() == [1, 1]
    nobody = measured([0, 0, 0], np.zeros((3, 3)), np.zeros((3, 3)))
    assert lira_joint.member_shift(releases_measured(nobody)).tolist() == [1]


# ---- scipy -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fix_variance", [True, False])
def test_scores_equal_scipys_multivariate_densities_record_by_record(fix_variance):
    each = [random_measured(4, shadows=9, n=60, targets=45)]
    draw = np.random.default_rng(5)
    for scale in (0.5, 3):  # correlated with the first
        each.append(
            replace(
                each[0],
                victim=scale * (each[0].victim + draw.normal(size=60)),
                every_shadow=scale * (each[0].every_shadow + draw.normal(size=(9, 60))),
            )
        )
    phi = releases_measured(*each)
    found = {
        kind: getattr(lira_joint, SCORES[kind])(phi, fix_variance=fix_variance) for kind in SCORES
    }
    fits = {
        kind: lira_joint.joint_fit(
            phi.shadows[:, :45], phi.member[:, :45] == kind, fix_variance=fix_variance
        )
        for kind in (True, False)
    }
    shift, known = lira_joint.member_shift(phi), 0
    for record in range(45):
        normals = {}
        for kind, fit in fits.items():
            rows = phi.shadows[phi.member[:, record] == kind, record]
            if len(rows) >= 2:
                assert fit.mean[record] == pytest.approx(rows.mean(axis=0))
                d = np.diag(fit.deviation[record])
                normals[kind] = multivariate_normal(rows.mean(axis=0), d @ fit.correlation @ d)
        if False in normals:
            out, value = normals[False], phi.victim[record]
            # the same direction by its definition: a ratio of two densities, less its mean among non-members
            ratio = multivariate_normal(out.mean + shift, out.cov).logpdf(value) - out.logpdf(value)
            distance = shift @ np.linalg.inv(out.cov) @ shift
            expected = (ratio + distance / 2) / math.sqrt(distance)
            assert found["offline"][record] == pytest.approx(expected)
        else:
            assert np.isnan(found["offline"][record])
        if len(normals) == 2:
            known += 1
            expected = normals[True].logpdf(phi.victim[record]) - normals[False].logpdf(
                phi.victim[record]
            )
            assert found["online"][record] == pytest.approx(expected)
        else:
            assert np.isnan(found["online"][record])
    assert 10 < known < 45


def test_a_pooled_covariance_is_that_of_all_residuals():
    draw = np.random.default_rng(6)
    cov = np.array([[1, 1.2], [1.2, 4]])
    phi = draw.normal(size=500)[None, :, None] + draw.multivariate_normal([0, 0], cov, (8, 500))
    fit = lira_joint.joint_fit(phi, np.ones((8, 500), bool), fix_variance=True)
    residuals = (phi - phi.mean(axis=0)).reshape(-1, 2)
    pooled = residuals.T @ residuals / (7 * 500)
    d = np.diag(fit.deviation[0])
    assert d @ fit.correlation @ d == pytest.approx(pooled, abs=0.01)
    assert pooled == pytest.approx(cov, rel=0.1)


# ---- simulations -----------------------------------------------------------------------------------------------------


def simulated(draw, *, shift, correlation=0.0, shadows=40, n=4000, online=True):
    """Two releases whose log odds, of standard deviation 1, a member's shift raises; who is a member.

    The first half of the records are targets; offline, shadows were trained on the others alone.
    """
    target = np.arange(n) < n // 2
    truth = (draw.random(n) < 0.5) & target
    member = balanced_member(draw, shadows, n) & (online | ~target)
    ease = draw.normal(0, 2, size=n)
    cov = [[1, correlation], [correlation, 1]]

    def phi(member):
        noise = draw.multivariate_normal([0, 0], cov, size=member.shape)
        return ease[:, None] + noise + member[..., None] * np.asarray(shift)

    victim, of_shadows = phi(truth), phi(member)
    mask = np.tile(target == online, (shadows, 1))
    one, two = (
        odds_evidence(
            victim[:, k], of_shadows[..., k], member, target=target, calibration_mask=mask
        )
        for k in range(2)
    )
    return one, two, truth[target]


def gains(seeds, *, copy=False, **settings):
    """By how much the joint attack's AUC exceeds lira's on the first release, (seeds,)."""
    found = []
    for seed in seeds:
        one, two, truth = simulated(np.random.default_rng(seed), **settings)
        joint = attack("lira_joint", with_release(one, one if copy else two))["lira_joint"]
        alone = attack("lira", one)["lira"]
        found.append(auc(joint.scores, truth) - auc(alone.scores, truth))
    return np.array(found)


def interval(values):
    """A 99 % interval of the mean."""
    half = 2.576 * values.std(ddof=1) / math.sqrt(len(values))
    return values.mean() - half, values.mean() + half


@pytest.mark.parametrize("online", [True, False])
@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_two_releases_are_worth_their_mahalanobis_distance(correlation, online):
    """AUC is Phi(d / sqrt 2), d^2 = shift' R^-1 shift: with equal shifts sqrt(2 / (1 + r)) times as far as one."""
    shift = np.array([1.0, 1.0])
    if correlation:
        shift = np.array([1.0, 0.2])  # the second release says how hard a record is
    exact = shift @ np.linalg.inv([[1, correlation], [correlation, 1]]) @ shift
    one, two, truth = simulated(
        np.random.default_rng(7), shift=shift, correlation=correlation, online=online
    )
    joint = auc(attack("lira_joint", with_release(one, two))["lira_joint"].scores, truth)
    alone = [auc(attack("lira", each)["lira"].scores, truth) for each in (one, two)]
    # means from 20 shadows with and without take a little away online: see the next test
    assert joint == pytest.approx(norm.cdf(math.sqrt(exact / 2)), abs=0.025)
    assert alone == pytest.approx(norm.cdf(shift / math.sqrt(2)), abs=0.025)
    assert joint > max(alone) + 0.05


@pytest.mark.parametrize("online", [True, False])
def test_a_copy_of_the_release_adds_nothing(online):
    low, high = interval(gains(range(6), shift=[1.0, 1.0], copy=True, online=online, n=600))
    assert low <= 0 <= high or max(abs(low), abs(high)) < 1e-4


@pytest.mark.parametrize("online", [True, False])
def test_a_network_on_other_data_adds_nothing(online):
    """Online it costs a little: each release adds 2 / m to the ratio's variance d^2, of means from m shadows each."""
    m = 20  # half of the shadows
    low, high = interval(gains(range(8), shift=[1.0, 0.0], online=online, n=1000))
    cost = norm.cdf(1 / math.sqrt(2 * (1 + 4 / m))) - norm.cdf(1 / math.sqrt(2 * (1 + 2 / m)))
    expected = cost if online else 0
    assert low <= 0 and low - 1e-4 <= expected <= high + 1e-4 and high - low < 0.02


@pytest.mark.parametrize("online", [True, False])
def test_the_threshold_calls_as_many_as_the_ratio_would(online):
    """Accuracy at the threshold from shadows is near the best, Phi(d / 2)."""
    one, two, truth = simulated(np.random.default_rng(9), shift=[1.5, 1.5], online=online)
    verdict = attack("lira_joint", with_release(one, two))["lira_joint"]
    accuracy = (verdict.member[truth].mean() + (~verdict.member[~truth]).mean()) / 2
    assert accuracy == pytest.approx(norm.cdf(1.5 / math.sqrt(2)), abs=0.03)


@pytest.mark.parametrize("online", [True, False])
def test_neither_the_order_of_shadows_nor_that_of_other_releases_matters(online):
    one, two, three = (gaussian_evidence(8, online=online, seed=8) for _ in range(3))
    draw = np.random.default_rng(1)

    def noisy(evidence):
        moved = [
            replace(each, logits=each.logits + draw.normal(size=each.logits.shape))
            for each in (evidence.victim, *evidence.shadows)
        ]
        return Release(moved[0], moved[1:])

    two, three = noisy(two), noisy(three)
    order = draw.permutation(8)

    def shuffled(release):
        return Release(release.victim, [release.shadows[index] for index in order])

    expected = attack("lira_joint", replace(one, also={"a": two, "b": three}))["lira_joint"]
    other_way = replace(
        one,
        shadows=[one.shadows[index] for index in order],
        member=one.member[order],
        calibration_mask=one.calibration_mask[order],
        also={"b": shuffled(three), "a": shuffled(two)},
    )
    found = attack("lira_joint", other_way)["lira_joint"]
    assert found.scores == pytest.approx(expected.scores, rel=1e-9)
    # of equally good thresholds the first one counts: what all are taken from is the same
    score = partial(
        getattr(lira_joint, SCORES["online" if online else "offline"]), fix_variance=True
    )
    played = [
        np.sort(pooled_scores(each.measure_releases(log_odds), score)[0])
        for each in (replace(one, also={"a": two, "b": three}), other_way)
    ]
    assert played[0] == pytest.approx(played[1], rel=1e-9)
    same_shadows = attack("lira_joint", replace(one, also={"b": three, "a": two}))["lira_joint"]
    assert same_shadows.threshold == pytest.approx(expected.threshold, rel=1e-9)


def test_the_variances_rule_is_liras():
    one = gaussian_evidence(64)
    evidence = with_release(one, gaussian_evidence(64, seed=9))
    by_default = attack("lira_joint", evidence)["lira_joint"].scores
    own, shared = (
        attack("lira_joint", evidence, fix_variance=fixed)["lira_joint"].scores
        for fixed in (False, True)
    )
    assert np.array_equal(by_default, own) and not np.array_equal(own, shared)
