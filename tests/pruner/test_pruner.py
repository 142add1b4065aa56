"""Masks against counts by hand, another library, and ten steps of training."""

import pytest
import torch
from pruner_cases import final_sparsity, small_context, small_network
from torch import nn
from torch.nn.utils import prune as torch_prune

from core.console import UserError
from pruner import PRUNERS, mask
from pruner.selection import smallest


def pruned_counts(masks):
    return {name: int((~part).sum()) for name, part in masks.items()}


def test_counts_of_each_pruner_worked_by_hand():
    network = small_network()
    # int(135 * .7), int(315 * .7), int(28 * .7); biases stay
    assert pruned_counts(mask.compute_masks(network, pruner="l1unstructure", sparsity=0.7)) == {
        "0.weight": 94,
        "3.weight": 220,
        "8.weight": 19,
    }
    # int(5 * .7) = 3 filters of 27 weights, int(7 * .7) = 4 of 45, with their biases
    for name in ("l1structure", "l2structure"):
        assert pruned_counts(mask.compute_masks(network, pruner=name, sparsity=0.7)) == {
            "0.weight": 3 * 27,
            "0.bias": 3,
            "3.weight": 4 * 45,
            "3.bias": 4,
        }
    # int(12 * .7) = 8 channels over both layers, weight and bias alike
    counts = pruned_counts(mask.compute_masks(network, pruner="slim", sparsity=0.7))
    assert counts["1.weight"] + counts["4.weight"] == 8
    assert counts["1.bias"] == counts["1.weight"] and counts["4.bias"] == counts["4.weight"]


def test_masks_equal_torchs_own():
    network = small_network()
    ours = mask.compute_masks(network, pruner="l2structure", sparsity=0.5)["3.weight"]
    theirs = torch_prune.LnStructured(amount=3, n=2, dim=0).compute_mask(
        network[3].weight, torch.ones(7, 5, 3, 3)
    )
    assert torch.equal(ours, theirs.bool())
    ours = mask.compute_masks(network, pruner="l1unstructure", sparsity=0.5)["8.weight"]
    theirs = torch_prune.L1Unstructured(amount=14).compute_mask(network[8].weight, torch.ones(4, 7))
    assert torch.equal(ours, theirs.bool())


def test_structured_norms_differ():
    layer = nn.Sequential(nn.Conv2d(1, 2, (1, 2), bias=False))
    with torch.no_grad():
        layer[0].weight.copy_(torch.tensor([[3.0, 0.0], [2.0, 2.0]]).view(2, 1, 1, 2))
    gone = {
        name: int(
            (~mask.compute_masks(layer, pruner=name, sparsity=0.5)["0.weight"])[
                :, 0, 0, 0
            ].nonzero()
        )
        for name in ("l1structure", "l2structure")
    }
    assert gone == {"l1structure": 0, "l2structure": 1}  # L1 norms 3 and 4, L2 norms 3 and 2.83


def test_slim_takes_the_smallest_gammas_over_all_layers():
    network = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(1), nn.BatchNorm2d(2))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([0.1, -0.2, 0.3]))
        network[1].weight.fill_(0.0)
        network[2].weight.copy_(torch.tensor([-0.9, 0.15]))
    masks = mask.compute_masks(network, pruner="slim", sparsity=0.6)  # int(5 * .6) = 3
    assert {name: part.tolist() for name, part in masks.items() if "weight" in name} == {
        "0.weight": [False, False, True],
        "2.weight": [True, False],
    }  # the layer of one channel keeps it


def test_ties_go_too_and_a_share_below_one_keeps_all():
    assert smallest(torch.tensor([1.0, 2.0, 2.0, 3.0]), 0.5).tolist() == [False, False, False, True]
    assert smallest(torch.tensor([1.0, 2.0, 3.0]), 0.3).all()  # int(.9) = 0


@pytest.mark.parametrize("pruner", list(PRUNERS))
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_pruned_weights_stay_zero_through_ten_steps(pruner, optimizer):
    network = small_network()
    masks = mask.compute_masks(
        network, pruner=pruner, sparsity=final_sparsity(pruner), context=small_context()
    )
    mask.attach_masks(network, masks)
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    step = (
        torch.optim.Adam(network.parameters(), lr=0.1, weight_decay=0.1)
        if optimizer == "adam"
        else torch.optim.SGD(network.parameters(), lr=0.1, weight_decay=0.1, momentum=0.9)
    )
    draw = torch.Generator().manual_seed(1)
    for _ in range(10):
        step.zero_grad()
        nn.functional.cross_entropy(
            network(torch.randn(8, 3, 6, 6, generator=draw)), torch.arange(8) % 4
        ).backward()
        step.step()
    for name, part in masks.items():
        after = network.get_parameter(name).detach()
        assert after[~part].eq(0).all()
        assert not torch.equal(after, before[name]) or not part.any()  # what is left did learn
    assert 0 < mask.sparsity(masks) < 1


@pytest.mark.parametrize("pruner", ["l1structure", "l2structure", "slim", "fpgm"])
def test_nothing_to_prune_is_an_error(pruner):
    with pytest.raises(UserError, match=f"{pruner} has nothing to prune"):
        mask.compute_masks(nn.Sequential(nn.Linear(3, 2)), pruner=pruner, sparsity=0.5)


def test_ties_that_would_leave_nothing_are_an_error():
    with pytest.raises(UserError, match="slim would prune everything"):
        mask.compute_masks(nn.Sequential(nn.BatchNorm2d(3)), pruner="slim", sparsity=0.5)


def test_layers_of_which_nothing_is_left_are_named():
    network = small_network()
    with torch.no_grad():
        network[1].weight.copy_(
            torch.tensor([0.1, -0.2, 0.1, 0.2, 0.1])
        )  # all below the 9 smallest of 12
        network[4].weight.copy_(torch.tensor([0.3, 0.3, 0.4, 0.4, -5, 6, 7]))
        network[3].weight.fill_(-0.5)  # of one magnitude, so that all go
    assert mask.emptied(network, mask.compute_masks(network, pruner="slim", sparsity=0.75)) == ["1"]
    assert mask.emptied(
        network, mask.compute_masks(network, pruner="l1unstructure", sparsity=0.7)
    ) == ["3"]
    assert mask.emptied(
        network, mask.compute_masks(network, pruner="l2structure", sparsity=0.7)
    ) == ["3"]
    assert (
        mask.emptied(
            small_network(),
            mask.compute_masks(small_network(), pruner="l1unstructure", sparsity=0.999),
        )
        == []
    )
    with torch.no_grad():
        network[8].weight[network[8].weight.abs() > 0] = 0  # nothing was there before
    assert mask.emptied(network, {"8.weight": torch.ones(4, 7, dtype=torch.bool)}) == ["8"]
