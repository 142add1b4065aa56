"""Who is a target, and whom shadow models are trained on."""

import numpy as np
import pytest

from auditing.deal import deal
from core.console import UserError


def members(count, of):
    found = np.zeros(of, bool)
    found[np.random.default_rng(0).permutation(of)[:count]] = True
    return found


@pytest.mark.parametrize(
    "count, of, targets",
    [
        (50, 105, 99),  # 55 non-members: 6 are population, 49 targets
        (50, 400, 100),  # as many non-members as members
        (50, 70, 68),  # 20 non-members: 2 are population
        (33, 100, 66),
    ],
)
def test_each_target_is_in_half_of_the_shadow_models(count, of, targets):
    member = members(count, of)
    target, trained_on = deal(member, seed=7, shadow_num=10)
    assert target.sum() == targets and target[member].all()
    assert (trained_on.sum(axis=0) == np.where(target, 5, 0)).all()
    assert all(abs(size - targets / 2) < 1 for size in trained_on.sum(axis=1))


def test_shadow_models_have_as_many_records_as_the_released_model():
    _, trained_on = deal(members(40, 200), seed=7, shadow_num=4)
    assert (trained_on.sum(axis=1) == 40).all()


def test_members_have_no_say():
    """They are in a shadow model as often as chance has it: of 200 targets half are drawn, and the
    share of 100 members that are has a standard deviation of sqrt(1 / 4 / 100 * 100 / 199)."""
    member = members(100, 222)
    target, trained_on = deal(member, seed=7, shadow_num=400)
    assert target.sum() == 200
    shares = trained_on[:, member].mean(axis=1)
    assert shares.mean() == 0.5 and abs(shares.std() - 0.0354) < 0.004


def test_more_shadow_models_begin_with_fewer():
    member = members(20, 50)
    few, many = (deal(member, seed=3, shadow_num=count) for count in (4, 8))
    assert (few[0] == many[0]).all() and (few[1] == many[1][:4]).all()
    assert (deal(member, seed=4, shadow_num=4)[1] != few[1]).any()


def test_an_odd_number_is_refused():
    with pytest.raises(UserError, match="must be even"):
        deal(members(20, 50), seed=3, shadow_num=5)
