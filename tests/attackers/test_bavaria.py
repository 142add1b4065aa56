"""BaVarIA: by hand, against numerical integration, scipy, LiRA and models whose truth is known."""

import math
from dataclasses import astuple

import numpy as np
import pytest
from attack_cases import balanced_member, gaussian_evidence, measured, random_measured
from scipy.integrate import simpson
from scipy.optimize import check_grad, minimize
from scipy.stats import invgamma, norm
from scipy.stats import t as student_t

from attackers import Evidence, attack, bavaria, lira
from attackers.metrics import auc
from attackers.signals import log_odds
from core.console import UserError

PRIOR = bavaria.Prior(mean=0.5, kappa=0.7, alpha=1.8, beta=1.2)


def column(values):
    """One record's values under as many shadows, all of them chosen."""
    phi = np.array(values, float)[:, None]
    return phi, np.ones(phi.shape, bool)


def test_a_predictive_distribution_worked_by_hand():
    # prior 0, 1, 2, 3 and values 1 and 3: n 2, mean 2, squares 2; kappa_n 3, alpha_n 3, m_n 4 / 3,
    # beta_n = 3 + 1 + (1 * 2 * 4) / (2 * 3) = 16 / 3; scale^2 = 16 / 3 * 4 / (3 * 3) = 64 / 27
    freedom, location, scale = bavaria.predictive(*column([1, 3]), bavaria.Prior(0, 1, 2, 3))
    assert (freedom[0], location[0], scale[0] ** 2) == pytest.approx((6, 4 / 3, 64 / 27))
    # value 1 alone: kappa_n 2, alpha_n 2.5, m_n .5, beta_n = 3 + 1 / 4;
    # scale^2 = 13 / 4 * 3 / 5 = 39 / 20
    freedom, location, scale = bavaria.predictive(*column([1]), bavaria.Prior(0, 1, 2, 3))
    assert (freedom[0], location[0], scale[0] ** 2) == pytest.approx((5, 0.5, 39 / 20))


def integrated(values, prior):
    """The marginal likelihood of values: scipy's densities, summed over mu and log sigma^2."""
    log_variance = np.linspace(-10, 20, 2001)
    variance = np.exp(log_variance)
    weight = len(values) + prior.kappa
    middle = (sum(values) + prior.kappa * prior.mean) / weight
    mu = middle + np.linspace(-10, 10, 801)[:, None] * np.sqrt(variance / weight)
    density = norm.pdf(mu, prior.mean, np.sqrt(variance / prior.kappa))
    for value in values:
        density *= norm.pdf(value, mu, np.sqrt(variance))
    over_mu = simpson(density, x=mu, axis=0)
    of_variance = invgamma.pdf(variance, prior.alpha, scale=prior.beta) * variance
    return simpson(over_mu * of_variance, x=log_variance)


@pytest.mark.parametrize("values", [[0.3], [-1.0, 2.0], [0.9, 1.0, 1.1, 4.0]])
def test_the_predictive_density_is_that_of_numerical_integration(values):
    of_values = integrated(values, PRIOR)
    parameters = (PRIOR.mean, *np.log([PRIOR.kappa, PRIOR.alpha, PRIOR.beta / PRIOR.alpha]))
    minus_log, _ = bavaria._minus_log_likelihood(
        np.array(parameters), bavaria.RecordSums.of(*column(values))
    )
    assert math.exp(-minus_log) == pytest.approx(of_values, rel=1e-7)
    for following in (-2.0, 0.4, 5.0):
        density = student_t.pdf(following, *bavaria.predictive(*column(values), PRIOR))
        assert density[0] == pytest.approx(
            integrated([*values, following], PRIOR) / of_values, rel=1e-7
        )


def nig_values(draw, prior, *, n, shadows):
    """phi (S, n) of records whose mean and variance are drawn from the prior."""
    variance = invgamma.rvs(prior.alpha, scale=prior.beta, size=n, random_state=draw)
    mu = draw.normal(prior.mean, np.sqrt(variance / prior.kappa))
    return draw.normal(mu, np.sqrt(variance), size=(shadows, n))


def test_the_gradient_is_that_of_differences():
    draw = np.random.default_rng(0)
    phi = nig_values(draw, PRIOR, n=50, shadows=6)
    chosen = draw.random(phi.shape) < 0.6
    sums = bavaria.RecordSums.of(phi, chosen)
    for parameters in ([0.1, -0.5, 0.6, 0.2], [-1.0, 1.0, 2.0, -1.0]):
        off = check_grad(
            lambda at: bavaria._minus_log_likelihood(at, sums)[0],
            lambda at: bavaria._minus_log_likelihood(at, sums)[1],
            np.array(parameters),
        )
        assert off < 1e-6


@pytest.mark.parametrize("shadows", [2, 5, 30])
def test_the_prior_that_records_are_drawn_from_is_found(shadows):
    draw = np.random.default_rng(2)
    phi = nig_values(draw, PRIOR, n=20000, shadows=shadows)
    found = bavaria.fit_prior(phi, draw.random(phi.shape) < (0.7 if shadows > 2 else 1))
    assert astuple(found) == pytest.approx(astuple(PRIOR), rel=0.1, abs=0.05)


def test_no_other_prior_has_a_larger_marginal_likelihood():
    """By a search without gradients, from elsewhere."""
    draw = np.random.default_rng(3)
    phi = nig_values(draw, PRIOR, n=300, shadows=4)
    chosen = draw.random(phi.shape) < 0.8
    chosen[0] = True
    sums, found = bavaria.RecordSums.of(phi, chosen), bavaria.fit_prior(phi, chosen)
    other = minimize(
        lambda at: bavaria._minus_log_likelihood(at, sums)[0],
        [2.0, 1.0, 1.0, 1.0],
        method="Nelder-Mead",
        options={"xatol": 1e-8, "fatol": 1e-12, "maxiter": 4000},
    ).x
    kappa, alpha, variance = np.exp(other[1:])
    assert astuple(found) == pytest.approx((other[0], kappa, alpha, alpha * variance), rel=1e-3)


@pytest.mark.parametrize("online", [True, False])
def test_scores_do_not_depend_on_unit_and_origin_of_phi(online):
    draw = np.random.default_rng(4)
    member = balanced_member(draw, 8, 200) & online
    phi = measured(draw.normal(size=200), draw.normal(size=(8, 200)) + member, member)
    moved = measured(3 * phi.victim - 50, 3 * phi.every_shadow - 50, member)
    assert scores_of(phi, online) == pytest.approx(scores_of(moved, online), rel=1e-5, abs=1e-6)


def scores_of(phi, online):
    """With the priors of all of the shadows."""
    out = bavaria.fit_prior(phi.every_shadow, ~phi.every_member)
    if not online:
        return bavaria.offline_score(phi, out=out)
    inside = bavaria.fit_prior(phi.every_shadow, phi.every_member)
    return bavaria.online_score(phi, inside=inside, out=out)


def test_scores_equal_scipys_densities_record_by_record():
    phi = random_measured(4, shadows=6, n=60, targets=45)
    inside, out = PRIOR, bavaria.Prior(0.2, 0.4, 3.0, 0.5)
    online = bavaria.online_score(phi, inside=inside, out=out)
    offline = bavaria.offline_score(phi, out=out)
    unknown = 0
    for record in range(45):
        fits = {}
        for kind, prior in ((True, inside), (False, out)):
            here = phi.shadows[phi.member[:, record] == kind, record]
            if len(here):
                fits[kind] = student_t(
                    *(one[0] for one in bavaria.predictive(*column(here), prior))
                )
        value = phi.victim[record]
        if False in fits:
            # Wallace's deviate is within .035 of the exact one from three degrees of freedom on
            assert offline[record] == pytest.approx(norm.ppf(fits[False].cdf(value)), abs=0.035)
        else:
            assert np.isnan(offline[record])
        if len(fits) == 2:
            expected = fits[True].logpdf(value) - fits[False].logpdf(value)
            assert online[record] == pytest.approx(expected)
        else:
            unknown += 1
            assert np.isnan(online[record])
    assert 0 < unknown < 35


def test_the_normal_deviate_is_close_to_the_exact_one_and_never_ties():
    z = np.linspace(-6, 6, 1001)
    for freedom, slack in ((1.0, 0.11), (3.0, 0.035), (10.0, 0.011), (2000.0, 1e-4)):
        exact = norm.ppf(student_t.cdf(z, freedom))
        assert np.abs(bavaria.normal_deviate(z, freedom) - exact).max() < slack
    assert bavaria.normal_deviate(z, 1e8) == pytest.approx(z, abs=1e-5)
    far = bavaria.normal_deviate(np.array([-1e12, -1e6, -1e-9, 0, 1e-9, 1e6, 1e12]), 200.0)
    assert np.isfinite(far).all() and (np.diff(far) > 0).all()


def simulated(draw, *, n, shadows, online):
    """phi of records of unlike means and variances; members; the score of one who knows both."""
    sigma_out, sigma_in = np.sqrt(invgamma.rvs(3, scale=2, size=(2, n), random_state=draw))
    mu_out = draw.normal(0, 2 * sigma_out)
    mu_in = mu_out + draw.normal(1.5, 0.5, n)
    truth, member = draw.random(n) < 0.5, balanced_member(draw, shadows, n) & online

    def phi(member):
        return draw.normal(np.where(member, mu_in, mu_out), np.where(member, sigma_in, sigma_out))

    found = measured(phi(truth), phi(member), member)
    known = (found.victim - mu_out) / sigma_out
    if online:
        known = norm.logpdf(found.victim, mu_in, sigma_in) - norm.logpdf(known) + np.log(sigma_out)
    return found, truth, known


@pytest.mark.parametrize("online", [True, False])
def test_with_few_shadows_it_is_nearer_to_the_truth_than_a_variance_for_all_or_of_ones_own(online):
    draw = np.random.default_rng(7)
    for shadows in (4, 8, 16):
        phi, truth, known = simulated(draw, n=6000, shadows=shadows, online=online)
        scores = scores_of(phi, online)
        by_lira = lira.online_score if online else lira.offline_score
        for fix_variance in (True, False):
            other = by_lira(phi, fix_variance=fix_variance)
            assert auc(scores, truth) > auc(other, truth) + 0.001
            assert np.median(np.abs(scores - known)) < 0.95 * np.median(np.abs(other - known))
        assert auc(scores, truth) < auc(known, truth)


@pytest.mark.parametrize("online", [True, False])
def test_with_many_shadows_it_approaches_a_variance_of_ones_own(online):
    """As one over their number; either approaches the truth as one over its root."""
    draw, gap, error = np.random.default_rng(8), {}, {}
    by_lira = lira.online_score if online else lira.offline_score
    for shadows in (50, 200, 800):
        phi, _, known = simulated(draw, n=400, shadows=shadows, online=online)
        scores = scores_of(phi, online)
        gap[shadows] = np.median(np.abs(scores - by_lira(phi, fix_variance=False)))
        error[shadows] = np.median(np.abs(scores - known))
    assert gap[800] < 0.02 and 10 < gap[50] / gap[800] < 24
    assert 2.8 < error[50] / error[800] < 5.6


def test_records_of_one_variance_share_it():
    """The prior outweighs a record's few values: the form is LiRA's with a shared variance."""
    draw = np.random.default_rng(9)
    mu = draw.normal(0, 30, 3000)
    phi = measured(draw.normal(mu), draw.normal(mu, size=(6, 3000)), np.zeros((6, 3000)))
    out = bavaria.fit_prior(phi.every_shadow, ~phi.every_member)
    assert out.alpha > 50 and out.beta / out.alpha == pytest.approx(1, abs=0.05)
    # LiRA's z takes a record's mean as known, the predictive scale has its error: root of 1 + 1 / 6
    shared = lira.offline_score(phi, fix_variance=True) / math.sqrt(7 / 6)
    assert scores_of(phi, online=False) == pytest.approx(shared, abs=0.25)


@pytest.mark.parametrize("online", [False, True])
def test_equal_outputs_and_records_without_variance_have_scores(online):
    draw = np.random.default_rng(10)
    evidence = gaussian_evidence(8, n=80, online=online)
    for posteriors in (np.full((80, 2), 0.5), draw.dirichlet([1, 1], size=80)):
        same = Evidence.from_posteriors(
            evidence.labels,
            victim=posteriors,
            shadows=np.tile(posteriors, (8, 1, 1)),
            member=evidence.member,
            target=evidence.target,
            calibration_mask=evidence.calibration_mask,
        )
        with np.errstate(all="raise", under="ignore"):
            verdict = attack("bavaria", same)["bavaria"]
        assert np.isfinite(verdict.scores).all() and np.isfinite(verdict.threshold)
        assert verdict.scores == pytest.approx(0, abs=1e-3)


def test_posteriors_of_0_and_1_have_scores():
    draw = np.random.default_rng(11)
    evidence = gaussian_evidence(8, n=80)
    p = draw.choice([0.0, 1e-9, 0.5, 1 - 1e-9, 1.0], size=(9, 80))
    p = np.stack([p, 1 - p], axis=-1)
    found = Evidence.from_posteriors(
        evidence.labels, victim=p[0], shadows=p[1:], member=evidence.member, target=evidence.target
    )
    assert np.isfinite(attack("bavaria", found)["bavaria"].scores).all()


def test_one_value_a_record_says_nothing_of_its_variance():
    """Half of the spread between records is taken for it: kappa near 1."""
    phi = 10 + 3 * np.random.default_rng(12).normal(size=(1, 4000))
    found = bavaria.fit_prior(phi, np.ones(phi.shape, bool))
    assert found.mean == pytest.approx(10, abs=0.3) and found.kappa == pytest.approx(1, abs=0.1)
    assert found.beta / found.alpha * (1 + 1 / found.kappa) == pytest.approx(9, rel=0.2)


def test_without_a_model_of_a_kind_it_says_so():
    evidence = gaussian_evidence(8)
    everyone = Evidence(**vars(evidence) | {"member": np.ones_like(evidence.member)})
    with pytest.raises(UserError, match="no shadow model was trained without any"):
        attack("bavaria", everyone)


@pytest.mark.parametrize("online", [True, False])
def test_the_prior_is_that_of_all_shadows_and_the_values_are_those_of_the_references(
    online, monkeypatch
):
    evidence, scored = gaussian_evidence(8, online=online), []
    name = "online_score" if online else "offline_score"
    true = getattr(bavaria, name)
    monkeypatch.setattr(
        bavaria, name, lambda phi, **priors: scored.append((phi, priors)) or true(phi, **priors)
    )
    attack("bavaria", evidence)
    phi = evidence.measure(log_odds)
    out = bavaria.fit_prior(phi.every_shadow, ~phi.every_member)
    assert len(scored) == 9 and all(priors["out"] == out for _, priors in scored)
    assert [role.as_victim for role, _ in scored] == [*range(8), None]
    for role, _ in scored[:8]:
        assert len(role.shadows) == 7 and not (role.shadows == role.victim).all(axis=1).any()
