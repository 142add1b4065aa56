"""How an attack does on each class and on each group of the user's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np

from attackers import metrics
from auditing.result import AttackResult, Estimate, GroupRisk

FEW = 10  # members, or non-members: of fewer there is no accuracy and no AUC


def groups_at_risk(
    result: AttackResult, member: np.ndarray, labels: np.ndarray, group: np.ndarray | None
) -> list[GroupRisk]:
    """The risk of each class among n targets, then of each group, in their order.

    `accuracy` and `auc` are None where there are fewer than ten members or non-members, and the
    accuracy where the attack has no threshold; `named_members`, the share of a group's members that
    score above all but 1 % of all non-members, whatever their group, where the attack has no TPR at
    1 % FPR or the group has no member. Its interval, Clopper & Pearson's, takes the threshold as
    given.

    Args:
        member, labels, group: (n,).
    """
    found = []
    for kind, name, chosen in _parts(labels, group):
        ins = member[chosen]
        members, others = int(ins.sum()), int((~ins).sum())
        accuracy = auc = named = None
        if min(members, others) >= FEW:
            if result.called is not None and result.measures["accuracy"] is not None:
                right = result.called[chosen]
                value = metrics.balanced_accuracy(right, ins)
                accuracy = Estimate(value, *metrics.accuracy_interval(right, ins))
            scores = result.scores[chosen]
            if result.measures["auc"] is not None:
                auc = Estimate(metrics.auc(scores, ins), *metrics.auc_interval(scores, ins))
        if members and result.measures["tpr_at_0.01"] is not None:
            count = int(result.named[chosen][ins].sum())
            named = Estimate(count / members, *metrics.clopper_pearson(count, members))
        found.append(GroupRisk(kind, name, members, others, accuracy, auc, named))
    return found


def _parts(
    labels: np.ndarray, group: np.ndarray | None
) -> Iterator[tuple[Literal["class", "group"], str, np.ndarray]]:
    for label in np.unique(labels):
        yield "class", str(label), labels == label
    for name in np.unique(group) if group is not None else ():
        yield "group", str(name), group == name
