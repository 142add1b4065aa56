"""Classes and groups: counts by hand."""

import numpy as np
import pytest
from answers_cases import result_of

from attackers import metrics
from auditing.groups import groups_at_risk


def test_groups_are_measured_alone_at_the_threshold_of_all():
    draw, n = np.random.default_rng(0), 4000
    member, labels = np.arange(n) % 2 == 0, np.arange(n) // 2 % 3
    group = np.where(np.arange(n) < 30, "few", "rest").astype("U9")
    group[:8] = "none in"
    member[:8] = False
    scores = draw.normal(size=n) + (labels == 2) * member * 3.0
    result = result_of(scores, member, threshold=1.0)
    found = groups_at_risk(result, member, labels, group)
    assert [(one.kind, one.name) for one in found] == [
        *(("class", name) for name in "012"),
        *(("group", name) for name in ("few", "none in", "rest")),
    ]
    limit = np.sort(scores[~member])[::-1][int((~member).sum() * 0.01)]
    for one in found:
        chosen = labels == int(one.name) if one.kind == "class" else group == one.name
        ins, outs = scores[chosen & member], scores[chosen & ~member]
        assert (one.members, one.non_members) == (len(ins), len(outs))
        if len(ins):
            named = (ins > limit).sum()
            assert one.named_members.value == named / len(ins)
            assert [one.named_members.low, one.named_members.high] == metrics.clopper_pearson(
                named, len(ins)
            )
        else:
            assert one.named_members is None
        if min(len(ins), len(outs)) < 10:
            assert one.accuracy is None and one.auc is None
            continue
        accuracy = ((ins >= 1).mean() + (outs < 1).mean()) / 2
        assert one.accuracy.value == pytest.approx(accuracy, abs=1e-12)
        assert one.accuracy.low < accuracy < one.accuracy.high
        auc = (ins[:, None] > outs).mean()
        assert one.auc.value == pytest.approx(auc, abs=1e-12) and one.auc.low < auc < one.auc.high
    assert found[4].accuracy is None and found[5].accuracy is not None
    assert found[2].auc.low > found[0].auc.high  # class 2 is the one that leaks


def test_without_enough_non_members_nobody_is_named():
    member = np.arange(200) % 2 == 0
    result = result_of(np.random.default_rng(0).normal(size=200), member)
    (one,) = groups_at_risk(result, member, np.zeros(200, int), None)
    assert one.named_members is None and one.auc is not None
