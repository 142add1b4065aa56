"""Queries of a network in batches that fit the memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import nn

from core.console import UserError

if TYPE_CHECKING:
    from datasets import Records

PROBE = 64  # records by which a GPU's memory for queries is gauged
# records a forward pass on the CPU, or of a stack; changes no result beyond rounding
QUERY_BATCH = 1024


def posteriors(logits: torch.Tensor) -> torch.Tensor:
    """Softmax of logits (n, C) in float64: a difference of posteriors next to 1 keeps its
    digits."""
    return torch.softmax(logits.double(), dim=1)


def sensitivity(
    network: nn.Module, x: torch.Tensor, *, draws: int, epsilon: float, generator: torch.Generator
) -> torch.Tensor:
    """Sensitivity of each posterior to noise on the inputs x (n, ...): (n, C), float32.

    s(x) = mean over `draws` of |p(x + epsilon u) - p(x)| / epsilon, u ~ N(0, I) drawn from
    `generator` on the device of x (Yuan & Zhang 2022, section 4).
    """
    posterior = posteriors(network(x))
    change = torch.zeros_like(posterior)
    for _ in range(draws):
        noise = torch.empty_like(x).normal_(generator=generator)
        change += (posteriors(network(noise.mul_(epsilon).add_(x))) - posterior).abs_()
    return (change / (draws * epsilon)).float()


class QueriesInBatches:
    """Queries a network, and remembers how many records fit into one forward pass without
    gradients.

    Args:
        size: of a batch; None = by the memory of the network's device.
    """

    def __init__(self, network: nn.Module, device: torch.device, *, size: int | None = None):
        self.network, self.device = network, device
        self.size = QUERY_BATCH if size is None and device.type == "cpu" else size

    def __call__(
        self,
        query: Callable[[torch.Tensor], torch.Tensor],
        records: Records,
        indices: torch.Tensor,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """`query(batch)` of all of `indices`, in evaluation mode; a GPU whose memory runs out gets
        smaller batches.

        Args:
            generator: what `query` draws from, so that a second try draws the same.
        Raises:
            UserError: the memory is too small for a single record.
        """
        self.network.eval()
        while True:
            size = 2 * PROBE
            state = None if generator is None else generator.get_state()
            try:
                size = self.batch_size(records)
                return torch.cat([query(batch) for batch in indices.split(size, dim=-1)], dim=-2)
            except torch.cuda.OutOfMemoryError as error:
                if size == 1:
                    raise UserError(
                        "the GPU's memory is too small for a single query: is another process "
                        "using it?"
                    ) from error
            self.size = size // 2
            if generator is not None and state is not None:
                generator.set_state(state)

    def batch_size(self, records: Records) -> int:
        """The records of one forward pass; on a GPU see `fitting_batch`."""
        if self.size is None:
            self.size = fitting_batch(self.network, records, self.device)
        return self.size


def fitting_batch(network: nn.Module, records: Records, device: torch.device) -> int:
    """Records whose forward pass takes a quarter of a GPU's memory, by what a small batch takes;
    rounded down to a power of 2."""
    probe = torch.zeros(PROBE, dtype=torch.int64, device=device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    network(records.batch(probe)[0])
    each = max(1, (torch.cuda.max_memory_allocated(device) - before) // len(probe))
    fits = torch.cuda.get_device_properties(device).total_memory // 4 // each
    return 2 ** min(14, max(6, fits.bit_length() - 1))  # 64 to 16384: more gains nothing
