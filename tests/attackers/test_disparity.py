"""Who is named again: worked by hand, counted over sets, and simulated where naming is independent."""

import itertools
import math

import numpy as np
import pytest
from metric_cases import SEEDS, tied
from sklearn.metrics import jaccard_score

from attackers.disparity import jaccard, jaccard_by_chance, shares_by_chance, shares_named
from attackers.metrics import named_records, tpr_at_fpr


def named(*rows):
    return np.array([[mark == "x" for mark in row] for row in rows])


def test_coverage_and_stability_by_hand():
    """Of 5 members one is named by all three, one by two, two by one, one by none."""
    shares = shares_named(named("xx.x.", "x.x..", "xx..."))
    assert shares.tolist() == [4 / 5, 2 / 5, 1 / 5]


@pytest.mark.parametrize("seed", SEEDS)
def test_coverage_is_a_union_and_stability_an_intersection(seed):
    marks = np.random.default_rng(seed).random((4, 30)) < 0.6
    sets = [set(np.flatnonzero(row)) for row in marks]
    shares = shares_named(marks)
    assert shares[0] == len(set.union(*sets)) / 30
    assert shares[-1] == len(set.intersection(*sets)) / 30
    assert shares.sum() == pytest.approx(marks.mean(axis=1).sum())  # each naming counts once


def test_the_jaccard_index_by_hand_and_by_another_library():
    one, other = named("xxx..", "..xx.")
    assert jaccard(one, other) == 1 / 4 == jaccard_score(one, other)
    assert jaccard(one, one) == 1 and jaccard(one, ~one) == 0
    assert math.isnan(jaccard(one & ~one, one & ~one))


def test_chance_by_hand():
    """0.1 and 0.3: any 1 - 0.9 * 0.7, both 0.03."""
    assert shares_by_chance(np.array([0.1, 0.3])) == pytest.approx([0.37, 0.03])
    assert shares_by_chance(np.ones(3)) == pytest.approx([1, 1, 1])
    # two of one among four: the same with 1/4, else apart
    assert jaccard_by_chance(1, 1, members=4) == pytest.approx(1 / 4)
    assert jaccard_by_chance(0, 3, members=4) == 0 and jaccard_by_chance(4, 4, members=4) == 1
    assert math.isnan(jaccard_by_chance(0, 0, members=4))


def test_chance_is_the_mean_over_all_sets():
    def subsets(size):
        for chosen in itertools.combinations(range(6), size):
            yield np.isin(np.arange(6), chosen)

    every = [jaccard(one, other) for one in subsets(2) for other in subsets(3)]
    assert jaccard_by_chance(2, 3, members=6) == pytest.approx(np.mean(every))


def test_independent_naming_is_at_chance_and_a_common_cause_is_not():
    draw, sizes, members = np.random.default_rng(0), (20, 30, 50, 25), 200

    def independent():
        return np.array([draw.permutation(members) < size for size in sizes])

    runs = [independent() for _ in range(400)]
    expected = shares_by_chance(np.array(sizes) / members)
    assert np.mean([shares_named(run) for run in runs], axis=0) == pytest.approx(expected, abs=2e-3)
    alike = np.mean([jaccard(run[0], run[1]) for run in runs])
    assert alike == pytest.approx(jaccard_by_chance(20, 30, members=members), abs=5e-3)
    weak = np.arange(members) / members  # members that are easy to name are named again
    caused = np.array(
        [np.argsort(np.argsort(weak + 0.1 * draw.random(members))) < s for s in sizes]
    )
    assert shares_named(caused)[-1] > 5 * expected[-1]
    assert jaccard(caused[0], caused[1]) > 3 * jaccard_by_chance(20, 30, members=members)


@pytest.mark.parametrize("limit", [0.0, 0.01, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("seed", SEEDS)
def test_who_is_named_is_above_a_threshold_of_that_rate(seed, limit):
    scores, member = tied(seed)
    everybody = named_records(scores, member, limit=limit)
    assert everybody[~member].mean() <= limit
    who = everybody[member]
    assert who.mean() == tpr_at_fpr(scores, member, limit=limit)
    best = 0
    for threshold in [*scores, math.inf]:
        if (scores[~member] >= threshold).mean() <= limit:
            best = max(best, int((scores[member] >= threshold).sum()))
    assert who.sum() == best
    if who.any() and not who.all():
        assert scores[member][who].min() > scores[member][~who].max()
