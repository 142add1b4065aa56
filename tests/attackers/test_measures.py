"""All figures of a verdict."""

import numpy as np
import pytest
from metric_cases import balanced, by_pairs, some

from attackers import Verdict, metrics


def test_every_figure_is_that_of_its_own_function():
    verdict, member, labels = some(others=1000)
    found = metrics.measures(verdict, member, labels, num_cls=3)
    assert found["members"] == 60 and found["non_members"] == 1000
    assert found["accuracy"] == pytest.approx(balanced(verdict.scores >= 0.5, member))
    assert found["auc"] == metrics.auc(verdict.scores, member)
    for name in ("accuracy", "auc"):
        low, high = found[f"{name}_interval"]
        assert low < found[name] < high
    for limit, name in [(0.1, "tpr_at_0.1"), (0.01, "tpr_at_0.01")]:
        assert found[name] == metrics.tpr_at_fpr(verdict.scores, member, limit=limit)
        assert found[f"{name}_interval"] == metrics.tpr_interval(
            verdict.scores, member, limit=limit
        )
        assert found[f"{name}_interval"][0] <= found[name] <= found[f"{name}_interval"][1]
    assert found["tpr_at_0.001"] is None and found["tpr_at_0.001_interval"] is None


def test_figures_are_plain_numbers_for_json():
    verdict, member, labels = some(others=1000)
    for name, value in metrics.measures(verdict, member, labels, num_cls=3).items():
        for one in value if isinstance(value, list) else [value]:
            assert type(one) in (int, float, type(None)), name


@pytest.mark.parametrize("limit, fewest", [("0.1", 100), ("0.01", 1000), ("0.001", 10_000)])
def test_a_tpr_is_told_from_ten_non_members_over_the_fpr(limit, fewest):
    for others in (fewest - 1, fewest):
        verdict, member, labels = some(others=others)
        found = metrics.measures(verdict, member, labels, num_cls=3)
        assert (
            (found[f"tpr_at_{limit}"] is None)
            == (found[f"tpr_at_{limit}_interval"] is None)
            == (others < fewest)
        )


@pytest.mark.parametrize("values", [[0.0, 1.0], [1.0], [-3.0, 7.5]])
def test_binary_scores_have_no_tpr_at_a_low_fpr(values):
    verdict, member, labels = some(
        others=1000, scores=lambda draw, member: draw.choice(values, size=len(member))
    )
    found = metrics.measures(verdict, member, labels, num_cls=3)
    assert found["tpr_at_0.1"] is found["tpr_at_0.1_interval"] is found["tpr_at_0.01"] is None
    if len(values) == 1:
        assert found["auc"] is found["auc_interval"] is None  # see test_ties.py
    else:
        assert found["auc"] == pytest.approx(by_pairs(verdict.scores, member))
    three = np.where(np.arange(1060) == np.flatnonzero(member)[0], 99, verdict.scores)
    found = metrics.measures(Verdict(three, 0.5), member, labels, num_cls=3)
    assert (found["tpr_at_0.1"] is None) == (values == [1.0])


def test_figures_of_a_class_are_of_its_records_alone():
    verdict, member, labels = some(seed=1, num_cls=4)
    verdict = Verdict(verdict.scores, np.array([0.2, 0.5, 0.8, 1.1])[labels])
    labels[(labels == 2) & ~member] = 1  # members only
    labels[(labels == 3) & member] = 0  # non-members only
    found = metrics.measures(verdict, member, labels, num_cls=5)  # and none of the last
    assert len(found["class_accuracy"]) == len(found["class_auc"]) == 5
    for label in (0, 1):
        rights, here = {True: [], False: []}, labels == label
        for i in np.flatnonzero(here):
            rights[bool(member[i])].append((verdict.scores[i] >= verdict.threshold[i]) == member[i])
        accuracy = sum(sum(kind) / len(kind) for kind in rights.values()) / 2
        assert found["class_accuracy"][label] == pytest.approx(accuracy)
        assert found["class_auc"][label] == pytest.approx(
            by_pairs(verdict.scores[here], member[here])
        )
    assert found["class_accuracy"][2:] == found["class_auc"][2:] == [None] * 3


@pytest.mark.parametrize("value", [0.0, 3.5])
def test_a_score_that_all_share_has_an_area_and_an_interval_around_it(value):
    verdict, member, labels = some(
        others=60, scores=lambda draw, member: np.full(len(member), value)
    )
    found = metrics.measures(verdict, member, labels, num_cls=3)
    assert metrics.auc(verdict.scores, member) == 0.5
    assert sum(metrics.auc_interval(verdict.scores, member)) == pytest.approx(1)
    assert found["auc"] is found["auc_interval"] is found["tpr_at_0.1"] is None  # but says nothing


def test_a_target_without_a_score_is_named():
    verdict = Verdict(np.array([0.1, np.nan, 0.4, 0.3]), 0.2)
    with pytest.raises(ValueError, match="1 of the targets have no score"):
        metrics.measures(verdict, np.array([True, False, True, False]), np.zeros(4, int), num_cls=2)


@pytest.mark.parametrize(
    "member, labels, said",
    [
        ([1, 1, 1], [0, 0, 0], "members and non-members"),
        ([0, 0, 0], [0, 0, 0], "members and non-members"),
        ([1, 0], [0, 0, 0], "^member must .* of the 3 targets"),
        ([1, 0, 1], [0, 0], r"^labels must .*\(3,\), not .*\(2,\)"),
        ([1, -1, 1], [0, 0, 0], r"^member\[1\] is -1: .* 1 or 0"),
        ("yyn", [0, 0, 0], "^member must be numbers, not 'yyn'"),
        (["yes", "no", "no"], [0, 0, 0], "^member must be numbers, not 'yes'"),
        ([1, 0.5, 0], [0, 0, 0], r"^member\[1\] is 0.5"),
        ([1, None, 0], [0, 0, 0], "^member must be numbers, not None"),
        ([1, 0, 1], [0, 1, 0], r"^labels\[1\] is 1: .* from 0 to 0"),
    ],
)
def test_a_truth_that_does_not_fit_is_refused(member, labels, said):
    with pytest.raises(ValueError, match=said):
        metrics.measures(Verdict(np.array([0.1, 0.2, 0.4]), 0.2), member, labels, num_cls=1)


def test_membership_may_be_written_in_numbers():
    draw = np.random.default_rng(0)
    verdict, member = Verdict(draw.random(300), 0.5), draw.random(300) < 0.5
    as_numbers = metrics.measures(verdict, member.astype(int), [0] * 300, num_cls=1)
    assert as_numbers == metrics.measures(verdict, member, np.zeros(300, int), num_cls=1)
