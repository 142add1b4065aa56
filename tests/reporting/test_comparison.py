"""Networks compared over shared seeds, against scipy and by hand."""

import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from report_helpers import rows, trained

from reporting.comparison import (
    AttackChange,
    Attacker,
    DefenceCost,
    Difference,
    attack_change,
    attack_runs,
    cheapest,
    paired_difference,
    same_attack_differences,
    strongest,
    student_interval,
)
from reporting.summary import label_configurations


def by_seed(*values, training=None):
    """Values by (seed, train_seed), of seeds 7, 8, ..."""
    keys = [(seed, seed if training is None else training) for seed in range(7, 7 + len(values))]
    index = pd.MultiIndex.from_tuples(keys, names=["seed", "train_seed"])
    return pd.Series(values, index=index, dtype=float)


def runs_of(*values, **columns):
    """The attack accuracies of the one model of `rows`."""
    (runs,) = attack_runs(label_configurations(rows(*values, **columns))[0]).values()
    return runs


def test_a_paired_difference_worked_by_hand():
    """Differences .01, .02, .03: mean .02, sd .01; t of two degrees of freedom is 4.302653."""
    difference = paired_difference(by_seed(0.61, 0.72, 0.83), by_seed(0.60, 0.70, 0.80))
    assert difference.mean == pytest.approx(0.02) and difference.seeds == 3
    half = 4.302653 * 0.01 / math.sqrt(3)
    assert (difference.low, difference.high) == pytest.approx((0.02 - half, 0.02 + half), abs=1e-8)
    assert difference.holds_zero and not difference.is_above_zero and not difference.is_below_zero


@pytest.mark.parametrize("n", [2, 3, 5, 12])
def test_the_interval_is_that_of_scipys_paired_test(n):
    draw = np.random.default_rng(n)
    after, before = draw.random(n), draw.random(n)
    difference = paired_difference(by_seed(*after), by_seed(*before))
    expected = scipy.stats.ttest_rel(after, before).confidence_interval(0.95)
    assert (difference.low, difference.high) == pytest.approx((expected.low, expected.high))


def test_trainings_of_a_split_count_as_one_and_only_shared_seeds_count():
    """Seed 7: .10 and .20, mean .15; seed 8: .05; seeds 9 and 10 are of one side alone."""
    index = [(7, 7), (7, 1), (8, 8), (9, 9)]
    after = pd.Series([0.6, 0.7, 0.55, 0.9], pd.MultiIndex.from_tuples(index, names=["seed", "t"]))
    index = [(7, 7), (7, 1), (8, 8), (10, 10)]
    before = pd.Series([0.5, 0.5, 0.5, 0.1], pd.MultiIndex.from_tuples(index, names=["seed", "t"]))
    difference = paired_difference(after, before)
    assert (difference.mean, difference.seeds) == (pytest.approx(0.1), 2)
    assert (difference.low, difference.high) == pytest.approx(
        student_interval(np.array([0.15, 0.05]))
    )


def test_one_seed_has_no_interval_and_none_in_common_no_difference():
    difference = paired_difference(by_seed(0.6), by_seed(0.5, 0.5))
    assert difference.seeds == 1 and math.isnan(difference.low) and math.isnan(difference.high)
    assert not (difference.is_above_zero or difference.is_below_zero or difference.holds_zero)
    assert paired_difference(by_seed(0.6, training=1), by_seed(0.5, training=2)) is None


def test_differences_that_are_all_the_same_have_an_interval_of_no_width():
    assert student_interval(np.array([0.25, 0.25])) == (0.25, 0.25)


def test_the_strongest_is_so_on_average_over_the_seeds():
    runs = runs_of(("conf", 7, 0.9), ("conf", 8, 0.5), ("lira", 7, 0.75), ("lira", 8, 0.75))
    assert strongest(runs) == Attacker("lira", 5, False)


def test_an_attack_with_fewer_seeds_is_compared_on_those_that_both_have():
    """samia's .80 is more than conf's mean of .70, but less than conf's .85 on the same seed."""
    conf = [("conf", 7, 0.85), ("conf", 8, 0.55)]
    assert strongest(runs_of(*conf, ("samia", 7, 0.8))).attack == "conf"
    assert strongest(runs_of(*conf, ("samia", 8, 0.6))).attack == "samia"
    ahead = [("samia", 8, 0.6), ("gap", 8, 0.65), ("nn", 9, 0.9)]  # nn shares no seed
    assert strongest(runs_of(*conf, *ahead)).attack == "gap"


def test_a_seed_of_one_attack_alone_helps_no_other_of_as_many():
    """conf and lira share seed 8, where lira is ahead; conf's seed 7 was an easy one for all."""
    runs = runs_of(("conf", 7, 0.9), ("conf", 8, 0.5), ("lira", 8, 0.6), ("lira", 9, 0.6))
    assert strongest(runs).attack == "lira"


def test_trainings_of_one_split_weigh_no_more_than_another_split():
    table = trained(
        ("conf", 7, 7, 0.6), ("conf", 7, 1, 0.6), ("conf", 7, 2, 0.6), ("conf", 8, 8, 0.8)
    )
    other = trained(
        ("lira", 7, 7, 0.69), ("lira", 7, 1, 0.69), ("lira", 7, 2, 0.69), ("lira", 8, 8, 0.69)
    )
    (runs,) = attack_runs(label_configurations(pd.concat([table, other]))[0]).values()
    assert strongest(runs).attack == "conf"  # .70 against .69, though .65 over all trainings


def test_an_attacker_who_knows_the_defence_is_compared_with_itself_on_the_undefended():
    defended = pd.concat(
        [
            rows(("conf", 7, 0.6), ("conf", 8, 0.6), adaptive=False, defend="ppb", defend_arg=4.0),
            rows(("conf", 7, 0.7), ("conf", 8, 0.72), adaptive=True, defend="ppb", defend_arg=4.0),
        ]
    )
    (runs,) = attack_runs(label_configurations(defended)[0]).values()
    plain = runs_of(("conf", 7, 0.8), ("conf", 8, 0.8), ("lira", 7, 0.9), ("lira", 8, 0.9))
    change = attack_change(runs, plain)
    assert change.best_after == Attacker("conf", 5, True)
    assert change.best_before == Attacker("conf", 5, False)  # lira was made on one of them only
    assert change.same == change.best and change.same.mean == pytest.approx(-0.09)
    each = same_attack_differences(runs, plain)
    assert {attacker.adaptive: one.mean for attacker, one in each.items()} == {
        False: pytest.approx(-0.2),
        True: pytest.approx(-0.09),
    }


def test_the_strongest_may_be_another_attack_before_and_after():
    before = runs_of(("conf", 7, 0.8), ("conf", 8, 0.8), ("lira", 7, 0.7), ("lira", 8, 0.7))
    after = runs_of(("conf", 7, 0.6), ("conf", 8, 0.6), ("lira", 7, 0.65), ("lira", 8, 0.75))
    change = attack_change(after, before)
    assert (change.best_after.attack, change.best_before.attack) == ("lira", "conf")
    assert change.same.mean == pytest.approx(0.0)  # lira against lira
    assert change.best.mean == pytest.approx(-0.1)


def test_without_an_attack_in_common_there_is_no_change():
    assert attack_change(runs_of(("conf", 7, 0.8)), runs_of(("gap", 7, 0.8))) == AttackChange(None)


def cost(taken, lost, *, half=0.01):
    def difference(mean):
        return Difference(mean, mean - half, mean + half, 3)

    return DefenceCost("defended", "plain", difference(taken), difference(lost), True)


def test_the_cheapest_defence_is_that_which_loses_least_for_each_point_taken():
    dear, cheap, unclear = cost(0.10, 0.08), cost(0.05, 0.02), cost(0.005, 0.0)
    assert (dear.price, cheap.price) == (pytest.approx(0.8), pytest.approx(0.4))
    assert cheapest([dear, unclear, cheap]) is cheap
    assert cheapest([unclear, cost(-0.1, 0.0)]) is None and cheapest([]) is None


def test_defences_that_cost_nothing_are_told_apart_by_what_they_take():
    little, much = cost(0.05, -0.02), cost(0.10, 0.0)
    assert little.price == much.price == 0 and cheapest([little, much]) is much
