"""SAMIA's network: self-attention over the classes of a record's posterior."""
import math
import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from models.layers import Dropout, Generator, dropout_generator
from core.parallel import cores


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
        first = EncoderLayer(width, heads, feedforward, dropout)
        self.encoder = nn.ModuleList([first, *(EncoderLayer(width, heads, feedforward, dropout, attention_like=first)
                                               for _ in range(layers - 1))])
        self.hidden = nn.Linear(num_cls * width, width)
        self.out = nn.Linear(width, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, 3) to (B, 2)."""
        tokens = self.norm(x.flatten(1)).view(x.shape)
        if self.training and x.device.type == "cpu":
            return in_slices(self.record, tokens, list(self.parameters()), self.encoder[0].dropout.generator)
        return self.record(tokens)

    def record(self, tokens: torch.Tensor, generator: Generator | None = None) -> torch.Tensor:
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


def in_slices(function, x: torch.Tensor, parameters: list[torch.Tensor], generator: Generator) -> torch.Tensor:
    """`function(x, generator)` of a batch, worked out on the CPU in slices, side by side on all cores.

    The operations are too small for torch to gain from spreading each of them over cores: two threads took 0.9
    times what one did.

    Args:
        function: treats the records of a batch one by one; draws its randomness from the generator given.
        parameters: those that `function` uses, which get the sum of the slices' gradients.
        generator: seeds one generator a slice, so that the threads' timing changes nothing.
    """
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
        own, *shared = zip(*parts)
        return None, None, torch.cat(own), *[None if some[0] is None else sum(some[1:], some[0]) for some in shared]


class EncoderLayer(nn.Module):
    """A post-norm transformer encoder layer with GELU (Vaswani et al. 2017), as torch's TransformerEncoderLayer.

    Dropout is on the attention weights, behind the attention, in and behind the feed-forward part. Torch's layer
    draws it from the global generator, and spends as much time on copies as on products; a test holds one against
    the other.

    Args:
        attention_like: a layer with whose attention weights this one starts. The authors' network starts so, since
            nn.TransformerEncoder copies its layer.
    """

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float, *,
                 attention_like: "EncoderLayer | None" = None):
        super().__init__()
        self._attention_like = (attention_like,)  # in a tuple, as it is no part of this layer
        self.heads = heads
        self.in_weight, self.in_bias = nn.Parameter(torch.empty(3 * width, width)), nn.Parameter(torch.empty(3 * width))
        self.out_weight, self.out_bias = nn.Parameter(torch.empty(width, width)), nn.Parameter(torch.empty(width))
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.linear1, self.linear2 = nn.Linear(width, feedforward), nn.Linear(feedforward, width)
        self.dropout = Dropout(dropout)

    def initialise(self, generator: torch.Generator) -> None:
        """The attention as nn.MultiheadAttention starts: Xavier-uniform inward, nn.Linear's own outward, zero bias."""
        first, = self._attention_like
        if first is None:
            nn.init.xavier_uniform_(self.in_weight, generator=generator)
            nn.init.kaiming_uniform_(self.out_weight, a=math.sqrt(5), generator=generator)
        else:
            with torch.no_grad():
                self.in_weight.copy_(first.in_weight)
                self.out_weight.copy_(first.out_weight)
        nn.init.zeros_(self.in_bias)
        nn.init.zeros_(self.out_bias)

    def forward(self, x: torch.Tensor, generator: Generator | None = None) -> torch.Tensor:
        """(B, L, width) to the same; `generator` is for the dropout, in place of its own."""
        B, L, width = x.shape
        masks = self.dropout.masks(x, [(B * self.heads, L, L), (B * L, width), (B * L, self.linear1.out_features),
                                       (B * L, width)], generator)
        return _EncoderLayer.apply(x, self.heads, masks, self.in_weight, self.in_bias, self.out_weight, self.out_bias,
                                   self.norm1.weight, self.norm1.bias, self.linear1.weight, self.linear1.bias,
                                   self.linear2.weight, self.linear2.bias, self.norm2.weight, self.norm2.bias)


class _EncoderLayer(torch.autograd.Function):
    """The layer and its gradient by hand: a quarter fewer passes over memory than autograd makes, as results are
    scaled, masked and added where they lie. Tokens of all records are rows, T = B * L of them."""

    @staticmethod
    def forward(ctx, x, heads, masks, in_weight, in_bias, out_weight, out_bias, gain1, shift1,
                weight1, bias1, weight2, bias2, gain2, shift2):
        B, L, width = x.shape
        x = x.reshape(B * L, width)
        qkv = _split(torch.addmm(in_bias, x, in_weight.t()), 3, L, heads)  # (3, B * heads, L, width / heads)
        scores = x.new_empty(B * heads, L, L).baddbmm_(
            qkv[0], qkv[1].transpose(1, 2), beta=0, alpha=_scale(width, heads))
        attention = _softmax(scores)
        kept = attention if masks[0] is None else attention * masks[0]
        mixed = _join(torch.bmm(kept, qkv[2])[None], L, heads)  # (T, width)
        sum1 = _drop(torch.addmm(out_bias, mixed, out_weight.t()), masks[1]).add_(x)
        middle, *stats1 = torch.native_layer_norm(sum1, (width,), gain1, shift1, 1e-5)
        before = torch.addmm(bias1, middle, weight1.t())
        hidden = _drop(F.gelu(before), masks[2])
        sum2 = _drop(torch.addmm(bias2, hidden, weight2.t()), masks[3]).add_(middle)
        out, *stats2 = torch.native_layer_norm(sum2, (width,), gain2, shift2, 1e-5)
        ctx.save_for_backward(x, qkv, attention, kept, mixed, sum1, middle, before, hidden, sum2, *stats1, *stats2,
                              in_weight, out_weight, gain1, shift1, weight1, weight2, gain2, shift2)
        ctx.heads, ctx.masks = heads, masks
        return out.view(B, L, width)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        (x, qkv, attention, kept, mixed, sum1, middle, before, hidden, sum2, mean1, rstd1, mean2, rstd2,
         in_weight, out_weight, gain1, shift1, weight1, weight2, gain2, shift2) = ctx.saved_tensors
        heads, masks, (B, L, width) = ctx.heads, ctx.masks, gradient.shape
        norm = torch.ops.aten.native_layer_norm_backward
        # feed-forward; `d_` is the gradient with respect to what follows
        d_sum, d_gain2, d_shift2 = norm(gradient.reshape(B * L, width), sum2, (width,), mean2, rstd2, gain2, shift2,
                                        (True, True, True))
        d_out = d_sum if masks[3] is None else d_sum * masks[3]
        d_weight2, d_bias2 = d_out.t() @ hidden, d_out.sum(0)
        d_before = torch.ops.aten.gelu_backward(_drop(d_out @ weight2, masks[2]), before)
        d_weight1, d_bias1 = d_before.t() @ middle, d_before.sum(0)
        d_middle = d_sum.addmm_(d_before, weight1)
        # attention
        d_x, d_gain1, d_shift1 = norm(d_middle, sum1, (width,), mean1, rstd1, gain1, shift1, (True, True, True))
        d_out = d_x if masks[1] is None else d_x * masks[1]
        d_out_weight, d_out_bias = d_out.t() @ mixed, d_out.sum(0)
        d_mixed, = _split(d_out @ out_weight, 1, L, heads)
        d_qkv = torch.empty_like(qkv)
        torch.bmm(kept.transpose(1, 2), d_mixed, out=d_qkv[2])
        d_scores = _drop(torch.bmm(d_mixed, qkv[2].transpose(1, 2)), masks[0]).mul_(attention)
        d_scores.addcmul_(attention, d_scores.sum(dim=2, keepdim=True), value=-1)
        scale = _scale(width, heads)
        d_qkv[0].baddbmm_(d_scores, qkv[1], beta=0, alpha=scale)
        d_qkv[1].baddbmm_(d_scores.transpose(1, 2), qkv[0], beta=0, alpha=scale)
        d_qkv = _join(d_qkv, L, heads)  # (T, 3 * width)
        d_in_weight, d_in_bias = d_qkv.t() @ x, d_qkv.sum(0)
        d_x = d_x.addmm_(d_qkv, in_weight).view(B, L, width)
        return (d_x, None, None, d_in_weight, d_in_bias, d_out_weight, d_out_bias, d_gain1, d_shift1,
                d_weight1, d_bias1, d_weight2, d_bias2, d_gain2, d_shift2)


def _scale(width: int, heads: int) -> float:
    return 1 / math.sqrt(width // heads)


def _softmax(scores: torch.Tensor) -> torch.Tensor:
    """Over the last of three dimensions. torch's takes five times as long where that is shorter than a register."""
    if scores.shape[2] >= 16:
        return torch.softmax(scores, dim=2)
    weights = scores.sub_(scores.amax(dim=2, keepdim=True)).exp_()
    return weights.div_(weights.sum(dim=2, keepdim=True))


def _split(rows: torch.Tensor, parts: int, L: int, heads: int) -> torch.Tensor:
    """(B * L, parts * width) to (parts, B * heads, L, width / heads)."""
    rows = rows.view(-1, L, parts, heads, rows.shape[1] // (parts * heads))
    return rows.permute(2, 0, 3, 1, 4).reshape(parts, -1, L, rows.shape[4])


def _join(blocks: torch.Tensor, L: int, heads: int) -> torch.Tensor:
    """The reverse of `_split`."""
    parts, _, _, size = blocks.shape
    return blocks.view(parts, -1, heads, L, size).permute(1, 3, 0, 2, 4).reshape(-1, parts * heads * size)


def _drop(x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    return x if mask is None else x.mul_(mask)
