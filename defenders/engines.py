"""The private optimisers of Opacus and pyvacy, which add noise that is drawn elsewhere.

Both take `draw(parameter, std)`, which returns noise of standard deviation `std` for a parameter,
like it in shape, type and device. Importing this file imports both libraries, which takes seconds.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from opacus.optimizers.optimizer_fast_gradient_clipping import DPOptimizerFastGradientClipping
from pyvacy.optim import DPSGD

Draw = Callable[[torch.nn.Parameter, float], torch.Tensor]


class OpacusOptimizer(DPOptimizerFastGradientClipping):
    """Opacus's optimiser for gradients that are a clipped sum already, as ghost clipping needs
    it."""

    def __init__(self, optimizer: torch.optim.Optimizer, *, draw: Draw, **how):
        super().__init__(optimizer, **how)
        self.draw = draw

    def add_noise(self) -> None:
        """In place of Opacus's own, which draws from torch's generators."""
        for parameter in self.params:
            noise = self.draw(parameter, self.noise_multiplier * self.max_grad_norm)
            parameter.grad = (parameter.summed_grad + noise).view_as(parameter)


class PyvacySGD(DPSGD):
    """pyvacy's SGD, on whichever device its parameters are."""

    noise: Any

    def __init__(
        self,
        l2_norm_clip: float,
        noise_multiplier: float,
        batch_size: float,
        parameters: list,
        *,
        draw: Draw,
        **how,
    ):
        super().__init__(l2_norm_clip, noise_multiplier, batch_size, parameters, **how)
        self.device = parameters[0].device  # it would take a GPU whenever there is one
        self.noise = _InTurn(parameters, float(self.noise.stddev), draw)


class _InTurn:
    """In place of the torch distribution from which pyvacy samples noise, one parameter after the
    other."""

    def __init__(self, parameters: list, std: float, draw: Draw):
        self.parameters, self.std, self.draw = itertools.cycle(parameters), std, draw

    def sample(self, shape: torch.Size) -> torch.Tensor:
        parameter = next(self.parameters)
        if parameter.shape != shape:
            raise RuntimeError(
                f"pyvacy asks for noise of shape {tuple(shape)} out of turn: a parameter of shape "
                f"{tuple(parameter.shape)} has no gradient"
            )
        return self.draw(parameter, self.std)
