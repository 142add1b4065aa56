"""Bounds on epsilon: below the truth of mechanisms whose epsilon is known, and near it."""

import math

import numpy as np
import pytest
from opacus.accountants import PRVAccountant
from opacus.accountants.analysis.gdp import eps_from_mu
from scipy.integrate import quad
from scipy.stats import beta, binom, norm

from attackers.audit_bound import (
    epsilon_of_gaussian,
    epsilon_of_one_run,
    epsilon_of_rates,
    gaussian_delta,
    gaussian_epsilon,
    one_run_p_value,
)

BOUNDS = (epsilon_of_rates, epsilon_of_gaussian, epsilon_of_one_run)


def counted(true, false, *, n=1000):
    """Decisions on n members, of whom `true` are called members, and n others, of whom `false`."""
    order = np.arange(n)
    return np.concatenate([order < true, order < false]), np.arange(2 * n) < n


def randomised_response(draw, epsilon, *, n):
    """A bit for each of 2 n records, a random half of them members: right with exp(epsilon) : 1."""
    member = draw.permutation(2 * n) < n
    return member ^ (draw.random(2 * n) > 1 / (1 + math.exp(-epsilon))), member


def test_rates_by_hand():
    """TPR and FPR of 1000 each, at the 2.5 % and 97.5 % points of the beta distributions."""
    decision, member = counted(600, 20)
    low, high = beta.ppf(0.025, 600, 401), beta.ppf(0.975, 21, 980)
    found = epsilon_of_rates(decision, member, delta=1e-3, level=0.05)
    assert found == pytest.approx(math.log((low - 1e-3) / high))
    # the complement: the same of non-members
    assert epsilon_of_rates(~decision, ~member, delta=1e-3, level=0.05) == pytest.approx(found)
    assert epsilon_of_rates(decision, member, delta=1e-3, level=0.005) < found
    assert epsilon_of_rates(*counted(0, 0), delta=1e-3, level=0.05) == 0
    assert epsilon_of_rates(*counted(20, 600), delta=1e-3, level=0.05) == 0


@pytest.mark.parametrize("bound", BOUNDS)
def test_guessing_and_worse_prove_nothing(bound):
    for true, false in ((500, 500), (100, 900), (0, 0), (1000, 1000)):
        assert bound(*counted(true, false), delta=1e-5, level=0.05) == 0


@pytest.mark.parametrize("epsilon", [0.5, 1.5, 3.0])
@pytest.mark.parametrize("bound", [epsilon_of_rates, epsilon_of_one_run])
def test_randomised_response_is_bounded_from_below(bound, epsilon):
    draw = np.random.default_rng(0)
    few = [
        bound(*randomised_response(draw, epsilon, n=300), delta=0.0, level=0.05) for _ in range(300)
    ]
    assert np.mean(np.array(few) <= epsilon) >= 0.95 and np.mean(few) > epsilon / 2
    many = bound(*randomised_response(draw, epsilon, n=200_000), delta=0.0, level=0.05)
    assert 0.97 * epsilon < many <= epsilon


def test_one_run_covers_as_often_as_it_says_and_not_always():
    """At level 0.4 a true bound of discrete guesses fails in up to 40 % of audits; this one in over
    20 %, so that it gives little away."""
    draw = np.random.default_rng(1)
    found = [
        epsilon_of_one_run(*randomised_response(draw, 1.0, n=400), delta=0.0, level=0.4)
        for _ in range(300)
    ]
    assert 0.2 < np.mean(np.array(found) > 1.0) < 0.45


def test_one_run_holds_where_decisions_hang_together():
    """All is told with probability delta, else nothing: (0, delta)-private. Rates, which take
    decisions as independent, are wrong whenever all is told."""
    draw, delta = np.random.default_rng(2), 0.1
    wrong = {epsilon_of_rates: 0, epsilon_of_one_run: 0}
    for _ in range(100):
        member = draw.permutation(400) < 200
        decision = member if draw.random() < delta else draw.random(400) < 0.5
        for bound in wrong:
            wrong[bound] += bound(decision, member, delta=delta, level=0.02) > 0
    assert wrong[epsilon_of_one_run] == 0 and wrong[epsilon_of_rates] > 4


@pytest.mark.parametrize("mu", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("bound", BOUNDS)
def test_a_gaussian_mechanism_is_bounded_from_below(bound, mu):
    """Each record's sum with normal noise, told apart in the middle."""
    draw, delta = np.random.default_rng(3), 1e-3
    truth = gaussian_epsilon(mu, delta=delta)

    def audit(n):
        member = draw.permutation(2 * n) < n
        decision = draw.normal(size=2 * n) + mu * member > mu / 2
        return bound(decision, member, delta=delta, level=0.05)

    assert np.mean([audit(300) <= truth for _ in range(200)]) >= 0.95
    many = audit(200_000)
    assert many <= truth
    if bound is epsilon_of_gaussian:
        assert many > 0.95 * truth


def test_gaussian_privacy_by_an_integral_and_by_other_libraries():
    for mu in (0.3, 1.0, 2.5):
        for delta in (1e-6, 1e-3, 0.05):
            epsilon = gaussian_epsilon(mu, delta=delta)
            assert epsilon == pytest.approx(eps_from_mu(mu=mu, delta=delta), abs=1e-6)
            start = epsilon / mu + mu / 2  # where one density is exp(epsilon) times the other
            gap, _ = quad(
                lambda x: norm.pdf(x - mu) - math.exp(epsilon) * norm.pdf(x),
                start,
                start + 40,
                epsabs=1e-13,
                limit=200,
            )
            assert gap == pytest.approx(delta, rel=1e-4)
            assert gaussian_delta(epsilon, mu) == pytest.approx(delta, rel=1e-6)
    assert gaussian_epsilon(0.001, delta=0.01) == 0
    accountant = PRVAccountant()
    accountant.history = [(0.5, 1.0, 1)]  # sigma 0.5, all records, one step: mu = 2
    assert gaussian_epsilon(2.0, delta=1e-3) == pytest.approx(
        accountant.get_epsilon(1e-3), abs=0.02
    )


def test_guesses_that_are_all_right_by_hand():
    """Binomial(r, q) = r has probability q^r."""
    p = one_run_p_value(1.0, 0.0, coins=50, guesses=20, correct=20)
    assert p == pytest.approx((1 / (1 + math.exp(-1))) ** 20)
    decision, member = counted(1000, 0)
    sure = 0.05 ** (1 / 1000)
    found = epsilon_of_one_run(decision, member, delta=0.0, level=0.05)
    assert found == pytest.approx(math.log(sure / (1 - sure)) / 2, abs=1e-3)


@pytest.mark.parametrize("delta", [1e-6, 1e-4, 1e-2])
@pytest.mark.parametrize("correct", [1, 12, 17, 20])
def test_the_p_value_counted_out(delta, correct):
    """Steinke et al.'s appendix D in words: beta plus 2 m delta times the worst mean of the
    probabilities just below."""
    q = 1 / (1 + math.exp(-0.7))
    at = [math.comb(20, k) * q**k * (1 - q) ** (20 - k) for k in range(21)]
    worst = max(sum(at[correct - i : correct]) / i for i in range(1, correct + 1))
    expected = min(1, sum(at[correct:]) + 2 * 30 * delta * worst)
    found = one_run_p_value(0.7, delta, coins=30, guesses=20, correct=correct)
    assert found == pytest.approx(expected)
    assert found >= binom.sf(correct - 1, 20, q)


def test_groups_of_different_sizes_are_paired_as_far_as_they_go():
    decision = np.concatenate([np.ones(400, bool), np.zeros(900, bool)])
    assert epsilon_of_one_run(decision, np.arange(1300) < 400, delta=1e-6, level=0.05) > 2
