"""Defences that show less of a posterior: rounded, its largest classes, its class. They train as
none does."""

import math

import torch

from attackers.signals import LOG_FLOOR
from base_model import Objective


def log_of(posteriors: torch.Tensor) -> torch.Tensor:
    """Logarithms of what is shown, with the floor that attackers give to posteriors of 0."""
    return posteriors.clamp(min=LOG_FLOOR).log()


class Rounded(Objective):
    """Posteriors rounded to `strength` decimal digits (Shokri et al., S&P 2017, section VIII).

    They need not sum to 1. The class can change where the two largest become equal; the first of
    them counts.
    """

    def release(self, logits: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        scale = 10**self.strength
        shown = (logits.double().softmax(dim=1) * scale).round() / scale
        return log_of(shown).to(logits.dtype)


class TopK(Objective):
    """The `strength` largest posteriors (Shokri et al., S&P 2017, section VIII); of equal ones the
    first.

    What is left to 1 is spread evenly over the other classes: whoever sees the largest knows their
    sum, and no more. No class can change.
    """

    keeps_class = True

    def release(self, logits: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        k, num_cls = int(self.strength), logits.shape[1]
        if k >= num_cls:
            return logits
        log_p = logits.double().log_softmax(dim=1)
        hidden = log_p.argsort(dim=1, descending=True, stable=True)[:, k:]
        each = log_p.gather(1, hidden).logsumexp(dim=1, keepdim=True) - math.log(num_cls - k)
        return log_p.scatter(1, hidden, each.expand(hidden.shape)).to(logits.dtype)


class LabelOnly(Objective):
    """1 for the class, 0 for all others (Shokri et al., S&P 2017, section VIII)."""

    keeps_class = True

    def release(self, logits: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        shown = torch.zeros_like(logits, dtype=torch.float64)
        return log_of(shown.scatter(1, logits.argmax(dim=1, keepdim=True), 1)).to(logits.dtype)
