"""Who of the records is a target, and whom each shadow model is trained on."""

from __future__ import annotations

import math

import numpy as np

from datasets import check_even


def deal(member: np.ndarray, *, seed: int, shadow_num: int) -> tuple[np.ndarray, np.ndarray]:
    """Targets (N,) bool, and the records (S, N) bool that each shadow model is trained on.

    A tenth of the non-members at least is population, drawn at random: no shadow model is trained
    on them, and attacks that need known non-members have them. All members of the released model
    are targets, and as many of the other non-members, or all where there are fewer; those beyond
    are population too. Shadow models come in pairs that take the two halves of a random order of
    the targets, as in `datasets.split`: each target is IN exactly half of them, and how often tells
    nothing of the released model, which has no say in it. So a shadow model has as many records as
    the released one, or fewer where non-members are few: half the targets.

    More shadow models are dealt the same as fewer, and more pairs.
    """
    check_even(shadow_num)
    draw = np.random.default_rng(seed)
    members, others = np.flatnonzero(member), draw.permutation(np.flatnonzero(~member))
    others = others[: min(len(members), len(others) - math.ceil(len(others) / 10))]
    rows = np.sort(np.concatenate([members, others]))
    target = np.zeros(len(member), bool)
    target[rows] = True
    trained_on = np.zeros((shadow_num, len(member)), bool)
    for pair in range(0, shadow_num, 2):
        halves = np.array_split(draw.permutation(rows), 2)
        for shadow, half in enumerate(halves, pair):
            trained_on[shadow, half] = True
    return target, trained_on
