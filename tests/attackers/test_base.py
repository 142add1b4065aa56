"""BASE: by hand, against loops, RMIA and models whose likelihood ratio is known."""

import math
from dataclasses import replace
from decimal import Decimal, getcontext
from functools import partial

import numpy as np
import pytest
import torch
from attack_cases import (
    gaussian_evidence,
    logits_and_labels,
    measured,
    odds_evidence,
    paired_member,
    random_measured,
    same_verdict,
)

from attackers import Evidence, attack, base, rmia
from attackers.metrics import auc
from attackers.signals import Signals


def in_logs(p):
    """Posteriors as the statistic that the attack takes, their logarithms."""
    return replace(p, victim=np.log(p.victim), every_shadow=np.log(p.every_shadow))


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_log_posteriors_are_torchs_at_a_temperature(temperature):
    logits, labels = logits_and_labels()
    exact = torch.log_softmax(torch.from_numpy(logits).double() / temperature, dim=1).numpy()
    assert base.log_posterior(Signals(logits), labels, temperature=temperature) == pytest.approx(
        exact[np.arange(len(labels)), labels], rel=1e-9
    )


def test_scores_worked_by_hand():
    # record 0: OUT .1 and .3, mean .2; IN .9; online (.9 + .2) / 2 = .55
    # record 1 is IN nowhere: OUT .1, .3 and .8, mean .4
    p = in_logs(
        measured([0.5, 0.5], [[0.1, 0.1], [0.9, 0.3], [0.3, 0.8]], [[0, 0], [1, 0], [0, 0]])
    )
    assert base.score(p, online=False) == pytest.approx([math.log(2.5), math.log(1.25)])
    assert base.score(p, scale=0.5, online=False) == pytest.approx(
        [math.log(0.5 / math.sqrt(0.2)), math.log(0.5 / math.sqrt(0.4))]
    )
    assert base.score(p, online=True) == pytest.approx([math.log(0.5 / 0.55), np.nan], nan_ok=True)


def test_scores_equal_a_loop_and_are_unknown_where_no_shadow_of_a_kind_is():
    p = random_measured(3, shadows=5)
    online, offline = (base.score(in_logs(p), online=kind) for kind in (True, False))
    without_out = without_in = 0
    for record in range(25):
        inside, out = (p.shadows[p.member[:, record] == kind, record] for kind in (True, False))
        if not len(out):
            without_out += 1
            assert np.isnan(offline[record]) and np.isnan(online[record])
            continue
        assert offline[record] == pytest.approx(math.log(p.victim[record] / out.mean()))
        if not len(inside):
            without_in += 1
            assert np.isnan(online[record])
        else:
            evidence = (inside.mean() + out.mean()) / 2
            assert online[record] == pytest.approx(math.log(p.victim[record] / evidence))
    assert without_out and without_in and len(online) == len(offline) == 25


def test_means_of_posteriors_next_to_1_and_next_to_0_keep_their_digits():
    """As in decimals of 60 digits."""
    getcontext().prec = 60
    # from a power of 17 on, 1.0 as a float
    posteriors = [[1 - Decimal(10) ** -power * k for k in (1, 2, 7)] for power in (5, 12, 17, 25)]
    posteriors += [[Decimal(10) ** -power * k for k in (1, 2, 7)] for power in (12, 290)]
    posteriors += [[1 - Decimal(10) ** -20, Decimal(10) ** -200, Decimal(10) ** -250]]
    log_p = np.array([[float(one.ln()) for one in record] for record in posteriors]).T
    exact = [float((sum(record) / 3).ln()) for record in posteriors]
    assert base.log_mean(log_p, np.ones(log_p.shape, bool)) == pytest.approx(
        exact, rel=1e-12, abs=0
    )
    log_p = log_p[:, :4]
    p = measured(log_p[0], log_p, np.zeros(log_p.shape))
    exact = [float((record[0] / (sum(record) / 3)).ln()) for record in posteriors[:4]]
    assert base.score(p, online=False) == pytest.approx(exact, rel=1e-9, abs=0)
    # IN and OUT alike: the mean of two equal means
    p = measured(log_p[0], np.tile(log_p, (2, 1)), np.arange(6)[:, None] < np.full(4, 3))
    assert base.score(p, online=True) == pytest.approx(exact, rel=1e-9, abs=0)


def beta_models(draw, *, shadows, n, online=False):
    """Posteriors Beta(a, b) without the record and Beta(a + 1, b) with it; members; a / (a + b).

    The density with the record is that without, times p, over its mean: a model is drawn in
    proportion to its likelihood of its records, and log p - log (a / (a + b)) is the exact
    log-likelihood ratio.
    """
    a, b = draw.uniform(0.5, 6, n), draw.uniform(0.5, 6, n)
    truth = draw.random(n) < 0.5
    member = paired_member(draw, shadows, n) & online
    p = measured(draw.beta(a + truth, b), draw.beta(a + member, b), member)
    return in_logs(p), truth, a / (a + b)


def test_with_many_shadows_the_offline_score_approaches_the_exact_likelihood_ratio():
    """Its error falls as one over the root of their number."""
    draw, error = np.random.default_rng(5), {}
    for shadows in (50, 200, 800):
        log_p, _, mean = beta_models(draw, shadows=shadows, n=400)
        exact = log_p.victim - np.log(mean)
        error[shadows] = np.median(np.abs(base.score(log_p, online=False) - exact))
    assert error[800] < 0.02 and 2.8 < error[50] / error[800] < 5.6


def test_no_other_scale_separates_better_where_the_scores_are_likelihood_ratios():
    """Nor does the online form: Bayes' rule has the mean over models without the record."""
    log_p, truth, mean = beta_models(np.random.default_rng(6), shadows=200, n=10000, online=True)
    best = auc(log_p.victim - np.log(mean), truth)
    assert auc(base.score(log_p, online=False), truth) == pytest.approx(best, abs=0.002)
    for scale in (0.0, 0.3, 0.6, 0.8):
        assert auc(base.score(log_p, scale=scale, online=False), truth) < best
    assert best - 0.02 < auc(base.score(log_p, online=True), truth) < best


def beta_evidence(draw, *, n=4000, shadows=10):
    """Evidence in the paper's split of models as those of `beta_models`; who is a member."""
    target = np.arange(n) < n // 2
    member = paired_member(draw, shadows, n) & ~target
    truth = (draw.random(n) < 0.5) & target
    a, b = draw.uniform(0.5, 6, (2, n))

    def phi(member):
        p = draw.beta(a + member, b)
        return np.log(p) - np.log1p(-p)

    return odds_evidence(
        phi(truth),
        np.stack([phi(one) for one in member]),
        member,
        target=target,
        calibration_mask=np.tile(~target, (shadows, 1)),
    ), truth[target]


def test_the_scale_that_is_chosen_is_near_that_of_bayes_rule_where_this_holds():
    evidence, truth = beta_evidence(np.random.default_rng(7))
    found = attack("base", evidence)["base"]
    assert found.chosen["temperature"] == 1 and found.chosen["scale"] >= 0.7
    assert abs(np.mean(found.member == truth) - best_accuracy(evidence, truth)) < 0.02


def best_accuracy(evidence, truth):
    """That of the best threshold on the truth itself."""
    log_p = evidence.measure(partial(base.log_posterior, temperature=1.0))
    scores = base.score(log_p, online=False)
    return max(
        np.mean((scores >= limit) == truth) for limit in np.quantile(scores, np.arange(0, 1, 0.01))
    )


@pytest.mark.parametrize("online", [False, True])
def test_of_one_model_the_order_is_that_of_rmias_ratio(online):
    """So that it is RMIA's with any population, without trimming and, offline, with a = 1."""
    evidence = gaussian_evidence(8, n=400, online=online)
    for temperature in (1.0, 2.0):
        log_p = evidence.measure(partial(base.log_posterior, temperature=temperature))
        p = evidence.measure(partial(rmia.true_posterior, temperature=temperature))
        settings = rmia.Settings(temperature=temperature, trim=0.0, a=1.0, gamma=1.0)
        ratios = rmia.likelihood_ratio(p, p.target, settings, online=online)
        scores = base.score(log_p, online=online)
        assert scores == pytest.approx(np.log(ratios), abs=1e-12)
        ranks = rmia.score(p, settings, online=online)
        assert (np.argsort(scores) == np.argsort(ranks)).all()


def pair_count(scores, member):
    """AUC from its definition: the share of pairs in order, ties half."""
    wins = [(m > o) + (m == o) / 2 for m in scores[member] for o in scores[~member]]
    return sum(wins) / len(wins)


@pytest.mark.parametrize("online", [False, True])
def test_the_settings_that_are_chosen_have_the_largest_mean_area_over_the_shadows(online):
    evidence, areas = gaussian_evidence(7, n=80, online=online, seed=1), {}
    for temperature in (1.0, 2.0):
        log_p = evidence.measure(partial(base.log_posterior, temperature=temperature))
        for scale in (1.0,) if online else np.arange(11) / 10:
            found = []
            for role, member in log_p.leave_one_out():
                scores = base.score(role, scale=scale, online=online)
                known = ~np.isnan(scores)
                found.append(pair_count(scores[known], member[known]))
            areas[temperature, round(scale, 1)] = np.mean(found)
    chosen = base.choose(evidence)
    assert areas[chosen.temperature, chosen.scale] == pytest.approx(max(areas.values()), abs=1e-12)
    assert len(set(areas.values())) > 1
    names = {"temperature"} if online else {"temperature", "scale"}
    assert set(attack("base", evidence)["base"].chosen) == names


def test_base_does_not_choose_by_the_victim():
    evidence = gaussian_evidence(8)
    other = Evidence(**vars(evidence) | {"victim": Signals(evidence.victim.logits[::-1].copy())})
    one, two = (attack("base", of)["base"] for of in (evidence, other))
    assert one.chosen == two.chosen and one.threshold == two.threshold
    assert not same_verdict(one, two)


@pytest.mark.parametrize("online", [False, True])
def test_base_scores_every_target_however_large_the_logits(online):
    """Posteriors of 0 make no ratio of two zeros, and those next to 1 are not all alike."""
    evidence = gaussian_evidence(8, online=online)
    scaled = replace(
        evidence,
        victim=replace(evidence.victim, logits=3000 * evidence.victim.logits),
        shadows=[replace(shadow, logits=3000 * shadow.logits) for shadow in evidence.shadows],
    )
    with np.errstate(all="raise", under="ignore"):
        assert np.isfinite(attack("base", scaled)["base"].scores).all()
    sure = replace(
        evidence,
        victim=Signals(evidence.victim.logits + [60, 0]),
        shadows=[Signals(shadow.logits + [60, 0]) for shadow in evidence.shadows],
    )
    assert len(np.unique(attack("base", sure)["base"].scores)) == 20


@pytest.mark.parametrize("online", [False, True])
def test_equal_posteriors_give_equal_scores(online):
    """0 where the ratio is 1, whatever the number of shadows."""
    member = paired_member(np.random.default_rng(0), 6, 40)
    target = np.ones(40, bool) if online else np.arange(40) < 20
    evidence = Evidence.from_posteriors(
        np.zeros(40, int),
        victim=np.tile([0.3, 0.7], (40, 1)),
        shadows=np.tile([0.3, 0.7], (6, 40, 1)),
        member=member & (online | ~target),
        target=target,
    )
    verdict = attack("base", evidence)["base"]
    assert (verdict.scores == 0).all() and verdict.threshold == 0
