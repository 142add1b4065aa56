"""Epsilon: against the analytic and the exact one, and what it allows an attack."""

import math
import resource

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from core.console import UserError
from defenders.accounting import (
    NO_GUARANTEE,
    beyond_guarantee,
    caveat,
    default_delta,
    guarantee,
    noise_multiplier,
    prv_epsilon,
)


@pytest.mark.parametrize(
    "n, steps, pyvacy, rdp, prv",
    [(10000, 2344, 8.18, 7.41, 6.82), (60000, 3516, 1.594, 1.281, 1.144)],
)
def test_known_epsilons(n, steps, pyvacy, rdp, prv):
    per_epoch = math.ceil(n / 256)
    epochs, left = divmod(steps, per_epoch)
    found = guarantee(n=n, batch_size=256, noise_multiplier=1.1, epochs=epochs, delta=1e-5)
    assert found.steps == epochs * per_epoch and found.sampling_rate == 256 / n
    more = guarantee(
        n=n, batch_size=256, noise_multiplier=1.1, epochs=epochs + (left > 0), delta=1e-5
    )
    for name, value in (("pyvacy", pyvacy), ("rdp", rdp), ("prv", prv)):
        low, high = getattr(found, name), getattr(more, name)
        assert low - 0.006 <= value <= high + 0.006, name
    assert found.epsilon == found.prv


def test_epsilon_of_the_gaussian_mechanism_is_the_analytic_one():
    """One step that draws every record: Balle & Wang (ICML 2018), theorem 8."""
    for noise, delta in ((1.0, 1e-2), (2.0, 1e-4)):
        found = guarantee(n=50, batch_size=50, noise_multiplier=noise, epochs=1, delta=delta)
        low, high = 0.0, 50.0
        for _ in range(80):
            epsilon = (low + high) / 2
            reached = norm.cdf(0.5 / noise - epsilon * noise)
            reached -= math.exp(epsilon) * norm.cdf(-0.5 / noise - epsilon * noise)
            low, high = (epsilon, high) if reached > delta else (low, epsilon)
        assert low <= found.epsilon <= low + 0.03 and found.rdp > low


@pytest.mark.parametrize("noise", [0.5, 1, 4, 10, 20, 100, 1000])
@pytest.mark.parametrize("n, size", [(1127, 128), (60000, 256), (54, 54)])
def test_epsilon_is_never_below_what_is_all_but_exact(n, size, noise):
    """As pyvacy's can be, and below 0."""
    found = guarantee(n=n, batch_size=size, noise_multiplier=float(noise), epochs=25, delta=None)
    assert (
        0 <= found.epsilon
        and found.epsilon == max(0, min(found.prv, found.rdp))
        and found.prv < found.rdp + 0.05
    )


def exact_delta(epsilon, rate, noise):
    """Of one Poisson-sampled Gaussian step, adding and removing: P = (1 - q) N(0, s^2) + q N(1, s^2) against N(0, s^2)
    exceeds exp(epsilon) where x > s^2 log((exp(epsilon) - (1 - q)) / q) + 1/2."""

    def crossing(ratio):
        return noise**2 * math.log((ratio - (1 - rate)) / rate) + 0.5

    def tails(x, tail):
        return (1 - rate) * tail(x / noise) + rate * tail((x - 1) / noise), tail(x / noise)

    mixed, alone = tails(crossing(math.exp(epsilon)), norm.sf)
    found = [mixed - math.exp(epsilon) * alone]
    if math.exp(-epsilon) > 1 - rate:
        mixed, alone = tails(crossing(math.exp(-epsilon)), norm.cdf)
        found.append(alone - math.exp(epsilon) * mixed)
    return max(found)


@pytest.mark.parametrize("noise", [0.15, 0.3, 0.5, 0.8, 2.0])
@pytest.mark.parametrize("n, size", [(1000, 10), (1127, 128), (50, 25)])
def test_epsilon_of_one_sampled_step_is_the_exact_one(n, size, noise):
    """Below a noise multiplier of 0.5 too, where PRV is made as well, if its grid is small."""
    epsilon = prv_epsilon(noise_multiplier=noise, rate=size / n, steps=1, delta=1e-3, rdp=0.0)
    exact = brentq(lambda epsilon: exact_delta(epsilon, size / n, noise) - 1e-3, 0, 300)
    assert exact <= epsilon < exact + 0.02


@pytest.mark.parametrize("noise, steps", [(0.3, 1), (0.4, 3), (1.0, 12)])
def test_steps_that_draw_every_record_are_one_gaussian_mechanism(noise, steps):
    """k of them with noise s are one with s / sqrt(k): Dong et al. (JRSS B 2022), corollary 3.3."""
    found = guarantee(n=50, batch_size=50, noise_multiplier=noise, epochs=steps, delta=1e-3)
    exact = brentq(
        lambda epsilon: exact_delta(epsilon, 1.0, noise / math.sqrt(steps)) - 1e-3, 0, 300
    )
    assert exact <= found.epsilon < exact + 0.03 and found.epsilon == found.prv


@pytest.mark.parametrize(
    "n, size, noise, epochs",
    [
        (1127, 128, 0.5, 1000),
        (404, 128, 0.5, 3000),
        (1127, 128, 0.1, 75),
        (60000, 256, 1.1, 3000),
        (10**7, 100, 4.0, 3000),
    ],
)
def test_prv_is_left_out_before_it_takes_gigabytes(n, size, noise, epochs):
    """At little noise or many steps; the fourth has a small epsilon by RDP, and too large a grid."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = guarantee(n=n, batch_size=size, noise_multiplier=noise, epochs=epochs, delta=None)
    assert found.prv is None
    assert found.epsilon == (found.rdp if noise >= 0.5 else min(found.rdp, found.pyvacy))
    assert (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18
    )  # KiB; importing Opacus is the most


def test_what_is_left_out_and_the_default_delta():
    none = guarantee(n=1000, batch_size=10, noise_multiplier=1.0, epochs=0, delta=None)
    assert none.epsilon == 0 and none.steps == 0 and none.delta == 1e-4
    assert [default_delta(n) for n in (1, 9, 10, 999, 1000, 1001, 1127, 10000)] == [
        1e-1,
        1e-1,
        1e-2,
        1e-3,
        1e-4,
        1e-4,
        1e-4,
        1e-5,
    ]
    assert all(
        default_delta(n) < 1 / n <= 10 * default_delta(n) * (1 + 1e-12) for n in range(1, 20000)
    )


def test_what_stands_beside_epsilon():
    assert caveat(None) == caveat({"epsilon": 1.0, "noise": "secret"}) == ""
    assert caveat({"epsilon": 1.0, "noise": "seeded"}) == caveat({"epsilon": 1.0}) == NO_GUARANTEE


@pytest.mark.parametrize(
    "tpr, fpr, beyond", [(0.9, 0.1, True), (0.99, 0.95, True), (0.55, 0.45, False), (1, 1, False)]
)
def test_an_attack_that_is_surely_better_than_the_guarantee_is_found(tpr, fpr, beyond):
    """At epsilon 0.2 an exchange allows ratios up to exp(0.4) = 1.49; (.99, .95) exceeds it in (TNR, FNR)."""
    member = np.arange(4000) < 2000
    decision = np.concatenate([np.arange(2000) < 2000 * tpr, np.arange(2000) < 2000 * fpr])
    assert beyond_guarantee(decision, member, epsilon=0.2, delta=0.0) is beyond
    assert not beyond_guarantee(decision, member, epsilon=3.0, delta=0.0)


def test_the_best_attack_that_a_guarantee_allows_is_hardly_ever_found_beyond_it():
    draw = np.random.default_rng(0)
    member, factor = np.arange(2000) < 1000, np.exp(0.4)
    fpr = 1 / (1 + factor)  # randomised response: TPR = factor FPR, TNR = factor FNR
    found = [
        beyond_guarantee(
            draw.random(2000) < np.where(member, factor * fpr, fpr), member, epsilon=0.2, delta=0.0
        )
        for _ in range(200)
    ]
    assert np.mean(found) < 0.05


@pytest.mark.parametrize("epsilon, batch_size, epochs", [(0.5, 40, 3), (4, 40, 20), (200, 100, 2)])
def test_the_noise_for_an_epsilon_is_the_smallest_of_three_digits(epsilon, batch_size, epochs):
    how = dict(n=400, batch_size=batch_size, epochs=epochs, delta=1e-4)
    noise = noise_multiplier(epsilon, **how)
    assert float(f"{noise:.3g}") == noise
    assert guarantee(noise_multiplier=noise, **how).epsilon <= epsilon
    assert guarantee(noise_multiplier=noise * 0.985, **how).epsilon > epsilon


def test_an_epsilon_that_no_noise_gives_is_refused():
    with pytest.raises(UserError, match="no noise multiplier up to 1000 gives epsilon 0"):
        noise_multiplier(0, n=400, batch_size=400, epochs=100)
