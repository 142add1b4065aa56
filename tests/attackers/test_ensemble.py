"""The ensemble: ranks by hand, scikit-learn's regression, and statistics of which the best
combination is known."""

import numpy as np
import pytest
from attack_cases import gaussian_evidence, odds_evidence, paired_member
from helpers import fixed_evidence
from scipy.stats import norm, rankdata
from sklearn.linear_model import LogisticRegression

import attackers.loss
from attackers import COMBINED, VERDICTS, attack
from attackers.calibration import best_threshold, identity_score, threshold_attack
from attackers.ensemble import NormalRanks
from attackers.metrics import auc
from attackers.signals import log_odds
from core.console import NotApplicable, UserError


def test_ranks_worked_by_hand():
    others = np.array([[1.0], [2.0], [2.0], [5.0]])  # shares below, ties half: 1/8, 1/2, 7/8
    ranks = NormalRanks().fit(np.vstack([others, [[9.0]]]), np.array([0, 0, 0, 0, 1], bool))
    z = norm.ppf(7 / 8)
    slope = 2 * z / 4
    found = ranks.transform(np.array([[1.0], [1.5], [2.0], [3.5], [5.0], [9.0], [0.0]]))[:, 0]
    expected = [-z, -z / 2, 0, z / 2, z, z + np.log(1 + 4 * slope), -z - np.log(1 + slope)]
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("heavy", [False, True])
def test_ranks_keep_the_order_and_make_non_members_normal(heavy):
    draw = np.random.default_rng(0)
    x = draw.standard_cauchy((3000, 2)) if heavy else draw.exponential(size=(3000, 2))
    member = draw.random(3000) < 0.5
    found = NormalRanks().fit(x, member).transform(x)
    assert np.array_equal(rankdata(found[:, 0]), rankdata(x[:, 0]))
    others = found[~member]
    expected = norm.ppf((rankdata(x[~member][:, 1]) - 0.5) / len(others))
    assert others[:, 1] == pytest.approx(expected)


def test_one_value_for_all_says_nothing():
    member = np.array([True, False, False])
    found = NormalRanks().fit(np.ones((3, 1)), member).transform(np.array([[1.0], [2.0]]))
    assert found[:, 0] == pytest.approx([0, np.log(2)])


@pytest.mark.parametrize("name", ["loss", "calibrated", "lira", "bavaria", "base"])
@pytest.mark.parametrize("online", [False, True])
def test_of_one_attack_it_has_the_order(name, online):
    evidence = gaussian_evidence(8, n=400, online=online)
    alone = attack(name, evidence)[name]
    verdict = attack("ensemble", evidence, ensemble_of=(name,))["ensemble"]
    assert np.array_equal(rankdata(verdict.scores), rankdata(alone.scores))
    assert list(verdict.chosen) == [name] and verdict.chosen[name] > 0


def test_shadow_scores_are_those_of_each_shadow_as_the_victim():
    evidence = fixed_evidence(online=True)
    verdict = attack("calibrated", evidence)["calibrated"]
    in_turn = verdict.shadow_scores[evidence.calibration_mask]
    assert np.isnan(verdict.shadow_scores[~evidence.calibration_mask]).all()
    loss = evidence.measure(attackers.loss.cross_entropy)
    expected = np.concatenate(
        [attackers.loss.calibrated_score(role) for role, _ in loss.leave_one_out()]
    )
    assert in_turn == pytest.approx(expected, nan_ok=True)
    member = evidence.member[evidence.calibration_mask]
    known = ~np.isnan(expected)
    inside, outside = expected[known & member], expected[known & ~member]
    assert verdict.threshold == best_threshold(inside, outside)


def two_statistics(monkeypatch, shifts, *, n=1500, shadows=6, seed=1):
    """Evidence of two independent normal numbers a record, which `loss` and `lira` are made to
    report, higher by `shifts` for members; the second is reported as its exponential."""
    draw = np.random.default_rng(seed)
    member, truth = paired_member(draw, shadows, n), draw.random(n) < 0.5
    first = [draw.normal(size=n) + shifts[0] * of for of in (truth, *member)]
    second = {
        round(float(phi[0]), 9): draw.normal(size=n) + shifts[1] * of
        for phi, of in zip(first, (truth, *member))
    }
    evidence = odds_evidence(first[0], first[1:], member)

    def other(signals, labels):
        return np.exp(second[round(float(log_odds(signals, labels)[0]), 9)])

    for name, statistic in (("loss", log_odds), ("lira", other)):
        module = f"attackers.{name}.{name}"
        said = threshold_attack(evidence, statistic, identity_score)
        monkeypatch.setattr(module, lambda evidence, name=name, said=said, **_: {name: said})
    return evidence, truth


@pytest.mark.parametrize("shifts", [(0.8, 0.8), (1.2, 0.5), (1.0, 0.0)])
def test_complementary_statistics_come_near_the_optimum(shifts, monkeypatch):
    """The best AUC of two independent normals is Phi(|shift| / sqrt 2), of one Phi(shift / sqrt 2)."""
    evidence, truth = two_statistics(monkeypatch, shifts)
    verdict = attack("ensemble", evidence, ensemble_of=("loss", "lira"))["ensemble"]
    best = norm.cdf(np.hypot(*shifts) / 2**0.5)
    alone = max(auc(attack(name, evidence)[name].scores, truth) for name in ("loss", "lira"))
    error = 3 * 0.5 / np.sqrt(len(truth))
    found = auc(verdict.scores, truth)
    assert abs(found - best) < error and found > alone - 0.005
    if min(shifts) > 0.4:
        assert found > alone + 0.01
    weights = np.array(list(verdict.chosen.values()))
    assert weights == pytest.approx(shifts, abs=0.12)  # of Fisher's discriminant
    optimal = norm.cdf(np.hypot(*shifts) / 2)
    assert np.mean(verdict.member == truth) > optimal - error


def test_the_regression_is_scikit_learns():
    evidence = fixed_evidence(online=False)
    names = ("loss", "attack_p")
    said = [attack(name, evidence)[name] for name in names]
    mask = evidence.calibration_mask
    x = np.stack([verdict.shadow_scores[mask] for verdict in said], axis=1)
    y = evidence.member[evidence.calibration_mask]
    ranks = NormalRanks().fit(x, y)
    reference = LogisticRegression(solver="lbfgs", tol=1e-10, max_iter=10_000)
    reference.fit(ranks.transform(x), y)
    targets = ranks.transform(np.stack([verdict.scores for verdict in said], axis=1))
    verdict = attack("ensemble", evidence, ensemble_of=names)["ensemble"]
    assert verdict.scores == pytest.approx(reference.decision_function(targets), abs=1e-4)
    assert list(verdict.chosen.values()) == pytest.approx(reference.coef_[0].tolist(), abs=1e-3)


def test_attacks_that_cannot_be_made_are_left_out():
    evidence = fixed_evidence(online=False, shadows=2)
    verdict = attack("ensemble", evidence)["ensemble"]
    assert set(verdict.chosen) == {"loss", "attack_p", "bavaria", "base"}
    everyone = fixed_evidence(online=True)
    assert set(attack("ensemble", everyone)["ensemble"].chosen) == set(COMBINED)
    assert set(COMBINED) <= set(VERDICTS)
    with pytest.raises(NotApplicable, match="none of lira, rmia can be made"):
        attack("ensemble", evidence, ensemble_of=("lira", "rmia"))


def test_options_of_the_attacks_are_handed_on():
    evidence = fixed_evidence(online=False)
    fixed = dict(rmia_a=0.0, rmia_temperature=2.0)
    one = attack("ensemble", evidence, ensemble_of=("rmia",), **fixed)["ensemble"]
    alone = attack("rmia", evidence, **fixed)["rmia"]
    assert np.array_equal(rankdata(one.scores), rankdata(alone.scores))
    other = attack("ensemble", evidence, ensemble_of=("rmia",), rmia_a=1.0)["ensemble"]
    assert not np.array_equal(one.scores, other.scores)


@pytest.mark.parametrize("name", ["ensemble", "gap", "lira_joint", "noise_robustness", "samia"])
def test_what_cannot_be_combined_is_refused_by_name(name):
    with pytest.raises(UserError, match=f"^{name} cannot be combined"):
        attack("ensemble", fixed_evidence(online=True), ensemble_of=("lira", name))
