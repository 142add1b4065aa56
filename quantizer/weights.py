"""Quantised weights as parametrisations: `forward` maps what is trained to the weight that a layer
works with.

All map zero to zero, so that pruned weights stay pruned.
"""

import numpy as np
import torch
from torch import nn

_EPS = torch.finfo(torch.float32).eps  # the smallest scale, as of torch's observers


class KeepZeros(nn.Module):
    """Holds weights at zero that were zero at the beginning, through any optimiser.

    They get no gradient; weight decay and momentum leave a zero without gradient where it is.

    Args:
        weight: of a pruned layer; what is zero in it is pruned.
    """

    kept: torch.Tensor

    def __init__(self, weight: torch.Tensor):
        super().__init__()
        self.register_buffer("kept", weight.detach() != 0)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return _same_layout(weight * self.kept, weight)


class IntegerWeights(nn.Module):
    """Weights (out, ...) rounded to integers times a scale for each output channel.

    Symmetric: w -> s round(w / s), s = max |w| of the channel / (2^(b-1) - 1), so the levels are
    -(2^(b-1) - 1) .. 2^(b-1) - 1. From Krishnamoorthi, "Quantizing deep convolutional networks for
    efficient inference", 2018: the symmetric quantiser with a restricted range (section 2.2), a
    scale for each channel (2.6) and gradients that pass straight through the rounding (2.4), here
    with none through the scale. Of two bits the range leaves -1, 0 and 1. The scale follows the
    float weights at each step.

    Departs from Jacob et al., CVPR 2018, whose weights have the range min w .. max w of a whole
    tensor, with a zero point and without -128 (section 3.1), and BatchNorm folded in; here
    BatchNorm stays apart. Krishnamoorthi folds it as well.

    Args:
        bits: 2 to 8.
    """

    def __init__(self, *, bits: int):
        super().__init__()
        self.bits = bits

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        top = 2 ** (self.bits - 1) - 1
        scale = channel_scale(weight, bits=self.bits)
        zero = torch.zeros_like(scale, dtype=torch.int32)
        rounded = torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -top, top)
        return _same_layout(rounded, weight)


def channel_scale(weight: torch.Tensor, *, bits: int) -> torch.Tensor:
    """Scale of each output channel of a weight (out, ...): (out,), float32, without gradients."""
    largest = weight.detach().flatten(1).abs().amax(dim=1).float()
    return (largest / (2 ** (bits - 1) - 1)).clamp_min(_EPS)


def integer_levels(weight: torch.Tensor, *, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What an integer kernel stores of quantised weights (out, ...): levels, int8 of the same
    shape, and the scale of each channel (out,), float32.

    The scale comes back to within one float32 rounding. Where a scale was below float32's epsilon,
    it comes back as that epsilon.
    """
    scale = channel_scale(weight, bits=bits)
    by_channel = scale.view(-1, *[1] * (weight.dim() - 1))
    return (weight.detach() / by_channel).round().to(torch.int8), scale


class TernaryWeights(nn.Module):
    """Weights rounded to -1, 0 or 1 times the layer's mean |w|.

    w -> m clip(round(w / m), -1, 1), m = mean |w| of the layer (absmean; BitNet b1.58: Ma et al.,
    "The Era of 1-bit LLMs", arXiv 2402.17764, section 2, which adds an epsilon to the divisor; that
    m is at least 1e-5 instead, multiplies the result, and that gradients pass straight through,
    clipped weights included, is from the authors' "Training Tips, Code and FAQ").

    Departures: BitNet trains Transformers from scratch whose linear layers quantise their inputs to
    8 bits a token and normalise them; here all convolutions and linear layers of a trained network
    are quantised, the first and the last included, inputs stay float, and layers have no
    normalisation of their own. The mean is over the weights that are not zero: of a pruned layer
    those that it keeps, since the zeros would shrink all others.
    """

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        fixed = weight.detach()
        kept = fixed.count_nonzero().clamp_min(1)
        scale = (fixed.abs().sum() / kept).clamp_min(1e-5)
        rounded = (fixed / scale).round().clamp(-1, 1) * scale
        # the difference is exactly zero, and has the gradient
        return _same_layout(rounded + (weight - fixed), weight)


class SharedWeights(nn.Module):
    """Weights that share a few values: trained is the codebook (k,), and each weight has an index.

    k-means of the layer's weights that are not zero, from centroids equally spaced between their
    smallest and largest (linear initialisation; Han et al., "Deep Compression", ICLR 2016, sections
    3.1 and 3.2). A centroid's gradient is the sum of its members' (section 3.3). A weight that is
    zero, as pruned ones are, is in no cluster and stays zero. With `clusters` different weights or
    fewer each is its own centroid.

    Departs in the number of values, 16 at most, where the paper has 256 for convolutions and 32 for
    linear layers of AlexNet and VGG-16. Weight decay acts on a centroid once, not once a member.

    Args:
        clusters: k.
    """

    index: torch.Tensor  # int32, shaped as the weight; k = zero

    def __init__(self, *, clusters: int):
        super().__init__()
        self.clusters = clusters

    def right_inverse(self, weight: torch.Tensor) -> torch.Tensor:
        """Cluster a weight; returns the codebook (k,)."""
        nonzero = weight != 0
        codebook, members = cluster(weight[nonzero].cpu().numpy(), clusters=self.clusters)
        index = torch.full_like(weight, len(codebook), dtype=torch.int32)
        index[nonzero] = torch.from_numpy(members).to(index)
        self.register_buffer("index", index)
        return torch.from_numpy(codebook).to(weight)

    def forward(self, codebook: torch.Tensor) -> torch.Tensor:
        return _same_layout(torch.cat([codebook, codebook.new_zeros(1)])[self.index], self.index)


def cluster(values: np.ndarray, *, clusters: int) -> tuple[np.ndarray, np.ndarray]:
    """k-means in one dimension from a linear initialisation: centroids (k,) and the number of each
    value's one, (n,) of values (n,); a single zero where there are no values."""
    distinct, members = np.unique(values, return_inverse=True)
    if len(distinct) <= clusters:
        return (distinct if len(distinct) else np.zeros(1, values.dtype)), members
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    start = np.linspace(distinct[0], distinct[-1], clusters, dtype=np.float64)[:, None]
    means = KMeans(clusters, init=start, n_init=1, random_state=0)
    with threadpool_limits(1):  # threads add up in the order in which they end
        members = means.fit_predict(values.astype(np.float64)[:, None])
    return means.cluster_centers_[:, 0].astype(values.dtype), members


def _same_layout(weight: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """`weight` with the strides of `like`, a tensor of the same shape and order in memory.

    Strides along dimensions of size 1 mean nothing, but operations change them, and convolutions
    choose their kernel by them: a stored network would answer with other last digits.
    """
    if weight.stride() == like.stride():
        return weight
    real = [dim for dim, size in enumerate(weight.shape) if size > 1]
    if any(weight.stride(dim) != like.stride(dim) for dim in real):
        return weight
    return weight.as_strided(weight.shape, like.stride())
