"""An L1 penalty on the weights that tell members from others."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from base_model import Batch, Context, Objective
from models.layers import evaluation_mode
from pruner.mask import mask_of

FOCUS = 2.5  # the power of a weight's share in the gap: the paper's alpha in its main table


class SparsityTuning(Objective):
    """Privacy-aware sparsity tuning (PAST; Hu, Zhang & Wei, arXiv 2410.06814):
    cross-entropy + strength * sum of g^2.5 |w| over all weights, in tuning a network that has
    converged.

    At the start of each epoch g = |M| |dG/dw| / sum over M of |dG/dw|, with G the gap between the
    mean losses of dev and train records, and M the weights and biases of w's layer, so that the
    mean of g is 1 in each layer.

    Where it departs: the paper holds the strength and varies the power; G is of all dev records,
    and as many train records drawn anew in each epoch, in evaluation mode; pruned weights are in no
    M. Its formula has no absolute values, without which g could be negative.
    """

    def setup(self, context: Context) -> None:
        """The generator draws the train records of each epoch's gap."""
        self.data, self.size, self.generator = context.data, context.batch_size, context.generator
        self.epoch = -1

    def loss(self, network: nn.Module, batch: Batch) -> torch.Tensor:
        if batch.epoch != self.epoch:
            self.factors, self.epoch = self._factors(network), batch.epoch
        penalty = torch.stack([(f * w.abs()).sum() for w, f in self.factors.items()]).sum()
        return super().loss(network, batch) + self.strength * penalty

    def _factors(self, network: nn.Module) -> dict[nn.Parameter, torch.Tensor]:
        """{parameter: g^2.5 of its weights}; 0 in a layer that does not bear on the gap."""
        dev, train = self.data.dev, self.data.train
        assert dev is not None  # each role has them
        drawn = torch.randperm(len(train), generator=self.generator, device=train.device)[
            : len(dev)
        ]
        with evaluation_mode(network), torch.autocast(train.device.type, enabled=False):
            others, members = (self._slope(network, rows) for rows in (dev, train[drawn]))
        factors: dict[nn.Parameter, torch.Tensor] = {}
        for layer in network.modules():
            own = list(layer.parameters(recurse=False))
            if not own:
                continue
            shares = [(others[parameter] - members[parameter]).abs() for parameter in own]
            # tensors throughout: a GPU makes whoever reads a number wait
            total = torch.stack([share.sum() for share in shares]).sum()
            kept = torch.stack([_kept(parameter) for parameter in own]).sum()
            scale = torch.where(total > 0, kept / total, 0.0)
            factors |= {
                parameter: (scale * share) ** FOCUS for parameter, share in zip(own, shares)
            }
        return factors

    def _slope(self, network: nn.Module, rows: torch.Tensor) -> dict[nn.Parameter, torch.Tensor]:
        """The gradient of the mean loss on these records."""
        parameters = list(network.parameters())
        sums = [torch.zeros_like(parameter) for parameter in parameters]
        for part in rows.split(self.size):
            x, y = self.data.records.batch(part)
            loss = F.cross_entropy(network(x).float(), y, reduction="sum") / len(rows)
            torch._foreach_add_(sums, torch.autograd.grad(loss, parameters))
        return dict(zip(parameters, sums))


def _kept(parameter: nn.Parameter) -> torch.Tensor:
    mask = mask_of(parameter)
    return torch.ones_like(parameter).sum() if mask is None else mask.sum().to(parameter.dtype)
