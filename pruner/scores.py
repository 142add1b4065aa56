"""What is unimportant: a score for each thing that can go, smallest first.

A score of weights alone is a function of a module, None where the module has no such thing. One
that needs data or chance is a function of the network and a `Context`, {layer: score}.
"""

import torch
from torch import nn

from core.console import UserError
from models.layers import evaluation_mode
from pruner.context import (
    Context,
    gradients_of,
    hessian_gradient_products,
    input_norms,
    mean_gradients,
    weight_layers,
)

GRASP_TEMPERATURE = 200.0  # of the authors' code


def weights(module: nn.Module) -> torch.Tensor | None:
    """Magnitude of each weight of a convolution or linear layer (Han et al., NeurIPS 2015), shaped
    as the weight."""
    return module.weight.detach().abs() if isinstance(module, (nn.Conv2d, nn.Linear)) else None


def filters_l1(module: nn.Module) -> torch.Tensor | None:
    """L1 norm of each filter of a convolution (Li et al., ICLR 2017), (filters,)."""
    return _filter_norm(module, 1)


def filters_l2(module: nn.Module) -> torch.Tensor | None:
    """L2 norm of each filter of a convolution, (filters,)."""
    return _filter_norm(module, 2)


def channels(module: nn.Module) -> torch.Tensor | None:
    """|gamma| of each channel of a BatchNorm2d (Liu et al., ICCV 2017), (channels,); none where it
    has but one."""
    if not isinstance(module, nn.BatchNorm2d) or module.num_features == 1:
        return None
    return module.weight.detach().abs()


def lamp(module: nn.Module) -> torch.Tensor | None:
    """w^2 over the sum of the squares of all weights of the layer that are not smaller, shaped as
    the weight, float64 (LAMP: Lee et al., ICLR 2021, Section 2).

    The largest of each layer has score 1. Of equal weights the later counts as larger, as in any
    fixed order of the paper.
    """
    if (magnitude := weights(module)) is None:
        return None
    squares, order = magnitude.double().square().flatten().sort(stable=True)
    not_smaller = squares.flip(0).cumsum(0).flip(0)
    ratios = torch.where(not_smaller > 0, squares / not_smaller, 0.0)
    return torch.empty_like(ratios).scatter(0, order, ratios).view(magnitude.shape)


def filters_fpgm(module: nn.Module) -> torch.Tensor | None:
    """Sum of the Euclidean distances of each filter of a convolution to the others of its layer,
    (filters,): those nearest to the geometric median go, as the others can stand in for them
    (FPGM: He et al., CVPR 2019, Section 3.3).

    Without the norm criterion that the paper mixes in for some results. A filter of zeros, pruned
    before, is none of the others.
    """
    if not isinstance(module, nn.Conv2d):
        return None
    filters = module.weight.detach().flatten(1).double()
    distances = torch.cdist(filters, filters, compute_mode="donot_use_mm_for_euclid_dist")
    return (distances * filters.any(dim=1)).sum(dim=1)


def random(network: nn.Module, context: Context) -> dict[str, torch.Tensor]:
    """Uniform numbers of `context.generator` for each weight: the control of all others (as in
    Frankle et al., "Pruning Neural Networks at Initialization", ICLR 2021). float64, so that none
    are tied."""
    return {
        name: torch.rand(layer.weight.shape, generator=context.generator, dtype=torch.float64)
        for name, layer in weight_layers(network).items()
    }


def snip(network: nn.Module, context: Context) -> dict[str, torch.Tensor]:
    """|w g| over its sum over all layers, g the gradient of the mean cross-entropy, shaped as the
    weights (SNIP: Lee et al., ICLR 2019, Section 4).

    The paper prunes a network at initialisation, this one as it is; biases stay.

    Raises:
        UserError: all gradients are zero.
    """
    gradients = mean_gradients(network, context)
    layers = weight_layers(network)
    scores = {name: (layers[name].weight.detach() * g).abs() for name, g in gradients.items()}
    _refuse_zeros("snip", scores)
    total = sum(score.sum(dtype=torch.float64) for score in scores.values())
    return {name: score / total for name, score in scores.items()}


def grasp(network: nn.Module, context: Context) -> dict[str, torch.Tensor]:
    """w (H g), shaped as the weights: H and g of the mean cross-entropy of logits divided by 200.
    Removing a weight changes the squared norm of the gradient by about -2 w (H g), so the smallest
    go, which the gradient flow loses least by (GraSP: Wang et al., ICLR 2020, Section 4; the
    temperature is the authors' code's).

    The paper prunes at initialisation, its code with the last layer drawn anew, in training mode
    and on as many records of each class; here the network is as it is and the records are given.

    Raises:
        UserError: all products are zero.
    """
    products = hessian_gradient_products(network, context, temperature=GRASP_TEMPERATURE)
    layers = weight_layers(network)
    scores = {name: layers[name].weight.detach() * product for name, product in products.items()}
    _refuse_zeros("grasp", scores)
    return scores


def wanda(network: nn.Module, context: Context) -> dict[str, torch.Tensor]:
    """|w| times the L2 norm of the input that it multiplies, shaped as the weights; compared
    within each output (Wanda: Sun et al., ICLR 2024, Section 3).

    The paper prunes linear layers of language models; a convolution is taken as the linear layer
    of its unfolded inputs. Inputs are those of the network before this pruning, as in the authors'
    code for images. The output layer is pruned as well.
    """
    norms = input_norms(network, context)
    return {
        name: layer.weight.detach().abs() * norms[name]
        for name, layer in weight_layers(network).items()
    }


def filters_taylor(network: nn.Module, context: Context) -> dict[str, torch.Tensor]:
    """(sum of w g over a filter and its bias)^2, averaged over minibatches, (filters,): the squared
    first-order change of the loss without the filter, which is the squared gradient of a gate
    behind it (Taylor-FO: Molchanov et al., CVPR 2019, Section 3).

    g is that of the mean cross-entropy of a minibatch of `context.batch_size`. Filters are compared
    over all layers, as in the paper. Departures: the paper's gate may stand behind BatchNorm, and
    it removes a few filters at a time while training; here a round removes its share at once.

    Raises:
        UserError: all gradients are zero.
    """
    layers = {
        name: layer
        for name, layer in weight_layers(network).items()
        if isinstance(layer, nn.Conv2d)
    }
    scores = {name: layer.weight.new_zeros(layer.out_channels) for name, layer in layers.items()}
    parameters = [
        parameter
        for layer in layers.values()
        for parameter in (layer.weight, layer.bias)
        if parameter is not None
    ]
    if not parameters:
        return {}
    with evaluation_mode(network), torch.enable_grad():
        for batch, (x, y) in enumerate(context.batches()):
            loss = nn.functional.cross_entropy(network(x), y.long())
            gradients = iter(gradients_of(loss, parameters))
            for name, layer in layers.items():
                change = (layer.weight.detach() * next(gradients)).flatten(1).sum(dim=1)
                if layer.bias is not None:
                    change += layer.bias.detach() * next(gradients)
                scores[name] += (change.square() - scores[name]) / (batch + 1)
    _refuse_zeros("taylorstructure", scores)
    return scores


def _refuse_zeros(pruner: str, scores: dict[str, torch.Tensor]) -> None:
    if scores and not any(score.any() for score in scores.values()):
        raise UserError(
            f"{pruner} can't tell weights apart: all gradients are zero on the train records"
        )


def _filter_norm(module: nn.Module, order: int) -> torch.Tensor | None:
    if not isinstance(module, nn.Conv2d):
        return None
    return torch.linalg.vector_norm(module.weight.detach().flatten(1), ord=order, dim=1)
