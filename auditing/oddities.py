"""What of a user's arrays would mislead: a text for each thing that is odd."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from auditing.outputs import Outputs

UNLIKE_CLASSES = 1e-6  # p below which the classes of members and non-members count as different
UNLIKE_DEALING = 0.1  # by which shares of shadow models with a record may differ between the kinds
FEW_DECIMALS = 4


def of_classes(labels: np.ndarray, member: np.ndarray) -> list[str]:
    """Whether members and non-members are of other classes, which an attack may tell apart in place
    of membership; labels and member are (n,) of the targets."""
    from scipy.stats import chi2_contingency

    classes = np.unique(labels)
    if len(classes) == 1:
        return [f"all targets are of class {classes[0]}: nothing is known of other classes"]
    may = "what attacks find may be the class, not membership"
    for kind, chosen in (("members", member), ("non-members", ~member)):
        if len(np.unique(labels[chosen])) == 1:
            return [f"all {kind} are of class {labels[chosen][0]}, and others are not: {may}"]
    counts = [[(labels[chosen] == one).sum() for one in classes] for chosen in (member, ~member)]
    p = chi2_contingency(counts).pvalue
    if p < UNLIKE_CLASSES:
        other = f"members and non-members are of other classes (chi-squared, p = {p:.1g})"
        return [f"{other}: {may}"]
    return []


def of_rounding(models: Mapping[str, Outputs]) -> list[str]:
    """Whether posteriors are rounded, and which; by the name of an array."""
    found = {name: decimals(one.values) for name, one in models.items() if not one.logits}
    rounded = {name: digits for name, digits in found.items() if digits is not None}
    texts = []
    for name, digits in rounded.items():
        if digits == 0:
            texts.append(
                f"the answers of {name} are 0 and 1 alone: of a predicted class attacks learn little, and what the "
                f"model gives away in posteriors is not tested"
            )
        else:
            texts.append(
                f"the answers of {name} are rounded to {digits} decimal{'s' * (digits > 1)}: records that differ by "
                f"less tie, so that a TPR at a low FPR can be far below what all digits would give; "
                f"hand in all digits, unless the model gives no more to anybody"
            )
    if rounded and len(set(found.values())) > 1:
        told = ", ".join(f"{name} {'all' if d is None else d}" for name, d in found.items())
        texts.append(
            f"models answer in different numbers of decimals ({told}): attacks compare unlike with "
            f"unlike"
        )
    return texts


def decimals(values: np.ndarray) -> int | None:
    """To how many decimals all posteriors are rounded, 0 to 4; None where to more. Half precision
    counts as 3."""
    if values.dtype.itemsize == 2:
        return 3
    values = values.astype(np.float32)  # in which 0.12 is 0.12, whatever it was read from
    first = values.reshape(-1, values.shape[-1])[
        :100
    ]  # which tell of most arrays that they are not
    for digits in range(FEW_DECIMALS + 1):
        if all((np.round(one, digits) == one).all() for one in (first, values)):
            return digits
    return None


def of_dealing(shadow_member: np.ndarray, member: np.ndarray) -> list[str]:
    """Whether the number of shadow models with a target tells that it is a member; (S, n) and (n,)
    of the targets."""
    texts: list[str] = []
    if not shadow_member.any():
        return texts
    for number, one in enumerate(shadow_member):
        if np.array_equal(one, member):
            texts.append(
                f"shadow model {number} was trained on just the members of the model that is audited, "
                f"whom an attacker does not know: figures may be too high"
            )
    inside = shadow_member.mean(axis=0)
    of_members, of_others = inside[member].mean(), inside[~member].mean()
    if abs(of_members - of_others) > UNLIKE_DEALING:
        texts.append(
            f"members are in the training sets of {100 * of_members:.0f} % of the shadow models, "
            f"non-members of {100 * of_others:.0f} %: draw these sets without regard to membership, "
            f"else the number itself tells"
        )
    return texts
