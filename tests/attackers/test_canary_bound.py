"""Bounds from canaries: below the truth of mechanisms whose epsilon is known, near it, and above the
claims of broken ones."""

import itertools
import math

import numpy as np
import pytest
from scipy.optimize import linprog
from scipy.special import ndtr, ndtri
from scipy.stats import binom

from attackers.audit_bound import gaussian_epsilon, one_run_p_value
from attackers.canaries import make_canaries
from attackers.canary_bound import (
    SHARES,
    gaussian_bound,
    guesses,
    is_refuted,
    one_run_bound,
    residuals,
)

BOUNDS = (one_run_bound, gaussian_bound)


def gaussian(mu):
    return lambda x: float(ndtr(ndtri(x) - mu))


def pure(epsilon):
    """The trade-off of (epsilon, 0)-privacy."""
    return lambda x: max(x * math.exp(-epsilon), 1 - math.exp(epsilon) * (1 - x))


def released_sum(draw, m, *, noise, clip=True, dimensions=20_000):
    """How well each of m vectors fits a noisy sum of those whose coin says so: the Gaussian mechanism
    of Steinke et al.'s figure 1, with a guarantee of mu = 1 / noise where lengths are clipped to 1."""
    vectors = draw.normal(size=(m, dimensions)) / math.sqrt(dimensions)
    if not clip:
        vectors *= 3
    coin = draw.random(m) < 0.5
    total = coin @ vectors + noise * draw.normal(size=dimensions)
    return vectors @ total, coin


def released_numbers(draw, m, mu):
    """The same in as many dimensions as there are canaries, each along an axis of its own."""
    coin = draw.random(m) < 0.5
    return mu * coin + draw.normal(size=m), coin


@pytest.mark.parametrize("mu", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("bound", BOUNDS)
def test_below_the_truth_of_a_gaussian_mechanism_and_not_idle(bound, mu):
    draw, delta = np.random.default_rng(0), 1e-5
    truth = gaussian_epsilon(mu, delta=delta)
    found = [
        bound(*released_numbers(draw, 1000, mu), delta=delta, level=0.05).epsilon
        for _ in range(100)
    ]
    assert np.mean(np.array(found) <= truth) >= 0.95
    assert np.mean(found) > {one_run_bound: 0.2, gaussian_bound: 0.35}[bound] * truth


def test_f_differential_privacy_proves_more_than_epsilon_and_delta():
    draw = np.random.default_rng(1)
    scores, coin = released_numbers(draw, 2000, 1.0)
    proven = [bound(scores, coin, delta=1e-3, level=0.05).epsilon for bound in BOUNDS]
    assert 2 * proven[0] < proven[1]


def test_a_sum_of_vectors_and_the_same_broken():
    """One release of high dimension bears many tests; half the noise and lengths of 3 are found out."""
    draw, delta = np.random.default_rng(2), 1e-5
    claim = gaussian_epsilon(1.0, delta=delta)
    right = gaussian_bound(*released_sum(draw, 500, noise=1.0), delta=delta, level=0.05)
    assert 0.2 * claim < right.epsilon <= claim
    for broken in ({"noise": 0.25}, {"noise": 1.0, "clip": False}):
        found = gaussian_bound(*released_sum(draw, 500, **broken), delta=delta, level=0.05)
        assert found.epsilon > claim


def test_half_the_noise_exceeds_the_claim():
    """Of 1000 canaries, at the epsilon of a claim that would be true at twice the noise."""
    draw, delta = np.random.default_rng(3), 1e-5
    claim = gaussian_epsilon(1.0, delta=delta)
    found = [
        gaussian_bound(*released_numbers(draw, 1000, 2.0), delta=delta, level=0.05).epsilon
        for _ in range(40)
    ]
    assert np.mean(np.array(found) > claim) >= 0.8


def test_scores_that_know_nothing_prove_nothing_but_by_chance():
    draw = np.random.default_rng(4)
    for bound in BOUNDS:
        found = [
            bound(draw.normal(size=300), draw.random(300) < 0.5, delta=0.0, level=0.05).epsilon
            if bound is one_run_bound
            else bound(
                draw.normal(size=300), draw.random(300) < 0.5, delta=1e-9, level=0.05
            ).epsilon
            for _ in range(200)
        ]
        assert np.mean(np.array(found) > 0) <= 0.05


def test_one_run_covers_as_often_as_it_says_and_not_always(monkeypatch):
    """Randomised response, where the bound is tight: with one share, at level 0.4, wrong in up to
    40 %."""
    monkeypatch.setattr("attackers.canary_bound.SHARES", (1.0,))
    draw, found = np.random.default_rng(5), []
    for _ in range(300):
        coin = draw.random(400) < 0.5
        said = coin ^ (draw.random(400) > 1 / (1 + math.exp(-1.0)))
        # half are guessed in, whatever was said, so that some guesses are forced
        found.append(one_run_bound(said + 0.0, coin, delta=0.0, level=0.4).epsilon)
    assert 0.1 < np.mean(np.array(found) > 1.0) < 0.45


def worst(least_points, *, coins, number, correct):
    """max P(X >= correct) over all distributions of X in 0..number that obey the inequalities, by
    linear programming; the trade-off as lines y >= a x + b."""
    size = number + 1
    outcomes = np.arange(size)
    rows, limits = [], []
    for t in range(1, size):
        r = np.where(outcomes >= t, outcomes, 0) / coins
        h = np.where(outcomes >= t - 1, number - outcomes, 0) / coins
        for slope, offset in least_points:
            rows.append(slope * r - h)
            limits.append(-offset)
    result = linprog(
        -(outcomes >= correct).astype(float),
        A_ub=np.array(rows),
        b_ub=limits,
        A_eq=np.ones((1, size)),
        b_eq=[1],
        bounds=[(0, None)] * size,
    )
    return -result.fun


@pytest.mark.parametrize(("coins", "number", "correct"), [(8, 8, 7), (12, 6, 6), (20, 10, 8)])
@pytest.mark.parametrize("delta", [0.0, 0.02])
def test_the_recursion_is_the_worst_case_of_its_inequalities(coins, number, correct, delta):
    epsilon = 0.7
    lines = [
        (math.exp(-epsilon), -delta * math.exp(-epsilon)),
        (math.exp(epsilon), 1 - delta - math.exp(epsilon)),
        (0.0, 0.0),
    ]
    most = worst(lines, coins=coins, number=number, correct=correct)

    def refuted(level):
        return is_refuted(
            lambda x: max(slope * x + offset for slope, offset in lines),
            coins=coins,
            guesses=number,
            correct=correct,
            level=level,
        )

    assert 0 < most < 1 and refuted(most + 1e-6) and not refuted(most - 1e-6)


@pytest.mark.parametrize("mu", [0.5, 1.5])
def test_no_mechanism_counted_out_is_refuted_more_often_than_it_may(mu):
    """All outcomes of 5 coins and 5 guesses by Gaussian release, and where all is told or nothing."""
    right = float(ndtr(mu / 2))
    for correct in range(6):
        at_least = sum(
            math.prod(right if hit else 1 - right for hit in hits)
            for hits in itertools.product([True, False], repeat=5)
            if sum(hits) >= correct
        )
        assert at_least == pytest.approx(binom.sf(correct - 1, 5, right))
        assert not is_refuted(
            gaussian(mu), coins=5, guesses=5, correct=correct, level=at_least - 1e-9
        )
    # who tells all with probability d, else nothing, is (0, d)-private: y >= x - d
    told = 0.2
    chance = told + (1 - told) / 32
    assert not is_refuted(
        lambda x: max(0.0, x - told), coins=5, guesses=5, correct=5, level=chance - 1e-9
    )


def test_pure_privacy_counted_out():
    """5 of 5 right has a probability of q^5 by randomised response: one run's p-value, and not
    refuted by the other."""
    q = 1 / (1 + math.exp(-1.0))
    assert one_run_p_value(1.0, 0.0, coins=5, guesses=5, correct=5) == pytest.approx(q**5)
    assert not is_refuted(pure(1.0), coins=5, guesses=5, correct=5, level=q**5 - 1e-9)
    assert is_refuted(pure(0.0), coins=5, guesses=5, correct=5, level=0.6)


@pytest.mark.parametrize("correct", [0, 30, 50, 56, 57, 58, 59, 60])
def test_as_the_authors_code_decides(correct):
    """Of 60 guesses among 100 canaries, by two arrays as their code fills them; refuted from 58 on."""
    level, coins, number, mu = 0.05, 100, 60, 1.0
    r, h = np.zeros(correct + 1), np.zeros(correct + 1)
    r[correct] = level * correct / coins
    h[correct] = level * (number - correct) / coins
    for i in reversed(range(correct)):
        h[i] = max(h[i + 1], gaussian(mu)(r[i + 1]))
        r[i] = r[i + 1] + i / (number - i) * (h[i] - h[i + 1])
    found = is_refuted(gaussian(mu), coins=coins, guesses=number, correct=correct, level=level)
    assert found == (r[0] + h[0] > number / coins)
    assert found == (correct >= 58)


def test_guesses_are_the_ends_and_do_not_know_the_coins():
    assert guesses(np.array([3.0, 1.0, 2.0, 0.0]), 2).tolist() == [1, 0, 0, -1]
    assert guesses(np.zeros(5), 4).tolist() == [-1, -1, 0, 1, 1]
    assert not guesses(np.zeros(3), 0).any()
    for share in SHARES:
        assert abs((guesses(np.random.default_rng(0).random(101), int(share * 101))).sum()) == 0


def test_references_are_taken_off_as_far_as_they_tell():
    draw = np.random.default_rng(6)
    hard, coin, noise = draw.normal(size=(3, 1000))
    scores = hard * 3 + coin
    assert np.corrcoef(residuals(scores, hard[None]), coin)[0, 1] > 0.99
    assert np.corrcoef(residuals(coin, noise[None]), coin)[0, 1] > 0.99
    assert residuals(scores, np.empty((0, 1000))) == pytest.approx(scores - scores.mean())


class TestCanaries:
    X = np.random.default_rng(7).normal(size=(50, 4)).astype(np.float32)
    Y = np.arange(50) % 3

    def made(self, kind="mislabelled", count=40, x=X, seed=0):
        draw = np.random.default_rng(seed)
        return make_canaries(x, self.Y, kind=kind, count=count, num_cls=3, draw=draw)

    def test_mislabelled_ones_are_copies_each_of_another_record_under_a_wrong_label(self):
        made = self.made(count=50)
        rows = [int(np.flatnonzero((self.X == one).all(axis=1))[0]) for one in made.x]
        assert sorted(rows) == list(range(50)) and (made.y != self.Y[rows]).all()
        assert set(made.y) == {0, 1, 2} and made.y.dtype == np.int64

    @pytest.mark.parametrize(
        "x", [X, np.zeros((50, 3, 5, 5), np.uint8), np.zeros((50, 6), np.uint8)]
    )
    def test_random_ones_are_of_the_data_s_form_and_of_nothing_else(self, x):
        made = self.made("random", count=400, x=x)
        assert made.x.shape == (400, *x.shape[1:]) and made.x.dtype == x.dtype
        assert np.array_equal(made.x, self.made("random", count=400, x=x + x.dtype.type(1)).x)
        assert made.x.max() == {4: 255, 2: 1}[x.ndim] if x.dtype == np.uint8 else made.x.std() > 0.9
        assert set(made.y) == {0, 1, 2}

    def test_coins_are_fair_and_fresh(self):
        coins = [self.made("random", count=2000, seed=seed).coin for seed in (0, 1)]
        assert all(abs(coin.mean() - 0.5) < 0.05 for coin in coins)
        assert abs((coins[0] == coins[1]).mean() - 0.5) < 0.05
        assert np.array_equal(coins[0], self.made("random", count=2000).coin)

    def test_more_copies_than_records_are_refused(self):
        with pytest.raises(ValueError, match="51 of 50"):
            self.made(count=51)
