"""Votes of several queries on who is rather a member."""

import numpy as np

CHUNK = 2**24  # pairs of records that are compared at once


def share_outvoted(ratios: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Of the m limits (Q, m), the share that each target's ratios (Q, n) exceed in more than half
    of the Q queries, (n,), without ties; NaN where a target's ratios are.

    As the share is a step function, part of a step is added that grows with the ratio which a
    target exceeds in more than half of its queries: x / (1 + x) with x = log(1 + r), see
    `rmia.rank_without_ties`.
    """
    count = len(limits)
    won = np.empty(ratios.shape[1])
    step = max(1, CHUNK // limits.shape[1])
    for begin in range(0, len(won), step):
        chunk = slice(begin, begin + step)
        votes = np.zeros((won[chunk].size, limits.shape[1]), dtype=np.int16)
        for of_target, limit in zip(ratios[:, chunk], limits):
            votes += of_target[:, None] > limit
        won[chunk] = (2 * votes > count).sum(axis=1)
    middle = np.log1p(np.sort(ratios, axis=0)[(count - 1) // 2])
    return np.where(np.isnan(ratios[0]), np.nan, won + middle / (1 + middle)) / limits.shape[1]
