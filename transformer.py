"""SAMIA's network: self-attention over the classes of a record's posterior."""
import math
import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import torch
from torch import nn
from torch.nn import functional as F

from models.layers import Dropout
from workers import cores


class SelfAttentionAttack(nn.Module):
    """Each class is a token of three numbers (posterior, sensitivity, one-hot label); Yuan & Zhang 2022, section 5.

    BatchNorm over the 3C inputs, linear 3 -> width, GELU, post-norm encoder layers without a position code,
    then all C tokens flattened to width ReLU units and the logits of (non-member, member).
    """

    def __init__(self, *, num_cls: int, width: int = 64, heads: int = 4, layers: int = 3, feedforward: int = 128,
                 dropout: float = 0.2):
        super().__init__()
        self.norm = nn.BatchNorm1d(3 * num_cls)
        self.embed = nn.Linear(3, width)
        self.encoder = nn.ModuleList(EncoderLayer(width, heads, feedforward, dropout) for _ in range(layers))
        self.hidden = nn.Linear(num_cls * width, width)
        self.out = nn.Linear(width, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, 3) to (B, 2)."""
        tokens = self.norm(x.flatten(1)).view(x.shape)
        if self.training and x.device.type == "cpu":
            return in_slices(self.record, tokens, list(self.parameters()), self.encoder[0].dropout.generator)
        return self.record(tokens)

    def record(self, tokens: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """(B, C, 3) to (B, 2): all that comes behind the BatchNorm, where records don't meet any more."""
        x = F.gelu(self.embed(tokens))  # (B, C, width)
        for layer in self.encoder:
            x = layer(x, generator)
        return self.out(F.relu(self.hidden(x.flatten(1))))


SLICE = 64  # records; fixed, so that results don't depend on the number of cores


@lru_cache(maxsize=1)
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cores())


os.register_at_fork(after_in_child=_threads.cache_clear)  # threads don't survive a fork


def in_slices(function, x: torch.Tensor, parameters: list[torch.Tensor], generator: torch.Generator) -> torch.Tensor:
    """`function(x, generator)` of a batch, worked out on the CPU in slices, side by side on all cores.

    The operations are too small for torch to gain from spreading each of them over cores: two threads took 0.9
    times what one did.

    Args:
        function: treats the records of a batch one by one; draws its randomness from the generator given.
        parameters: those that `function` uses, which get the sum of the slices' gradients.
        generator: seeds one generator a slice, so that the threads' timing changes nothing.
    """
    seeds = torch.randint(2**31, (-(-len(x) // SLICE),), generator=generator).tolist()
    return _InSlices.apply(function, seeds, x, *parameters)


class _InSlices(torch.autograd.Function):
    @staticmethod
    def forward(ctx, function, seeds, x, *parameters):
        def forward(part, seed):
            with torch.enable_grad():
                part = part.detach().requires_grad_()
                return part, function(part, torch.Generator().manual_seed(seed))

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
        own, *shared = zip(*parts)
        return None, None, torch.cat(own), *[None if some[0] is None else sum(some[1:], some[0]) for some in shared]


class EncoderLayer(nn.Module):
    """A post-norm transformer encoder layer with GELU (Vaswani et al. 2017), as torch's TransformerEncoderLayer.

    Written out because torch's draws its dropout from the global generator; a test holds one against the other.
    """

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float):
        super().__init__()
        self.attention = SelfAttention(width, heads, dropout)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.linear1, self.linear2 = nn.Linear(width, feedforward), nn.Linear(feedforward, width)
        self.dropout, self.dropout1, self.dropout2 = Dropout(dropout), Dropout(dropout), Dropout(dropout)

    def forward(self, x: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """(B, L, width) to the same; `generator` is for the dropouts, in place of their own."""
        x = self.norm1(x + self.dropout1(self.attention(x, generator), generator))
        hidden = self.dropout(F.gelu(self.linear1(x)), generator)
        return self.norm2(x + self.dropout2(self.linear2(hidden), generator))


class SelfAttention(nn.Module):
    """Multi-head scaled dot-product self-attention, with dropout on the attention weights."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.in_weight, self.in_bias = nn.Parameter(torch.empty(3 * width, width)), nn.Parameter(torch.empty(3 * width))
        self.out_weight, self.out_bias = nn.Parameter(torch.empty(width, width)), nn.Parameter(torch.empty(width))
        self.dropout = Dropout(dropout)

    def initialise(self, generator: torch.Generator) -> None:
        """As nn.MultiheadAttention starts: Xavier-uniform inward, nn.Linear's own outward, zero bias."""
        nn.init.xavier_uniform_(self.in_weight, generator=generator)
        nn.init.kaiming_uniform_(self.out_weight, a=math.sqrt(5), generator=generator)
        nn.init.zeros_(self.in_bias)
        nn.init.zeros_(self.out_bias)

    def forward(self, x: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """(B, L, width) to the same."""
        B, L, width = x.shape
        q, k, v = F.linear(x, self.in_weight, self.in_bias).view(B, L, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = torch.softmax(q @ k.transpose(2, 3) / math.sqrt(width // self.heads), dim=3)  # (B, heads, L, L)
        return F.linear((self.dropout(weights, generator) @ v).transpose(1, 2).reshape(B, L, width),
                        self.out_weight, self.out_bias)
