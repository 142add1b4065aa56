"""DMP: the original's posteriors on records that it was not trained on."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from base_model import Batch, Context, Objective
from core.console import UserError
from defenders.criteria import log_posteriors


class DistillationForPrivacy(Objective):
    """KL divergence to the original's softened posteriors on records that it was not trained on
    (distillation for membership privacy, Shejwalkar & Houmansadr, AAAI 2021).

    The reference records are the role's dev records, which are neither members nor among the
    non-members that are attacked. As they are few, each record of a batch is mixed with another one
    of it, w x + (1 - w) x', w uniform in 0..1 for each, and an epoch has as many as there are train
    records. No train record and no label is seen. The original's logits are divided by the
    strength, a temperature, and the network's own are not.

    Training starts from new weights (`new_weights` in the registry); the masks, and in quantize.py
    without --pruned the weights too, are those of the original, which has seen the train records.

    Where it departs: the paper has as many reference records as train records or more, unmixed, and
    chooses from a larger pool those of low entropy. Dev records choose the epoch too. (Of the
    paper's text only the beginning was at hand; the temperature of 4 is that of public code that
    follows it.)
    """

    def setup(self, context: Context) -> None:
        data = context.data
        assert data.dev is not None  # each role has them
        self.dev, self.generator = data.dev, context.generator
        if len(self.dev) < data.records.num_cls:
            raise UserError(
                f"distill learns from dev records, of which there are {len(self.dev)}, fewer than "
                f"the {data.records.num_cls} classes: take more records or another --defend"
            )
        self.original = context.original_network()

    def batches(
        self, indices: torch.Tensor, size: int, *generators: torch.Generator, epoch: int = 0
    ) -> Iterable[torch.Tensor]:
        passes = -(-len(indices) // len(self.dev))
        numbers = self.dev.repeat(passes)[: len(indices)]
        return super().batches(numbers, size, *generators, epoch=epoch)

    def loss(self, network: nn.Module, batch: Batch) -> torch.Tensor:
        draw, device = self.generator, batch.x.device
        shape = (len(batch.x), *[1] * (batch.x.dim() - 1))
        weight = torch.rand(shape, generator=draw, device=device)
        partner = torch.randperm(len(batch.x), generator=draw, device=device)
        x = weight * batch.x + (1 - weight) * batch.x[partner]
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            taught = log_posteriors(self.original(x) / self.strength)
        log_p = log_posteriors(network(x))
        return (taught.exp() * (taught - log_p)).sum(dim=1).mean()
