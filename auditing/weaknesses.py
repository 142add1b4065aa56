"""Why a pass would say more than the evidence does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from attackers import metrics
from auditing.given import Given
from auditing.result import AttackResult

# attacks that compare a record's answer with those of shadow models for the same record
STRONG = (
    "lira",
    "lira_online",
    "lira_offline",
    "bavaria",
    "rmia",
    "base",
    "lira_joint",
    "ensemble",
)
ENOUGH_SHADOWS = 8
APART = 0.05  # accuracies of the audited model and of shadow models differ by no more by chance
ENOUGH_OF_A_KIND = 3  # shadow models that were trained with a record, or without it


@dataclass(frozen=True)
class Weakness:
    """What is weak, what would mend it, and whether no gate may pass for it."""

    says: str
    add: str
    blocks: bool


def weaknesses_of(
    given: Given, results: Sequence[AttackResult], left_out: Sequence[str] = ()
) -> list[Weakness]:
    """What makes figures lower than a full audit's, or their intervals wider.

    Args:
        left_out: attacks that could have been made in seconds.
    """
    of_attacks = _of_attacks(results) if given.released.shadows else []
    if left_out:
        says = f"attacks that take seconds were left out: {', '.join(left_out)}"
        of_attacks.append(Weakness(says, "--attacks quick", True))
    return [
        *mislabelled(given),
        *_of_shadows(given),
        *unlike_shadows(given),
        *of_attacks,
        *_of_non_members(given),
    ]


def mislabelled(given: Given) -> list[Weakness]:
    """Whether the audited model is right on its own members by chance alone."""
    outputs, labels = given.released.victim.logits, given.labels[given.member]
    right = outputs[given.member].argmax(axis=1) == labels
    if not _by_guessing(right, labels, outputs.shape[1]):
        return []
    return [
        Weakness(
            f"the model gets {100 * right.mean():.1f} % of its own members right, no more than "
            f"guessing: are labels in the order of its classes, from 0, and was it asked as it was "
            f"trained?",
            "labels and records as in its training",
            True,
        )
    ]


def _by_guessing(right: np.ndarray, labels: np.ndarray, num_cls: int) -> bool:
    """Whether the accuracy, each class counted alike, is within three standard errors of chance."""
    classes = np.unique(labels)
    chance = 1 / num_cls
    mean = np.mean([right[labels == label].mean() for label in classes])
    variance = np.mean([chance * (1 - chance) / (labels == label).sum() for label in classes])
    return bool(mean <= chance + 3 * np.sqrt(variance / len(classes)))


def _of_shadows(given: Given) -> list[Weakness]:
    count = len(given.released.shadows)
    if count == 0:
        return [
            Weakness(
                "there are no shadow models, so that only the weakest attacks could be made",
                f"answers of at least {ENOUGH_SHADOWS} shadow models, better 16, each trained as the "
                f"model was on a random half of the targets (shadows, shadow_member)",
                True,
            )
        ]
    found = []
    if count < ENOUGH_SHADOWS:
        found.append(
            Weakness(
                f"there {'are' if count > 1 else 'is'} {count} shadow model{'s' * (count > 1)} only",
                f"at least {ENOUGH_SHADOWS - count} more shadow models, {ENOUGH_SHADOWS} in all, "
                f"better 16",
                True,
            )
        )
    inside = given.shadow_member[:, given.target].sum(axis=0)
    fewer = np.minimum(inside, count - inside)
    if not given.online:
        found.append(
            Weakness(
                "no shadow model was trained on a target, so that attacks know how models answer "
                "without a record, and not with it",
                "shadow models that are each trained on a random half of the targets",
                False,
            )
        )
    elif count >= ENOUGH_SHADOWS and np.median(fewer) < ENOUGH_OF_A_KIND:
        found.append(
            Weakness(
                f"half of the targets have fewer than {ENOUGH_OF_A_KIND} shadow models that were trained "
                f"with them, or without",
                "shadow models that are each trained on a random half of the targets",
                True,
            )
        )
    return found


def unlike_shadows(given: Given) -> list[Weakness]:
    """Whether shadow models are right clearly more or less often than the audited model, on records
    that they were trained on or on targets that they were not."""
    if not given.released.shadows:
        return []
    victim, *shadows = (
        one.logits.argmax(axis=1) == given.labels
        for one in (given.released.victim, *given.released.shadows)
    )
    seen, unseen = victim[given.member].mean(), victim[given.target & ~given.member].mean()
    inside = [one[rows].mean() for one, rows in zip(shadows, given.shadow_member) if rows.any()]
    without = given.target & ~given.shadow_member
    outside = [one[rows].mean() for one, rows in zip(shadows, without) if rows.any()]
    if not _apart(seen, inside) and not _apart(unseen, outside):
        return []
    of_victim, of_shadows = (
        f"{100 * one:.1f} % of the records they were trained on and {100 * other:.1f} % of others"
        for one, other in ((seen, unseen), (np.mean(inside), np.mean(outside)))
    )
    return [
        Weakness(
            f"shadow models get {of_shadows} right, the audited model {of_victim}: they are not "
            f"trained as it was (epochs, records, compression?), or member is not the truth; attacks "
            f"by them are then weaker",
            "shadow models that are trained as the audited model was",
            True,
        )
    ]


def _apart(victim: float, shadows: Sequence[float]) -> bool:
    """Of accuracies; none of shadow models where nothing can be compared."""
    if not shadows:
        return False
    return abs(victim - float(np.mean(shadows))) > max(APART, 3 * float(np.std(shadows)))


def _of_attacks(results: Sequence[AttackResult]) -> list[Weakness]:
    made = {one.name for one in results if one.of_released}
    if made & set(STRONG):
        return []
    return [Weakness("none of the strong attacks was made", "lira, rmia or base (--attacks)", True)]


def _of_non_members(given: Given) -> list[Weakness]:
    others = int((given.target & ~given.member).sum())
    lowest = smallest_fpr(others)
    if lowest is not None and lowest <= 0.01:
        return []
    told = "no TPR at a FPR of 10 %, 1 % or 0.1 %" if lowest is None else "no TPR below 10 % FPR"
    return [
        Weakness(
            f"{others} non-members tell {told}",
            f"{1000 - others:,} more non-members, 1,000 in all",
            False,
        )
    ]


def smallest_fpr(others: int) -> float | None:
    """The smallest FPR of `metrics.FPRS` of which so many non-members tell the TPR, by the rule of
    `metrics.measures`; None where of none."""
    return min((limit for limit in metrics.FPRS if others * limit >= 10), default=None)
