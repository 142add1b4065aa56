"""Scores against Torch-Pruning's importances, where they are the same thing."""

import pytest
import torch
from pruner_cases import linear, small_context
from torch import nn
from torch.nn import functional as F

from pruner import scores

tp = pytest.importorskip("torch_pruning", reason="Torch-Pruning is not installed")
FIRST = {"group_reduction": "first", "normalizer": None}  # of the pruned layer alone


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 4, 3, bias=False),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    nn.init.normal_(network[1].weight)
    return network.eval()


def importance(network, importance_of, layer=0, shape=(1, 3, 6, 6)):
    """Torch-Pruning's importance of all outputs of a layer."""
    graph = tp.DependencyGraph().build_dependency(network, example_inputs=torch.zeros(shape))
    prune = (
        tp.prune_linear_out_channels
        if isinstance(network[layer], nn.Linear)
        else tp.prune_conv_out_channels
    )
    outputs = list(range(network[layer].weight.shape[0]))
    return importance_of(graph.get_pruning_group(network[layer], prune, idxs=outputs))


def test_norms_of_filters(network):
    for order, score in ((1, scores.filters_l1), (2, scores.filters_l2)):
        theirs = importance(network, tp.importance.GroupMagnitudeImportance(p=order, **FIRST))
        torch.testing.assert_close(score(network[0]) ** order, theirs)


def test_slim(network):
    theirs = importance(network, tp.importance.BNScaleImportance(**FIRST))
    torch.testing.assert_close(scores.channels(network[1]), theirs)


def test_fpgm(network):
    """Theirs takes distances of |w|^p, which is w for p = 1 and positive weights."""
    with torch.no_grad():
        network[0].weight.abs_()
    theirs = importance(network, tp.importance.FPGMImportance(p=1, **FIRST))
    torch.testing.assert_close(scores.filters_fpgm(network[0]).float(), theirs)


def test_taylor(network):
    """Theirs is |sum of w g| of the gradients there, ours its square."""
    context = small_context(batch_size=100)
    F.cross_entropy(network(context.x), context.y).backward()
    theirs = importance(network, tp.importance.GroupTaylorImportance(multivariable=True, **FIRST))
    ours = scores.filters_taylor(network, context)["0"]
    torch.testing.assert_close(ours, theirs.square(), rtol=1e-4, atol=1e-12)


def test_lamp():
    """Theirs scores outputs by the squares of all their weights: here each has one."""
    draw = torch.Generator().manual_seed(0)
    network = linear(torch.randn(20, 1, generator=draw).tolist()).float()
    network.append(nn.Linear(20, 2))
    theirs = importance(
        network, tp.importance.LAMPImportance(group_reduction="first"), shape=(1, 1)
    )
    torch.testing.assert_close(scores.lamp(network[0]).flatten().float(), theirs)
