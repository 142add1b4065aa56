"""How far an attack can be relied on for a record: against counts by hand, models of known behaviour, and simulation."""

from dataclasses import replace

import numpy as np
import pytest
from attack_cases import odds_evidence, paired_member
from helpers import fixed_evidence
from scipy.special import expit
from scipy.stats import norm

from attackers import Verdict, attack, lira, metrics, records
from attackers.signals import log_odds


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("limit", [0.1, 0.01, 0.001, 1 / 3, 1.0])
def test_those_named_are_those_of_the_tpr(limit, ties):
    draw = np.random.default_rng(0)
    for n in (30, 1000, 2001):
        member = draw.random(n) < 0.5
        scores = draw.normal(size=n) + member
        scores = scores.round(1) if ties else scores
        named = metrics.named_records(scores, member, limit=limit)
        assert named[member].mean() == metrics.tpr_at_fpr(scores, member, limit=limit)
        assert named[~member].mean() <= limit
        if not named.all():  # and no lower threshold would do
            lower = scores >= scores[~named].max()
            assert lower[~member].mean() > limit


def test_no_more_is_named_than_may_be():
    """Of ten non-members one in ten may be; where two share the highest score, none."""
    member = np.arange(20) < 10
    others = [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
    scores = np.array([9.5, 8.5, 8, 7.5, *[0] * 6, *others], float)
    assert np.flatnonzero(metrics.named_records(scores, member, limit=0.1)).tolist() == [0, 1, 10]
    scores[11] = 9
    assert np.flatnonzero(metrics.named_records(scores, member, limit=0.1)).tolist() == [0]
    assert np.flatnonzero(metrics.named_records(scores, member, limit=0.05)).tolist() == [0]


def test_risk_by_hand():
    """Four models, three records; at most half of the six non-members are above the threshold."""
    member = np.array([[1, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 1]], bool)
    of_shadows = np.array([[9, 5, 2], [1, 7, 6], [3, 2, 4], [8, 0, 7]], float)
    # non-members: 1, 8 of the first record, 5, 0 of the second, 6, 4 of the third; above 4: 8, 5, 6
    tiled = [np.tile(one, 4) for one in (of_shadows, member)]  # 24 non-members: 10 / 0.5 are needed
    found = records.risk(*tiled, limit=0.5)
    assert found.models[:, :3].tolist() == [[2, 2, 2], [2, 2, 2]]
    assert found.risk[:3].tolist() == [0.5, 0.5, 0.5]  # 9, not 3; 7, not 2; 7, not 2
    assert found.false_alarms[:3].tolist() == [0.5, 0.5, 0.5]
    assert found.interval[0] == pytest.approx(metrics.clopper_pearson(1, 2))
    assert found.interval.shape == (12, 2)


def test_no_risk_is_told_where_scores_do_not_tell_it():
    draw = np.random.default_rng(0)
    member = paired_member(draw, 8, 400)
    scores = draw.normal(size=(8, 400))
    assert records.risk(scores, member) is not None
    assert records.risk(scores, member, limit=0.001) is None, "1600 non-members, not 10,000"
    assert records.risk((scores > 0).astype(float), member) is None
    assert records.risk(np.where(draw.random(scores.shape) < 0.95, 0, scores), member) is None
    member[:, 7] = False
    assert records.risk(scores, member) is None, "a record that no model was trained on"


def simulated(draw, *, models, records_num, memorised):
    """Scores of non-members are N(0, 1), of members N(m, 1) for the share of records that is memorised."""
    member = paired_member(draw, models, records_num)
    shift = np.where(draw.random(records_num) < memorised, draw.uniform(1, 5, records_num), 0.0)
    return draw.normal(size=member.shape) + member * shift, member, shift


def test_many_models_find_the_risk_that_records_have():
    scores, member, shift = simulated(
        np.random.default_rng(1), models=2000, records_num=60, memorised=0.5
    )
    found = records.risk(scores, member)
    expected = norm.sf(norm.ppf(0.99) - shift)
    assert np.ptp(expected) > 0.9
    assert found.risk == pytest.approx(expected, abs=0.06)  # 4 standard deviations, .5 / sqrt(1000)
    assert found.false_alarms == pytest.approx(np.full(60, 0.01), abs=0.015)
    low, high = found.interval.T
    assert (high - low < 0.07).all()


def test_intervals_of_eight_models_cover_the_risk():
    """Whatever the risk: in 95 % of records or more, and not as they are all from 0 to 1."""
    scores, member, shift = simulated(
        np.random.default_rng(2), models=16, records_num=6000, memorised=0.9
    )
    found, expected = records.risk(scores, member), norm.sf(norm.ppf(0.99) - shift)
    low, high = found.interval.T
    covered = (low <= expected) & (expected <= high)
    for least, most in ((0, 0.1), (0.1, 0.5), (0.5, 0.9), (0.9, 1)):
        chosen = (least <= expected) & (expected <= most)
        assert chosen.sum() > 300 and covered[chosen].mean() > 0.95, (least, most)
    assert (covered.mean() < 1) and (high - low).max() < 0.75


def test_memorisation_is_found_and_the_victim_is_not_counted():
    draw = np.random.default_rng(3)
    n, models = 40, 400
    member = paired_member(draw, models, n)
    p_out = draw.uniform(0.1, 0.5, n)
    p_in = p_out + draw.uniform(0, 0.5, n)
    noisy = np.clip(np.where(member, p_in, p_out) + draw.normal(0, 0.02, member.shape), 0.01, 0.99)
    phi = np.log(noisy / (1 - noisy))
    target = np.arange(n) < 30
    found = [
        records.memorisation(odds_evidence(victim, phi, member, target=target))
        for victim in (np.zeros(n), draw.normal(size=n))
    ]
    assert found[0] == pytest.approx((p_in - p_out)[:30], abs=0.01)
    assert (found[0] == found[1]).all()


def test_memorisation_against_the_sums():
    evidence = fixed_evidence(online=True)
    shadows = np.stack([expit(log_odds(one, evidence.labels)) for one in evidence.shadows])
    found = records.memorisation(evidence)
    for position, record in enumerate(np.flatnonzero(evidence.target)):
        of, member = shadows[:, record], evidence.member[:, record]
        if member.all() or not member.any():
            assert np.isnan(found[position])
        else:
            assert found[position] == pytest.approx(of[member].mean() - of[~member].mean())
    assert np.nanmean(found) > 0.1


def heterogeneous(draw, *, n=4000, models=16, shift=3.0):
    """Evidence of log odds with a mean and a spread for each record, memorised by a shift of some of them, and the
    truth."""
    member, truth = paired_member(draw, models, n), draw.permutation(np.arange(n) % 2 == 0)
    ease, spread = draw.normal(0, 2, n), np.exp(draw.normal(0, 0.7, n))
    memorised = shift * (draw.random(n) < 0.3)

    def phi(member):
        return ease + spread * (draw.normal(size=member.shape) + memorised * member)

    return odds_evidence(phi(truth), phi(member), member), truth, ease


def test_shadows_in_turn_have_the_scores_of_the_attack():
    evidence, _, _ = heterogeneous(np.random.default_rng(4), n=50, models=8)
    verdict = attack("lira", evidence, fix_variance=True)["lira"]
    phi = evidence.measure(log_odds)
    assert verdict.shadow_scores.shape == (8, 50)
    for index, (role, _) in enumerate(phi.leave_one_out()):
        assert (verdict.shadow_scores[index] == lira.online_score(role, fix_variance=True)).all()


@pytest.mark.parametrize("name", ["loss", "lira", "attack_p", "threshold", "base"])
def test_in_the_papers_split_targets_have_no_such_scores(name):
    evidence = fixed_evidence(online=False)
    for verdict in attack(name, evidence).values():
        assert records.scores_in_turn(verdict, evidence) is None


def test_without_such_scores_nothing_is_standardised():
    evidence = fixed_evidence(online=True)
    with pytest.raises(ValueError, match="no scores of the targets where shadows play the victim"):
        records.standardised(attack("gap", evidence)["gap"], evidence)


@pytest.mark.parametrize("name", ["loss", "lira", "base", "bavaria"])
def test_standardised_scores_tell_nothing_where_nothing_is_memorised(name):
    evidence, truth, _ = heterogeneous(np.random.default_rng(5), shift=0.0)
    scores = records.standardised(attack(name, evidence)[name], evidence)
    low, high = metrics.auc_interval(scores, truth)
    assert low < 0.5 < high and high - low < 0.05


def test_standardised_one_threshold_takes_easy_and_hard_records_more_alike():
    """Of raw losses, whom the threshold names is easy, member or not."""
    evidence, truth, ease = heterogeneous(np.random.default_rng(6), n=20000)
    hard, easy = ease < np.quantile(ease, 0.1), ease > np.quantile(ease, 0.9)

    def named(scores):
        return metrics.named_records(scores, truth, limit=0.01)

    verdict = attack("loss", evidence)["loss"]
    raw, standardised = named(verdict.scores), named(records.standardised(verdict, evidence))
    assert raw[~truth & easy].mean() > 0.04 and raw[~truth & hard].mean() < 0.005
    assert max(standardised[~truth & one].mean() for one in (hard, easy)) < 0.025
    assert standardised[truth].mean() > 1.5 * raw[truth].mean()
    verdict = attack("base", evidence)["base"]  # at one scale for all, so that it names the hard
    raw, standardised = named(verdict.scores), named(records.standardised(verdict, evidence))
    assert standardised[truth].mean() > 4 * raw[truth].mean()


def test_standardised_scores_do_not_depend_on_the_scale():
    evidence, _, _ = heterogeneous(np.random.default_rng(7), n=300)
    verdict = attack("loss", evidence)["loss"]
    exponential = replace(
        verdict, scores=np.exp(verdict.scores), shadow_scores=np.exp(verdict.shadow_scores)
    )
    found, again = (records.standardised(one, evidence) for one in (verdict, exponential))
    assert found == pytest.approx(again) and len(np.unique(found)) == 300


def test_standardised_scores_of_like_records_have_the_order_of_the_raw_ones():
    """Four shadows that are OUT say the same of each of two records."""
    member = paired_member(np.random.default_rng(8), 8, 200)
    of_shadows = np.where(member, 0.0, np.cumsum(~member, axis=0) * 1.0)
    scores = np.random.default_rng(9).permutation(200) / 50.0
    evidence = odds_evidence(scores, of_shadows, member)
    verdict = Verdict(scores, 0.0, shadow_scores=of_shadows)
    found = records.standardised(verdict, evidence)
    assert (np.argsort(found) == np.argsort(scores)).all()
