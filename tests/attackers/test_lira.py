"""LiRA: against numpy, scipy's densities and models whose likelihood ratio is known."""

import math

import numpy as np
import pytest
from attack_cases import (
    balanced_member,
    gaussian_evidence,
    measured,
    odds_evidence,
    random_measured,
    same_verdict,
)
from scipy.stats import norm

from attackers import attack, lira
from attackers.metrics import auc, tpr_at_fpr
from attackers.signals import log_odds
from core.console import UserError


def test_logits_of_two_classes_have_the_log_odds_that_these_tests_are_built_on():
    phi = np.random.default_rng(0).normal(size=50) * 10
    assert log_odds(
        odds_evidence(phi, [phi], [phi > 0]).victim, np.zeros(50, int)
    ) == pytest.approx(phi)


def test_a_gaussian_for_each_record_is_numpys():
    phi = random_measured(3, n=60, targets=60)
    mu, sigma = lira.gaussian_fit(phi.shadows, phi.member, fix_variance=False)
    few = 0
    for record in range(60):
        here = phi.shadows[phi.member[:, record], record]
        if len(here) < 2:
            few += 1
            assert np.isnan(mu[record])
        else:
            assert mu[record] == pytest.approx(np.mean(here))
            assert sigma[record] == pytest.approx(np.std(here, ddof=1))
    assert 0 < few < 60


def test_a_pooled_variance_worked_by_hand():
    # means 2 and 6; squares of residuals 1 + 0 + 1 and 4 + 4; degrees of freedom 2 and 1; a third has too few
    phi = np.array([[1.0, 4.0, 9.0], [2.0, 8.0, 9.0], [3.0, 5.0, 9.0]])
    chosen = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0]], bool)
    mu, sigma = lira.gaussian_fit(phi, chosen, fix_variance=True)
    assert mu[:2].tolist() == [2, 6] and np.isnan(mu[2])
    assert sigma[:2] == pytest.approx(math.sqrt(10 / 3))
    assert lira.gaussian_fit(phi, chosen, fix_variance=False)[1][:2] == pytest.approx(
        [1, math.sqrt(8)]
    )


def pooled(phi, member, kind):
    """A variance for all records, from those of whom two shadows or more are of the kind."""
    groups = [
        phi[member[:, i] == kind, i]
        for i in range(phi.shape[1])
        if (member[:, i] == kind).sum() >= 2
    ]
    return sum(((group - group.mean()) ** 2).sum() for group in groups) / sum(
        len(group) - 1 for group in groups
    )


@pytest.mark.parametrize("fix_variance", [False, True])
def test_scores_equal_scipys_densities_record_by_record(fix_variance):
    phi = random_measured(4, shadows=9, n=60, targets=45)
    online, offline = (
        lira.online_score(phi, fix_variance=fix_variance),
        lira.offline_score(phi, fix_variance=fix_variance),
    )
    of_all = {
        kind: math.sqrt(pooled(phi.shadows[:, :45], phi.member[:, :45], kind))
        for kind in (True, False)
    }
    known = 0
    for record in range(45):
        fits = {}
        for kind in (True, False):
            here = phi.shadows[phi.member[:, record] == kind, record]
            if len(here) >= 2:
                fits[kind] = norm(here.mean(), of_all[kind] if fix_variance else here.std(ddof=1))
        value = phi.victim[record]
        if False in fits:
            assert norm.logcdf(offline[record]) == pytest.approx(fits[False].logcdf(value))
        else:
            assert np.isnan(offline[record])
        if len(fits) == 2:
            known += 1
            assert online[record] == pytest.approx(
                fits[True].logpdf(value) - fits[False].logpdf(value)
            )
        else:
            assert np.isnan(online[record])
    assert 10 < known < 45 and len(online) == len(offline) == 45


# many parameters: those of two normal distributions
def gaussian_models(draw, *, shadows, truth, mu_in, mu_out=0.0, sigma_in=1.0, sigma_out=1.0):
    """phi of victim and shadows from N(mu_in, sigma_in) with the record, N(mu_out, sigma_out) without."""
    n = len(truth)
    member = balanced_member(draw, shadows, n)

    def phi(member):
        return draw.normal(np.where(member, mu_in, mu_out), np.where(member, sigma_in, sigma_out))

    return measured(phi(truth), phi(member), member)


def test_with_many_shadows_the_online_score_approaches_the_true_likelihood_ratio():
    """Its error falls as one over the root of their number."""
    draw, n = np.random.default_rng(5), 300
    mu_out, sigma_out, sigma_in = (
        draw.normal(0, 3, n),
        draw.uniform(0.5, 2, n),
        draw.uniform(0.5, 2, n),
    )
    known = dict(
        mu_out=mu_out, mu_in=mu_out + draw.uniform(0, 2, n), sigma_out=sigma_out, sigma_in=sigma_in
    )
    error = {}
    for shadows in (100, 400, 1600):
        phi = gaussian_models(draw, shadows=shadows, truth=draw.random(n) < 0.5, **known)
        true = norm.logpdf(phi.victim, known["mu_in"], sigma_in) - norm.logpdf(
            phi.victim, mu_out, sigma_out
        )
        found = lira.online_score(phi, fix_variance=False)
        error[shadows] = np.median(np.abs(found - true))
        assert np.corrcoef(found, true)[0, 1] > 0.95
    assert error[400] < 0.12 and 2.8 < error[100] / error[1600] < 5.6


@pytest.mark.parametrize("fix_variance", [False, True])
def test_the_roc_of_gaussian_records_is_the_analytic_one(fix_variance):
    """AUC is Phi(d / sqrt 2) and TPR at FPR a is Phi(d + Phi^-1(a)), within four standard errors."""
    draw, d, n = np.random.default_rng(6), 1.5, 4000
    truth = np.arange(n) % 2 == 0
    phi = gaussian_models(draw, shadows=400, mu_in=d, truth=truth)
    scores, half = lira.online_score(phi, fix_variance=fix_variance), n // 2
    exact = norm.cdf(d / math.sqrt(2))
    q1, q2 = exact / (2 - exact), 2 * exact**2 / (1 + exact)  # Hanley & McNeil 1982
    spread = math.sqrt((exact * (1 - exact) + (half - 1) * (q1 + q2 - 2 * exact**2)) / half**2)
    assert abs(auc(scores, truth) - exact) < 4 * spread
    for limit in (0.1, 0.01):
        cut = norm.ppf(limit)
        rate, slope = norm.cdf(d + cut), norm.pdf(d + cut) / norm.pdf(cut)
        spread = math.sqrt((rate * (1 - rate) + slope**2 * limit * (1 - limit)) / half)
        assert abs(tpr_at_fpr(scores, truth, limit=limit) - rate) < 4 * spread


def test_where_all_records_are_separated_alike_the_offline_score_orders_them_as_the_ratio_does():
    """Its AUC is the analytic one too."""
    draw, d = np.random.default_rng(7), 1.5
    truth = np.arange(4000) % 2 == 0
    phi = gaussian_models(draw, shadows=400, mu_in=d, truth=truth)
    scores = lira.offline_score(phi, fix_variance=True)
    assert auc(scores, truth) == pytest.approx(norm.cdf(d / math.sqrt(2)), abs=0.025)
    assert np.corrcoef(scores, phi.victim)[0, 1] > 0.99


def test_offline_scores_have_the_order_of_log_phi_and_no_ties_where_that_rounds_to_zero():
    draw = np.random.default_rng(13)
    out = draw.normal(size=(5, 200))
    for reach, ties in ((3, False), (100, True)):
        phi = measured(np.linspace(-reach, reach, 200), out - out.mean(axis=0), np.zeros((5, 200)))
        mu, sigma = lira.gaussian_fit(phi.shadows, ~phi.member, fix_variance=True)
        log_phi, scores = (
            norm.logcdf(phi.victim, mu, sigma),
            lira.offline_score(phi, fix_variance=True),
        )
        assert len(np.unique(scores)) == 200 and (len(np.unique(log_phi)) < 200) == ties
        order = np.argsort(scores)
        assert (np.diff(log_phi[order]) >= 0).all() and (order == np.arange(200)).all()


@pytest.mark.parametrize("online", [True, False])
@pytest.mark.parametrize("shadows, shared", [(6, True), (62, True), (64, False)])
def test_below_64_shadows_all_records_share_a_variance(shadows, shared, online):
    evidence = gaussian_evidence(shadows, online=online)
    phi, score = evidence.measure(log_odds), lira.online_score if online else lira.offline_score
    by_default = attack("lira", evidence)["lira"].scores
    assert (by_default == score(phi, fix_variance=shared)).all()
    for asked in (True, False):
        assert (
            attack("lira", evidence, fix_variance=asked)["lira"].scores
            == score(phi, fix_variance=asked)
        ).all()
    assert (by_default != score(phi, fix_variance=not shared)).all()


def test_lira_is_the_online_attack_where_it_can_be_and_else_the_offline_one():
    evidence = gaussian_evidence(8)
    online, offline = (attack(name, evidence)[name] for name in ("lira_online", "lira_offline"))
    assert same_verdict(attack("lira", evidence)["lira"], online) and not same_verdict(
        online, offline
    )
    evidence = gaussian_evidence(8, online=False)
    assert same_verdict(
        attack("lira", evidence)["lira"], attack("lira_offline", evidence)["lira_offline"]
    )
    with pytest.raises(UserError, match="use lira"):
        attack("lira_online", evidence)


def test_the_threshold_of_lira_is_that_of_shadows_against_all_others():
    """On many Gaussian records, near where the two likelihoods are equal: a ratio of 1."""
    draw, n = np.random.default_rng(9), 1000
    member = balanced_member(draw, 16, n)
    evidence = odds_evidence(draw.normal(size=n), draw.normal(size=(16, n)) + 3 * member, member)
    assert attack("lira", evidence)["lira"].threshold == pytest.approx(0, abs=0.7)
