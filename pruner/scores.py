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
    as the weight.

    How many go is a share here, of each layer or of all together; the paper has a threshold for
    each layer, a multiple of the standard deviation of its weights.
    """
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
    the weight, float64 (the LAMP score of Lee et al., ICLR 2021).

    The largest of each layer has score 1. Of equal weights the later counts as larger; the authors'
    code leaves their order to its sort.
    """
    if (magnitude := weights(module)) is None:
        return None
    squares, order = magnitude.double().square().flatten().sort(stable=True)
    not_smaller = squares.flip(0).cumsum(0).flip(0)
    ratios = torch.where(not_smaller > 0, squares / not_smaller, 0.0)
    return torch.empty_like(ratios).scatter(0, order, ratios).view(magnitude.shape)


def filters_fpgm(module: nn.Module) -> torch.Tensor | None:
    """Sum of the Euclidean distances of each filter of a convolution to the others of its layer,
    (filters,): the smallest go, which are the nearest to the geometric median among the filters
    themselves, as the others can stand in for them (FPGM: He et al., CVPR 2019).

    Departures: the authors' code chooses anew at each epoch of training, here a choice stays, and
    it can prune by the norm first, here never. A filter of zeros, pruned before, is none of the
    others.
    """
    if not isinstance(module, nn.Conv2d):
        return None
    filters = module.weight.detach().flatten(1).double()
    distances = torch.cdist(filters, filters, compute_mode="donot_use_mm_for_euclid_dist")
    return (distances * filters.any(dim=1)).sum(dim=1)


def random(network: nn.Module, context: Context) -> dict[str, torch.Tensor]:
    """Uniform numbers of `context.generator` for each weight: the control of all others, which is a
    baseline of Frankle et al., "Pruning Neural Networks at Initialization", ICLR 2021. float64, so
    that none are tied; every layer loses the same share."""
    return {
        name: torch.rand(layer.weight.shape, generator=context.generator, dtype=torch.float64)
        for name, layer in weight_layers(network).items()
    }


def snip(network: nn.Module, context: Context) -> dict[str, torch.Tensor]:
    """|w g| over its sum over all layers, g the gradient of the mean cross-entropy, shaped as the
    weights (SNIP: Lee et al., ICLR 2019, Section 4.1, equation 6: w g is the gradient by a mask on
    the weight).

    Departures: the paper prunes a network once and at initialisation, here it is as it is and there
    may be rounds; biases, which the authors' code prunes as well, stay. One minibatch (of 100 or
    128 in the paper) or more of them may be given: g is of the mean over all.

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
    go, which the gradient flow loses least, or gains most, by (GraSP: Wang et al., ICLR 2020; its
    score is -w (H g), of which the largest go; the temperature is the authors' code's).

    Departures: the paper prunes once and at initialisation, the authors' code with the linear
    layers drawn anew, in training mode and on as many records of each class (10 for CIFAR). Here
    the network is as it is, in evaluation mode, and the records are given. The code adds up g and
    H g over minibatches and divides all scores by one positive number, which changes no order.

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

    The paper prunes linear layers of language models, on 128 sequences, and needs no training
    behind it. To compare within outputs helps there; for image classifiers, for which the authors'
    code takes 4096 records, the paper finds no such gain.

    Departures: a convolution is taken as the linear layer of its unfolded inputs, and the first and
    the output layer are pruned as well. Inputs are those of the network before this pruning, as in
    the authors' code for images; with language models it prunes block by block and takes the inputs
    that the pruned blocks leave.
    """
    norms = input_norms(network, context)
    return {
        name: layer.weight.detach().abs() * norms[name]
        for name, layer in weight_layers(network).items()
    }


def filters_taylor(network: nn.Module, context: Context) -> dict[str, torch.Tensor]:
    """(sum of w g over a filter and its bias)^2, averaged over minibatches, (filters,): the squared
    first-order change of the loss without the filter, which is the squared gradient of a gate
    behind it (Taylor-FO: Molchanov et al., CVPR 2019).

    Of the paper's two importances of a filter this is the group contribution. The other is the sum
    of the (w g)^2 of its single weights, which the authors' code has for weights (its method 0),
    while its gates (its method 22, the paper's best) give the former.

    g is that of the mean cross-entropy of a minibatch of `context.batch_size`. Each minibatch
    counts the same, as in the authors' code; filters are compared over all layers, as in the paper.
    Departures: the authors' gates stand behind BatchNorm, and one behind the sums of each stage of
    a ResNet; here each convolution is scored by itself and BatchNorm stays. They score in training
    mode while weights move, remove a few filters at a time (100 each 30 minibatches for ImageNet)
    and mix in the scores before earlier removals (by 0.9); here the network rests in evaluation
    mode, and a round removes its share at once.

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
