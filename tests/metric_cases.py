"""Scores, and counts over pairs, that tests of several figures share."""

import numpy as np

from attackers import Verdict

SEEDS = range(12)


def tied(seed):
    """Scores with many ties, members' larger on the whole, and who is a member."""
    draw = np.random.default_rng(seed)
    member = draw.random(draw.integers(20, 90)) < draw.uniform(0.2, 0.8)
    member[:2] = [True, False]
    levels = int(draw.integers(1, 12))
    return np.floor(levels * (draw.normal(size=len(member)) + member)) / levels, member


def by_pairs(scores, member):
    """AUC by its definition: the share of pairs of a member and a non-member in order, of equal ones half."""
    pairs = [(m > o) + (m == o) / 2 for m in scores[member] for o in scores[~member]]
    return sum(pairs) / len(pairs)


def balanced(decision, member):
    """(TPR + TNR) / 2 from its definition."""
    return (
        (decision & member).sum() / member.sum() + (~decision & ~member).sum() / (~member).sum()
    ) / 2


def some(members=60, others=200, num_cls=3, seed=0, scores=None):
    """A verdict, who is a member, and the classes."""
    draw = np.random.default_rng(seed)
    member = draw.permutation(np.arange(members + others) < members)
    scores = draw.normal(size=len(member)) + member if scores is None else scores(draw, member)
    return Verdict(scores, 0.5), member, draw.integers(num_cls, size=len(member))
