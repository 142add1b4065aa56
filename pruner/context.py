"""What a score may ask beside the weights: gradients, Hessian-gradient products and input norms of
a network on a role's own train records. The network is left as it was: it is run in evaluation
mode, and no weight, gradient, statistic of BatchNorm or global random state changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

from models.layers import evaluation_mode


@dataclass(frozen=True)
class Context:
    """What pruners that say so in the registry (`needs`) get.

    Attributes:
        x: train records of the role itself, (B, ...), float, normalised, on the network's device
            (needs "data"). Gradients have the precision that is set there: switch TF32 off.
        y: their labels, (B,).
        generator: a CPU generator for what is random (needs "generator").
        batch_size: records that are run at a time. It bounds memory, and is the minibatch of
            `taylorstructure`; other scores depend on it by rounding alone.
        masks: what earlier rounds pruned; `compute_masks` fills it in.
    """

    x: torch.Tensor | None = None
    y: torch.Tensor | None = None
    generator: torch.Generator | None = None
    batch_size: int = 128
    masks: Mapping[str, torch.Tensor] | None = None

    def check(self, pruner: str, needs: Sequence[str]) -> None:
        """Raise ValueError where something that `pruner` needs isn't there."""
        if "data" in needs:
            if self.x is None or self.y is None or not len(self.x):
                raise ValueError(f"{pruner} needs train records: Context(x=..., y=...)")
            if len(self.x) != len(self.y):
                raise ValueError(f"{len(self.x)} records have {len(self.y)} labels")
        if "generator" in needs and self.generator is None:
            raise ValueError(f"{pruner} is random: it needs Context(generator=...)")

    def records(self) -> tuple[torch.Tensor, torch.Tensor]:
        """x (B, ...) and y (B,). Raises ValueError where there are none."""
        if self.x is None or self.y is None:
            raise ValueError("the context has no records")
        return self.x, self.y

    def batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The records in their order, `batch_size` at a time; the last batch may be smaller."""
        x, y = self.records()
        return zip(x.split(self.batch_size), y.split(self.batch_size), strict=True)


def weight_layers(network: nn.Module) -> dict[str, nn.Conv2d | nn.Linear]:
    """The convolutions and linear layers of a network by name, in its order."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, (nn.Conv2d, nn.Linear))
    }


def mean_gradients(
    network: nn.Module, context: Context, *, temperature: float = 1.0
) -> dict[str, torch.Tensor]:
    """Gradient of the mean cross-entropy of all records, logits divided by `temperature`, by each
    layer's weight: {layer: shaped as the weight}; zero for a layer that the network doesn't use."""
    layers = weight_layers(network)
    weights = [layer.weight for layer in layers.values()]
    totals = [torch.zeros_like(weight) for weight in weights]
    with evaluation_mode(network), torch.enable_grad():
        for loss in _shares_of_loss(network, context, temperature):
            for total, gradient in zip(totals, gradients_of(loss, weights), strict=True):
                total += gradient
    return dict(zip(layers, totals, strict=True))


def hessian_gradient_products(
    network: nn.Module, context: Context, *, temperature: float = 1.0
) -> dict[str, torch.Tensor]:
    """H g of the loss of `mean_gradients` over the weights of all layers together, H its Hessian
    and g its gradient, by double backward: {layer: shaped as the weight}.

    Of weights that `context.masks` prunes g is zero: they don't take part in the gradient flow.
    """
    layers = weight_layers(network)
    weights = [layer.weight for layer in layers.values()]
    products = [torch.zeros_like(weight) for weight in weights]
    gradients = mean_gradients(network, context, temperature=temperature)
    for name, gradient in gradients.items():
        if context.masks and (mask := context.masks.get(f"{name}.weight")) is not None:
            gradient *= mask.to(gradient.device)
    with evaluation_mode(network), torch.enable_grad():
        for loss in _shares_of_loss(network, context, temperature):
            varying = gradients_of(loss, weights, create_graph=True)
            along_g = sum(
                ((g * v).sum() for g, v in zip(gradients.values(), varying, strict=True)),
                loss.new_zeros(()),
            )
            if along_g.requires_grad:  # not where the loss is linear in every weight
                for total, product in zip(products, gradients_of(along_g, weights), strict=True):
                    total += product
    return dict(zip(layers, products, strict=True))


def input_norms(network: nn.Module, context: Context) -> dict[str, torch.Tensor]:
    """L2 norm, over all records and positions, of the input that each weight multiplies:
    {layer: (1, in) for a linear layer, (1 or out, in / groups, kh, kw) for a convolution}.

    A convolution's inputs are its unfolded ones, zeros of the padding included.

    Raises:
        ValueError: a convolution pads with something else than zeros.
    """
    layers = weight_layers(network)
    squares: dict[str, torch.Tensor] = {}

    def add(name: str):
        def hook(module, inputs, output):
            with torch.no_grad():
                found = _summed_squares(module, inputs[0], output.shape[2:])
                squares[name] = squares[name] + found if name in squares else found

        return hook

    handles = [layer.register_forward_hook(add(name)) for name, layer in layers.items()]
    try:
        with evaluation_mode(network), torch.no_grad():
            for x, _ in context.batches():
                network(x)
    finally:
        for handle in handles:
            handle.remove()
    return {
        name: squares[name].sqrt() if name in squares else torch.zeros_like(layer.weight)
        for name, layer in layers.items()
    }


def gradients_of(
    value: torch.Tensor, parameters: Sequence[torch.Tensor], *, create_graph: bool = False
) -> tuple[torch.Tensor, ...]:
    """d value / d parameter, zero where value doesn't depend on it; no `.grad` is written."""
    return torch.autograd.grad(value, parameters, create_graph=create_graph, materialize_grads=True)


def _shares_of_loss(
    network: nn.Module, context: Context, temperature: float
) -> Iterator[torch.Tensor]:
    """What each batch adds to the mean cross-entropy of all records."""
    count = len(context.records()[0])
    for x, y in context.batches():
        yield F.cross_entropy(network(x) / temperature, y.long(), reduction="sum") / count


def _summed_squares(
    module: nn.Conv2d | nn.Linear, x: torch.Tensor, positions: torch.Size
) -> torch.Tensor:
    """Sum of the squared inputs of each weight, shaped as `input_norms` says.

    Args:
        positions: height and width of a convolution's output.
    """
    if isinstance(module, nn.Linear):
        return x.square().flatten(0, -2).sum(dim=0, keepdim=True)
    if module.padding_mode != "zeros" or isinstance(module.padding, str):
        raise ValueError(f"input norms of a convolution padded with {module.padding_mode}")
    total = x.square().sum(dim=0, keepdim=True)  # (1, in, H, W)
    groups = module.groups
    # the sum over a weight's inputs is the gradient of the summed outputs by that weight
    ones = total.new_ones(1, groups, *positions)
    sums = conv2d_weight(
        total,
        (groups, module.in_channels // groups, *module.kernel_size),
        ones,
        module.stride,
        module.padding,
        module.dilation,
        groups,
    )
    return sums.repeat_interleave(module.out_channels // groups, 0) if groups > 1 else sums
