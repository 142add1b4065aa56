"""The threshold attacks against hand-worked numbers and a search over all pairs."""
import math

import numpy as np
import pytest

from attackers.metrics import balanced_accuracy
from attackers.signals import Shadow, Signals, posterior_and_complement
from attackers.threshold import SCORES, best_threshold, class_thresholds, threshold

P = np.array([[0.7, 0.2, 0.1], [0.05, 0.05, 0.9]])
LABELS = np.array([0, 1])


def scores(name, p=P, labels=LABELS):
    return SCORES[name][0](p, 1 - p, labels)


def test_scores_worked_by_hand():
    assert scores("conf") == pytest.approx([0.7, 0.05])
    assert scores("top1_conf") == pytest.approx([0.7, 0.9])
    assert scores("xent") == pytest.approx([
        0.7 * math.log(0.7) + 0.2 * math.log(0.2) + 0.1 * math.log(0.1),  # -0.80182
        2 * 0.05 * math.log(0.05) + 0.9 * math.log(0.9),
    ])
    assert scores("xent")[0] == pytest.approx(-0.80182, abs=1e-5)
    assert scores("mentr") == pytest.approx([
        0.3 * math.log(0.7) + 0.2 * math.log(0.8) + 0.1 * math.log(0.9),  # -0.16217
        0.95 * math.log(0.05) + 0.05 * math.log(0.95) + 0.9 * math.log(0.1),
    ])
    assert scores("mentr")[0] == pytest.approx(-0.16217, abs=1e-5)


def test_modified_entropy_is_zero_for_certain_and_right_and_clamped_for_certain_and_wrong():
    p = np.array([[1.0, 0.0], [0.0, 1.0]])
    # certain and wrong: (1 - 0) ln(clamped 0) + 1 ln(clamped 0)
    assert scores("mentr", p, np.array([0, 0])) == pytest.approx([0, 2 * math.log(1e-30)])
    assert scores("xent", p, np.array([0, 0])) == pytest.approx([0, 0])


def test_posteriors_keep_their_digits_next_to_one():
    p, complement = posterior_and_complement(np.array([[60.0, 0.0, 1.0], [0.0, 0.0, 0.0]], dtype=np.float32))
    assert complement[0, 0] == pytest.approx(math.exp(-60) + math.exp(-59), rel=1e-12)
    assert p[0, 1] == pytest.approx(math.exp(-60), rel=1e-12)
    assert p[1] == pytest.approx([1 / 3] * 3) and complement[1] == pytest.approx([2 / 3] * 3)
    assert p.sum(axis=1) == pytest.approx([1, 1])


def by_all_pairs(members, others):
    """The published search, written from its definition."""
    best, chosen = -1, None
    for value in [*members, *others]:
        quality = sum(members >= value) * len(others) + sum(others < value) * len(members)
        if quality > best:
            best, chosen = quality, value
    return chosen


@pytest.mark.parametrize("seed", range(60))
def test_best_threshold_equals_the_search_over_all_pairs(seed):
    draw = np.random.default_rng(seed)
    levels = draw.integers(2, 40)  # few levels: many ties
    members = draw.integers(levels, size=draw.integers(1, 40)) / levels + 0.1 * (seed % 2)
    others = draw.integers(levels, size=draw.integers(1, 40)) / levels
    assert best_threshold(members, others) == by_all_pairs(members, others)


def test_of_equally_good_thresholds_the_first_counts():
    # 2.0 and 4.0 split {2, 4} from {1, 3} equally well: the order of the members decides
    assert best_threshold(np.array([4.0, 2.0]), np.array([1.0, 3.0])) == 4.0
    assert best_threshold(np.array([2.0, 4.0]), np.array([1.0, 3.0])) == 2.0


def test_a_million_records_give_the_planted_threshold():
    members, others = np.arange(400_000, 1_000_000) * 1.0, np.arange(0, 400_000) * 1.0
    assert best_threshold(members[::-1], others) == 400_000


def test_a_class_without_both_kinds_takes_the_default():
    values, labels = np.array([0.9, 0.1, 0.8, 0.7]), np.array([0, 0, 1, 1])
    member = np.array([True, False, True, True])
    assert class_thresholds(values, labels, member, num_cls=3, default=0.5).tolist() == [0.9, 0.5, 0.5]


def signals(logits, labels):
    return Signals(np.asarray(logits, np.float32), np.asarray(labels), np.zeros_like(logits, np.float32))


def test_thresholds_are_chosen_a_class_on_shadows_and_pooled_over_them():
    # class 0 is cut between its posteriors .9 and .6, class 1 between .5 and .2
    odds = lambda p: [math.log(p), math.log(1 - p)]  # noqa: E731
    first = Shadow(signals([odds(0.9), odds(0.5)], [0, 0]), np.array([True, False]))
    second = Shadow(signals([odds(0.5), odds(0.8)], [1, 1]), np.array([True, False]))
    target = signals([odds(0.9), odds(0.8), odds(0.4), odds(0.9)], [0, 0, 1, 1])
    verdicts = threshold([first, second], target)
    assert list(verdicts) == ["conf", "xent", "mentr", "top1_conf"]
    assert verdicts["conf"].scores == pytest.approx([0.9, 0.8, 0.6, 0.1])
    assert verdicts["conf"].threshold == pytest.approx([0.9, 0.9, 0.5, 0.5])
    assert verdicts["conf"].member.tolist() == [True, False, True, False]
    # the largest posterior: members .9, .5, others .5, .8, one threshold for all
    assert verdicts["top1_conf"].threshold == pytest.approx(0.9)


def test_balanced_accuracy_pools_the_classes():
    member = np.array([True, True, True, False])
    assert balanced_accuracy(np.array([True, True, False, False]), member) == pytest.approx((2 / 3 + 1) / 2)
