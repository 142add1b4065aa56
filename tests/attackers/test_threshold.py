"""The threshold attacks against hand-worked numbers, a search over all pairs and the published procedure."""

import math

import numpy as np
import pytest

from attackers import Evidence, attack
from attackers.calibration import best_threshold, class_thresholds
from attackers.metrics import balanced_accuracy
from attackers.signals import Signals
from attackers.threshold import SCORES, threshold

P = np.array([[0.7, 0.2, 0.1], [0.05, 0.05, 0.9]])
LABELS = np.array([0, 1])


def scores(name, p=P, labels=LABELS):
    return SCORES[name][0](p, 1 - p, labels)


def test_scores_worked_by_hand():
    assert scores("conf") == pytest.approx([0.7, 0.05])
    assert scores("top1_conf") == pytest.approx([0.7, 0.9])
    assert scores("xent") == pytest.approx(
        [
            0.7 * math.log(0.7) + 0.2 * math.log(0.2) + 0.1 * math.log(0.1),  # -0.80182
            2 * 0.05 * math.log(0.05) + 0.9 * math.log(0.9),
        ]
    )
    assert scores("xent")[0] == pytest.approx(-0.80182, abs=1e-5)
    assert scores("mentr") == pytest.approx(
        [
            0.3 * math.log(0.7) + 0.2 * math.log(0.8) + 0.1 * math.log(0.9),  # -0.16217
            0.95 * math.log(0.05) + 0.05 * math.log(0.95) + 0.9 * math.log(0.1),
        ]
    )
    assert scores("mentr")[0] == pytest.approx(-0.16217, abs=1e-5)


def test_modified_entropy_is_zero_for_certain_and_right_and_clamped_for_certain_and_wrong():
    p = np.array([[1.0, 0.0], [0.0, 1.0]])
    # certain and wrong: (1 - 0) ln(clamped 0) + 1 ln(clamped 0)
    assert scores("mentr", p, np.array([0, 0])) == pytest.approx([0, 2 * math.log(1e-30)])
    assert scores("xent", p, np.array([0, 0])) == pytest.approx([0, 0])


def test_posteriors_keep_their_digits_next_to_one():
    p, complement = Signals(
        np.array([[60.0, 0.0, 1.0], [0.0, 0.0, 0.0]], dtype=np.float32)
    ).posteriors()
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
    assert class_thresholds(values, labels, member, num_cls=3, default=0.5).tolist() == [
        0.9,
        0.5,
        0.5,
    ]


def test_given_posteriors_are_taken_as_they_are():
    """Also those that do not quite sum to 1: logits are made of them, but the scores are not made of these."""
    given = np.array([[0.7, 0.2, 0.1], [1.0, 0.0, 0.0], [0.5, 0.25, 0.2]])
    p, complement = Signals.from_posteriors(given).posteriors()
    assert (p == given).all() and (complement == 1 - given).all()


def test_thresholds_are_chosen_a_class_on_shadows_and_pooled_over_them():
    # class 0 is cut between its posteriors .9 and .6, class 1 between .5 and .2
    odds = lambda p: [math.log(p), math.log(1 - p)]
    unseen = [odds(0.99)]  # what nobody should look at: another's records
    first = np.array([odds(0.9), odds(0.5)] + 6 * unseen, np.float32)
    second = np.array(2 * unseen + [odds(0.5), odds(0.8)] + 4 * unseen, np.float32)
    victim = np.array(4 * unseen + [odds(0.9), odds(0.8), odds(0.4), odds(0.9)], np.float32)
    evidence = Evidence(
        labels=np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        victim=Signals(victim),
        shadows=[Signals(first), Signals(second)],
        member=np.array([[1, 0, 0, 0, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0, 0, 0]], bool),
        calibration_mask=np.array([[1, 1, 0, 0, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0, 0, 0]], bool),
        target=np.arange(8) >= 4,
        online=False,
    )
    verdicts = threshold(evidence)
    assert list(verdicts) == ["conf", "xent", "mentr", "top1_conf"]
    assert verdicts["conf"].scores == pytest.approx([0.9, 0.8, 0.6, 0.1])
    assert verdicts["conf"].threshold == pytest.approx([0.9, 0.9, 0.5, 0.5])
    assert verdicts["conf"].member.tolist() == [True, False, True, False]
    # the largest posterior: members .9, .5, others .5, .8, one threshold for all
    assert verdicts["top1_conf"].threshold == pytest.approx(0.9)


def test_balanced_accuracy_pools_the_classes():
    member = np.array([True, True, True, False])
    assert balanced_accuracy(np.array([True, True, False, False]), member) == pytest.approx(
        (2 / 3 + 1) / 2
    )


# ---- the published procedure, written from its definition ------------------------------------------------------------

PUBLISHED = {  # name -> score of a record from its posterior and class; larger = rather a member
    "conf": lambda p, y: p[y],
    "xent": lambda p, y: math.fsum(q * log(q) for q in p),
    "mentr": lambda p, y: math.fsum(
        (1 - q) * log(q) if c == y else q * log(1 - q) for c, q in enumerate(p)
    ),
}


def log(p):
    return math.log(max(p, 1e-30))


def published_accuracy(name, shadow, victim, num_cls):
    """Accuracy by Song & Mittal of (posteriors, labels, member) of the pooled shadow records and of the victim's.

    Each class's threshold is the first value, of members, then of non-members, that no other one betters.
    """
    if name == "gap":
        p, labels, member = victim
        return balanced(
            [max(range(num_cls), key=row.__getitem__) == y for row, y in zip(p, labels)], member
        )
    values = [
        np.array([PUBLISHED[name](row, y) for row, y in zip(p, labels)])
        for p, labels, _ in (shadow, victim)
    ]
    decision = np.zeros(len(victim[1]), bool)
    for label in range(num_cls):
        here, there = shadow[1] == label, victim[1] == label
        limit = by_all_pairs(values[0][here & shadow[2]], values[0][here & ~shadow[2]])
        decision[there] = values[1][there] >= limit
    return balanced(decision, victim[2])


def balanced(decision, member):
    """(TPR + TNR) / 2."""
    right = [bool(said) == bool(truth) for said, truth in zip(decision, member)]
    of = lambda kind: sum(r for r, m in zip(right, member) if m == kind) / sum(member == kind)
    return (of(True) + of(False)) / 2


def answers(draw, labels, member, num_cls):
    """Posteriors of a model that remembers its members: float32, often exactly 0 and 1, and rounded to make ties."""
    z = draw.normal(size=(len(labels), num_cls)) * draw.choice([1, 4, 200], size=(len(labels), 1))
    z[np.arange(len(labels)), labels] += 2 + 2 * member
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p = (p / p.sum(axis=1, keepdims=True)).astype(np.float32)
    coarse = draw.random(len(labels)) < 0.5
    p[coarse] = np.round(p[coarse] * 8) / 8
    p[np.arange(len(p)), p.argmax(axis=1)] += np.where(
        coarse, 1 - p.sum(axis=1), 0
    )  # exact, as eighths are
    return p.astype(np.float64)


def array_evidence(seed, num_cls=4, n=240):
    """Two shadow models on the first half of the records, the victim on the second; who is its member."""
    draw = np.random.default_rng(seed)
    labels, target = draw.integers(num_cls, size=n), np.arange(n) >= n // 2
    member = np.stack([(draw.random(n) < 0.5) & ~target for _ in range(2)])
    truth = (draw.random(n) < 0.4) & target
    shadows = np.stack(
        [answers(draw, labels, calibration_mask, num_cls) for calibration_mask in member]
    )
    victim = answers(draw, labels, truth, num_cls)
    return labels, victim, shadows, member, target, truth


@pytest.mark.parametrize("seed", range(8))
def test_on_given_posteriors_the_published_procedure_is_reproduced(seed):
    labels, victim, shadows, member, target, truth = array_evidence(seed)
    assert (victim[target] == 1).any() and (victim[target] == 0).any()
    assert len(np.unique(victim[target].max(axis=1))) < 0.8 * target.sum()  # ties
    evidence = Evidence.from_posteriors(
        labels, victim=victim, shadows=shadows, member=member, target=target
    )
    found = attack("threshold", evidence) | attack("gap", evidence)
    pooled = (
        np.concatenate(shadows[:, ~target]),
        np.tile(labels[~target], 2),
        np.concatenate(member[:, ~target]),
    )
    asked = (victim[target], labels[target], truth[target])
    for name in ("conf", "xent", "mentr", "gap"):
        accuracy = balanced_accuracy(found[name].member, truth[target])
        assert accuracy == pytest.approx(published_accuracy(name, pooled, asked, 4), abs=1e-9), name
        assert 0 < found[name].member.mean() < 1, name


def test_a_class_that_no_shadow_record_has_is_judged_by_the_global_threshold():
    labels, victim, shadows, member, target, _ = array_evidence(0)
    labels[~target & (labels == 2)] = 1
    verdicts = attack(
        "threshold",
        Evidence.from_posteriors(
            labels, victim=victim, shadows=shadows, member=member, target=target
        ),
    )
    rows = np.arange(len(labels))
    for name, score in PUBLISHED.items():
        values = np.array([[score(p[i], labels[i]) for i in rows[~target]] for p in shadows])
        of_all = by_all_pairs(values[member[:, ~target]], values[~member[:, ~target]])
        mine = labels[target] == 2
        assert mine.any() and verdicts[name].threshold[mine] == pytest.approx(of_all, rel=1e-12)
        assert len(np.unique(verdicts[name].threshold)) > 1
