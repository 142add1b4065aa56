"""Attacks that see predicted classes alone: by hand, and what they are not given."""

import re
from dataclasses import fields, replace

import numpy as np
import pytest
from attack_cases import N, S, seen_by_class
from helpers import PROJECT, fixed_evidence

from attackers import ATTACKS, Evidence, LabelOnlyEvidence, attack, metrics
from attackers.label_only import boundary_distance, robustness
from attackers.label_only_evidence import ClassSignals

BY_CLASS = [name for name in ATTACKS if "label_only" in ATTACKS[name].options]


def test_the_share_of_copies_by_hand():
    """Four records of classes 0, 1, 1, 0; the third is put into a wrong class, the fourth was not asked for."""
    copies = np.array([[[0, 1, 1, 0], [1, 1, 1, 0], [0, 1, 1, 0], [0, 1, 1, 0]]])
    signals = ClassSignals(np.array([0, 1, 0, -1]), copies, np.array([0.5, 2.0, 3.0, 4.0]))
    labels = np.array([0, 1, 1, 0])
    share = robustness(signals, labels, level=0)
    assert share[:3].tolist() == [0.75, 1.0, 0.0] and np.isnan(share[3])
    distances = boundary_distance(signals, labels)
    assert distances[:3].tolist() == [0.5, 2.0, 0.0] and np.isnan(distances[3])


def by_hand(**changes):
    """Two shadow models on records 0 to 3, targets 4 and 5; of class 0 all, and two strengths. At the first, copies
    of members and of others stay alike; at the second, members' alone."""
    of_shadow = [
        [[0, 0, 0, 0, 1, 1], [0, 1, 0, 1, 1, 1]],  # a strength: K = 2 copies of six records
        [[0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1]],
    ]
    of_victim = [[[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 0, 0]], [[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 0, 0]]]
    given = dict(
        victim=np.zeros(6),
        shadows=np.zeros((2, 6)),
        member=[[1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0]],
        target=[0, 0, 0, 0, 1, 1],
        copies=(of_victim, [of_shadow, of_shadow]),
        strengths=[0.1, 0.4],
        distances=([0, 0, 0, 0, 2.5, 1.5], [[3, 2, 2.5, 1, 0, 0], [3, 2, 1, 1, 0, 0]]),
    )
    return LabelOnlyEvidence.from_classes(np.zeros(6), **given | changes)


def test_the_strength_and_the_threshold_come_from_the_shadow_models():
    verdict = attack("noise_robustness", by_hand())["noise_robustness"]
    # AUC at .1: members 1, .5 against 1, .5 = 1/2; at .4: members 1, 1 against .5, 0 = 1
    assert verdict.chosen == {"strength": 0.4} and verdict.threshold == 1
    assert verdict.scores.tolist() == [0.5, 1.0] and verdict.member.tolist() == [False, True]


def test_distances_are_scores_and_their_best_threshold_counts():
    """Members at 3, 2, 3, 2, others at 2.5, 1, 1, 1: from 2 on, all members and one other."""
    verdict = attack("boundary", by_hand(), boundary_records=20)["boundary"]
    assert verdict.scores.tolist() == [2.5, 1.5] and verdict.threshold == 2
    assert verdict.member.tolist() == [True, False] and verdict.chosen == {}


@pytest.mark.parametrize("name", list(ATTACKS))
def test_an_attack_by_class_gets_no_posterior_and_any_other_no_classes(name):
    """Nothing that it is handed has a logit or a posterior in it; evidence that has is refused."""
    evidence = fixed_evidence(online=False)
    classes = seen_by_class(evidence)
    right, wrong = (classes, evidence) if name in BY_CLASS else (evidence, classes)
    with pytest.raises(
        TypeError, match=f"{name} takes {type(right).__name__}, not {type(wrong).__name__}"
    ):
        attack(name, wrong)
    if name in BY_CLASS:
        assert not {one.name for one in fields(ClassSignals)} & {"logits", "exact_posteriors"}
        assert not isinstance(classes, Evidence) and not hasattr(classes, "generated")
        for signals in (classes.victim, *classes.shadows):
            for values in (signals.classes, signals.copies):
                assert values.dtype.kind == "i"
        assert len(attack(name, right)[name].scores) == right.target.sum()


def test_models_of_the_same_classes_are_told_apart_by_nothing_else(monkeypatch):
    """Posteriors that are sharper by any factor: not a digit of a verdict changes but what depends on them."""
    evidence = fixed_evidence(online=True)

    def sharper(signals):
        return replace(signals, logits=3 * signals.logits, exact_posteriors=None)

    sharp = replace(
        evidence,
        victim=sharper(evidence.victim),
        shadows=[sharper(one) for one in evidence.shadows],
    )
    one, other = (
        attack("noise_robustness", seen_by_class(evidence, strengths=(0.0,)))["noise_robustness"],
        attack("noise_robustness", seen_by_class(sharp, strengths=(0.0,)))["noise_robustness"],
    )
    assert np.array_equal(one.scores, other.scores) and one.threshold == other.threshold
    gap = attack("gap", evidence)["gap"]
    assert np.array_equal(one.scores, gap.scores)  # without noise it is the gap attack


def test_more_copies_tell_more_than_the_class_alone():
    """Simulated: members are easier by 2 in the logit of their class."""
    evidence = fixed_evidence(online=True, n=4000)
    draw = np.random.default_rng(20)
    draw.random((8, 4000))
    truth = ((draw.random(4000) < 0.5) & evidence.target)[evidence.target]
    scores = attack("noise_robustness", seen_by_class(evidence))["noise_robustness"].scores
    areas = [metrics.auc(scores, truth), metrics.auc(attack("gap", evidence)["gap"].scores, truth)]
    assert areas[0] > areas[1] + 0.05 > 0.55


RIGHT = dict(
    victim=np.zeros(N, int),
    shadows=np.zeros((S, N), int),
    member=np.tile(np.arange(N) == N - 1, (S, 1)),
    target=np.arange(N) < 6,
    calibration_mask=np.ones((S, N), bool),
    copies=(np.zeros((2, 3, N), int), np.zeros((S, 2, 3, N), int)),
    strengths=[0.1, 0.2],
    distances=(np.ones(N), np.ones((S, N))),
)


def test_arrays_of_classes_are_taken():
    evidence = LabelOnlyEvidence.from_classes([0] * N, **RIGHT)
    assert evidence.strengths == (0.1, 0.2) and len(evidence.shadows) == S
    assert evidence.shadows[0].copies.shape == (2, 3, N) and evidence.target.sum() == 6
    without = {name: value for name, value in RIGHT.items() if name not in ("copies", "strengths")}
    with pytest.raises(Exception, match=r"noise_robustness needs .* \(copies=...\)"):
        attack("noise_robustness", LabelOnlyEvidence.from_classes([0] * N, **without))
    del without["distances"]
    with pytest.raises(Exception, match=r"boundary needs .* \(distances=...\)"):
        attack("boundary", LabelOnlyEvidence.from_classes([0] * N, **without))


@pytest.mark.parametrize(
    "what, wrong, says",
    [
        ("victim", np.full((N, 3), 1 / 3), r"victim must be class numbers \(N,\) of the N = 12"),
        ("victim", np.full(N, 0.5), r"victim\[0\] is 0.5: class numbers are whole"),
        ("shadows", np.zeros((S, N - 1)), r"shadows must be class numbers \(S, N\)"),
        ("shadows", np.full((S, N), -1), r"shadows\[0\] is -1"),
        ("copies", np.zeros((2, 3, N)), "copies must be a pair"),
        ("copies", (np.zeros((2, 3, N)), np.zeros((S, 1, 3, N))), r"copies\[1\] must be"),
        ("strengths", [0.1], "strengths must be numbers"),
        ("distances", np.ones(N), "distances must be a pair"),
        ("distances", (np.ones(N), np.full((S, N), np.nan)), r"distances\[1\] has nan"),
        ("distances", (-np.ones(N), np.ones((S, N))), r"distances\[0\] has -1"),
        ("member", np.zeros((S, N), bool), "no shadow model was trained"),
    ],
)
def test_arrays_that_are_none_are_refused(what, wrong, says):
    with pytest.raises(ValueError, match=says):
        LabelOnlyEvidence.from_classes([0] * N, **RIGHT | {what: wrong})


def test_the_example_of_the_documentation_runs():
    section = (PROJECT / "docs/attacks.md").read_text().split("## Predicted classes alone")[1]
    (block,) = re.findall(r"```python\n(.*?)```", section.split("\n## ")[0], re.DOTALL)
    given = dict(
        labels=np.zeros(N, int),
        victim_classes=RIGHT["victim"],
        shadow_classes=RIGHT["shadows"],
        shadow_member=RIGHT["member"],
        victim_copies=RIGHT["copies"][0],
        shadow_copies=RIGHT["copies"][1],
        strengths=RIGHT["strengths"],
        victim_distances=RIGHT["distances"][0],
        shadow_distances=RIGHT["distances"][1],
    )
    exec(block, given)  # noqa: S102
    assert given["evidence"].target.all()
