"""A batch worked on in slices, side by side on all cores, each with autograd of its own."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch

from core.parallel import available_cores
from models.layers import Generator, dropout_generator

SLICE = 64  # records; fixed, so that results do not depend on the number of cores


@lru_cache(maxsize=1)
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(available_cores())


os.register_at_fork(after_in_child=_threads.cache_clear)  # threads do not survive a fork


def in_slices(
    function: Callable, x: torch.Tensor, parameters: list[torch.Tensor], generator: Generator
) -> torch.Tensor:
    """`function(x, generator)` of a batch on the CPU, from slices of it.

    What that gains depends on the processor: see docs/speed.md and
    `python benchmarks/speed.py cpu --parts samia`.

    Args:
        function: treats the records of a batch one by one; draws its randomness from the generator
            that it is given.
        parameters: those that `function` uses, which get the sum of the slices' gradients.
        generator: seeds one generator a slice, so that the threads' timing changes nothing.
    """
    if not isinstance(generator, np.random.BitGenerator):
        raise TypeError("slices are worked on by the CPU, whose dropout draws from numpy")
    seeds = generator.random_raw(-(-len(x) // SLICE)).tolist()
    return _InSlices.apply(function, seeds, x, *parameters)


class _InSlices(torch.autograd.Function):
    @staticmethod
    def forward(ctx, function, seeds, x, *parameters):
        def forward(part, seed):
            with torch.enable_grad():
                part = part.detach().requires_grad_()
                return part, function(part, dropout_generator(seed, part.device))

        ctx.parameters = parameters
        ctx.graphs = list(_threads().map(forward, x.split(SLICE), seeds))
        return torch.cat([out.detach() for _, out in ctx.graphs])

    @staticmethod
    def backward(ctx, gradient):
        def backward(graph, part):
            start, out = graph
            return torch.autograd.grad(out, [start, *ctx.parameters], part, allow_unused=True)

        parts = list(_threads().map(backward, ctx.graphs, gradient.split(SLICE)))
        del ctx.graphs
        inputs, *shared = zip(*parts)
        return (
            None,
            None,
            torch.cat(inputs),
            *[None if some[0] is None else sum(some[1:], some[0]) for some in shared],
        )
