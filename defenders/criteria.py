"""Losses that follow from a record's posterior alone: label smoothing, confidence penalty,
convex-concave losses."""

import torch
from torch.nn import functional as F

from base_model import Batch, Objective


def log_posteriors(logits: torch.Tensor) -> torch.Tensor:
    """Log-softmax of logits (B, C), float32 where they are bfloat16: of a posterior near 1, eight
    bits leave nothing."""
    return torch.log_softmax(logits, dim=1, dtype=torch.promote_types(logits.dtype, torch.float32))


def of_class(values: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The values (B,) of (B, C) that belong to classes y (B,)."""
    return values.gather(1, y.unsqueeze(1)).squeeze(1)


class LabelSmoothing(Objective):
    """Cross-entropy to a target of 1 - strength on the class and strength / C on each of all C
    classes, its own too (Szegedy et al., CVPR 2016, section 7), as `F.cross_entropy` has it."""

    def criterion(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        log_p = log_posteriors(logits)
        own, every = of_class(log_p, batch.y), log_p.mean(dim=1)
        return -((1 - self.strength) * own + self.strength * every).mean()


class ConfidencePenalty(Objective):
    """Cross-entropy minus strength times the entropy of the posterior in nats (Pereyra et al.
    2017, section 3), without their variants: no annealing, no threshold."""

    def criterion(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        log_p = log_posteriors(logits)
        entropy = -(log_p.exp() * log_p).sum(dim=1)
        return F.nll_loss(log_p, batch.y) - self.strength * entropy.mean()


class ConvexConcave(Objective):
    """strength * cross-entropy - (1 - strength) * g(p_y), g convex, of each record (Liu et al.,
    ICML 2024).

    The authors' code multiplies this by a second number, 1 if not given and 0.05 in its example;
    here it is 1.
    """

    @staticmethod
    def gain(p: torch.Tensor) -> torch.Tensor:
        """g of posteriors (B,) of the records' classes."""
        raise NotImplementedError

    def criterion(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        own = of_class(log_posteriors(logits), batch.y)
        return -(self.strength * own + (1 - self.strength) * self.gain(own.exp())).mean()


class ConvexConcaveExponential(ConvexConcave):
    """CCEL: g(p) = e^p."""

    @staticmethod
    def gain(p: torch.Tensor) -> torch.Tensor:
        return p.exp()


class ConvexConcaveQuadratic(ConvexConcave):
    """CCQL: g(p) = p + p^2 / 2, the Taylor series of e^p to its second power, without 1."""

    @staticmethod
    def gain(p: torch.Tensor) -> torch.Tensor:
        return p + p.square() / 2
