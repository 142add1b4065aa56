"""Pair-based posterior balancing."""

import torch
from torch.nn import functional as F

from base_model import Batch, Objective


class PosteriorBalancing(Objective):
    """Draw the ranked posteriors of pairs of records together (Yuan & Zhang 2022, section 6)."""

    def criterion(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        return F.cross_entropy(logits, batch.y) + self.strength * pair_divergence(logits)


def pair_divergence(logits: torch.Tensor) -> torch.Tensor:
    """Mean KL(ranked second half || ranked first half) of a batch (B, C), gradients through both.

    Record i of the first half is paired with record i of the second; an odd record is left out.
    """
    half = len(logits) // 2
    if half == 0:
        return logits.new_zeros(())
    ranked = torch.log_softmax(logits[: 2 * half].sort(dim=1, descending=True).values, dim=1)
    first, second = ranked[:half], ranked[half:]
    return (
        (second.exp() * (second - first)).sum(dim=1).mean()
    )  # F.kl_div has no rule for vmap, see `Stack`
