"""Verdicts that say little, as many targets have the same score."""

import numpy as np

MOST = 0.9  # from this share of equal scores on, figures rest on a few targets
# targets that are called members, or non-members: with fewer, the threshold does not fit this
# victim
FEW = 0.01


def tied_share(scores: np.ndarray) -> float | None:
    """Share of the n targets that have the most common score, in (0, 1].

    None where scores are decisions, 0 and 1, of which many are equal by nature.
    """
    values, counts = np.unique(scores, return_counts=True)
    if len(values) == 2 and set(values) == {0, 1}:
        return None
    return float(counts.max() / len(scores))


def without_meaning(figures: dict) -> dict:
    """The same figures, each None but for counts: of equal scores nothing can be measured, not even
    that it is 50."""
    unchanged = ("members", "non_members", "equal_scores", "called_members", "intervals")
    return {
        name: value
        if name in unchanged
        else [None] * len(value)
        if name.startswith("class_")
        else None
        for name, value in figures.items()
    }


def remark(line: dict) -> str | None:
    """What is to be said beside the figures of a verdict (see `metrics.measures`); None where
    nothing is."""
    share = line.get("equal_scores")
    if share is None:  # decisions, or a line from before this was recorded
        return None
    if share == 1:
        return (
            "all targets have the same score: this says nothing, neither that there is a leak nor "
            "that there is none"
        )
    if share > MOST:
        return (
            f"{min(99.9, 100 * share):.1f} % of the targets have the same score: the figures rest "
            f"on the others"
        )
    called = line["called_members"]
    if min(called, 1 - called) < FEW:
        kind = "members" if called > 0.5 else "non-members"
        share = max(called, 1 - called)
        return (
            f"the threshold, from the shadow models, calls {100 * share:.1f} % of the targets {kind}: "
            f"the accuracy is near 50 whatever the scores tell, which the AUC says"
        )
    return None
