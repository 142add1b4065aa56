"""RelaxLoss: a loss that is held at a level above zero."""

import torch

from base_model import Batch, Objective
from defenders.criteria import log_posteriors, of_class


class RelaxLoss(Objective):
    """Hold the mean cross-entropy of batches at the strength alpha (Chen, Yu & Fritz, ICLR 2022).

    Epochs 0, 2, ...: |CE - alpha| of the batch's mean CE, so descent above alpha and ascent below.
    Epochs 1, 3, ...: CE where the batch's mean is above alpha, else the mean of
    [wrong] * CE(t) - CE over its records, where the target t has p_y for the record's class and
    (1 - p_y) / (C - 1) for any other (posterior flattening), and [wrong] is 1 for records that the
    network misclassifies, else 0. As in the authors' code for images, gradients flow through t
    too, and p_y in t may go up to 1 (`upper` = 1).

    Their code for tables flattens all records, without - CE, and bounds p_y in t by 0.1 or 0.3: one
    more number for each data set, which is left out here. `torch.where` stands for their `if`,
    for stacks.
    """

    def criterion(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        log_p = log_posteriors(logits)
        own = of_class(log_p, batch.y)
        mean = -own.mean()
        if batch.epoch % 2 == 0:
            return (mean - self.strength).abs()
        wrong = logits.argmax(dim=1) != batch.y
        flattened = (wrong * soft_cross_entropy(log_p, own) + own).mean()
        return torch.where(mean > self.strength, mean, flattened)


def soft_cross_entropy(log_p: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Cross-entropy (B,) of log-posteriors (B, C) to posteriors whose doubt is spread evenly over
    all classes but the record's, which has log-posterior `own` (B,) in both."""
    p = own.exp()
    others = (log_p.sum(dim=1) - own) / (log_p.shape[1] - 1)  # the mean of their log-posteriors
    return -(p * own + (1 - p) * others)
