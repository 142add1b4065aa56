"""Selections against counts by hand, brute force and torch's own pruning."""

import pytest
import torch
from pruner_cases import small_context, small_network
from torch import nn
from torch.ao.pruning import WeightNormSparsifier
from torch.nn.utils import prune as torch_prune

from core.console import UserError
from pruner import PRUNERS, check_sparsity
from pruner.mask import compute_masks
from pruner.selection import SELECTIONS, in_each_row, smallest, smallest_exactly, two_of_four

SCORE = torch.tensor([2.0, 1.0, 2.0, 2.0, 0.5])


def counts(masks):
    return {name: int((~mask).sum()) for name, mask in masks.items()}


def test_every_pruner_has_a_selection():
    assert {PRUNERS[name].options["select"] for name in PRUNERS} == set(SELECTIONS)


@pytest.mark.parametrize(
    "sparsity, kept",
    [(0, [1, 1, 1, 1, 1]), (0.4, [1, 0, 1, 1, 0]), (0.6, [0, 0, 1, 1, 0]), (0.8, [0, 0, 0, 1, 0])],
)
def test_exactly_as_many_go_the_first_of_tied_ones(sparsity, kept):
    assert smallest_exactly(SCORE, sparsity).int().tolist() == kept


def test_an_exact_selection_is_a_stable_sort():
    draw = torch.Generator().manual_seed(0)
    score = torch.randint(6, (40, 5), generator=draw) / 2.0
    for sparsity in (0.1, 0.33, 0.5, 0.97):
        order = sorted(range(200), key=lambda n: (float(score.flatten()[n]), n))
        keep = smallest_exactly(score, sparsity)
        assert set((~keep).flatten().nonzero().flatten().tolist()) == set(
            order[: int(200 * sparsity)]
        )


def test_what_was_pruned_goes_first_and_counts():
    score = torch.tensor([5.0, -torch.inf, 1.0, 2.0])
    for select in (smallest, smallest_exactly):
        assert select(score, 0.5).tolist() == [True, False, False, True]
        assert select(score, 0.25).tolist() == [True, False, True, True]


def test_each_row_loses_as_many():
    score = torch.tensor([[5.0, 4.0, 6.0], [0.5, 0.2, 0.2]])
    assert in_each_row({"a": score}, 0.4)["a"].int().tolist() == [[1, 0, 1], [1, 0, 1]]
    convolution = torch.rand(6, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    keep = in_each_row({"a": convolution}, 0.7)["a"]  # int(18 * .7) = 12
    assert keep.shape == convolution.shape and keep.flatten(1).sum(dim=1).eq(6).all()


def test_two_of_four_is_torchs_own_of_a_linear_layer():
    layer = nn.Linear(12, 7)
    ours = two_of_four({"a": layer.weight.detach().abs()}, 0.5)["a"]
    network = nn.Sequential(layer)
    theirs = WeightNormSparsifier(sparsity_level=1.0, sparse_block_shape=(1, 4), zeros_per_block=2)
    theirs.prepare(network, [{"tensor_fqn": "0.weight"}])
    theirs.step()
    assert torch.equal(ours, network[0].parametrizations.weight[0].mask.bool())


def test_two_of_four_of_a_convolution_groups_channels_and_keeps_the_rest():
    score = torch.rand(3, 10, 2, 3, generator=torch.Generator().manual_seed(0))
    keep = two_of_four({"a": score.to(memory_format=torch.channels_last)}, 0.5)["a"]
    for output in range(3):
        for row in range(2):
            for column in range(3):
                line, kept = score[output, :, row, column], keep[output, :, row, column]
                for first in (0, 4):
                    largest = set(line[first : first + 4].topk(2).indices.tolist())
                    assert set(kept[first : first + 4].nonzero().flatten().tolist()) == largest
                assert kept[8:].all()


def test_two_of_four_keeps_layers_of_fewer_than_four_inputs():
    masks = compute_masks(small_network(), pruner="nm24", sparsity=0.5)
    # 3 inputs; 7 x 9 groups of the first 4 of 5 inputs; 4 groups of the first 4 of 7 inputs
    assert counts(masks) == {"0.weight": 0, "3.weight": 2 * 63, "8.weight": 2 * 4}


def test_one_sparsity_by_definition():
    check_sparsity("nm24", 0.5)
    check_sparsity("l1unstructure", 0.7)
    with pytest.raises(UserError, match="nm24 has sparsity 0.5 by definition, not 0.7"):
        check_sparsity("nm24", 0.7)
    with pytest.raises(UserError, match="use --prune_sparsity 0.5"):
        compute_masks(small_network(), pruner="nm24", sparsity=0.7)
    one_of_four = compute_masks(small_network(), pruner="nm24", sparsity=0.3)  # on the way
    assert counts(one_of_four) == {"0.weight": 0, "3.weight": 63, "8.weight": 4}


def test_magnitudes_over_all_layers_are_torchs_own():
    network = small_network()
    ours = compute_masks(network, pruner="l1global", sparsity=0.5)
    layers = [(network[number], "weight") for number in (0, 3, 8)]
    torch_prune.global_unstructured(layers, torch_prune.L1Unstructured, amount=239)  # int(478 / 2)
    for (layer, _), mask in zip(layers, ours.values(), strict=True):
        assert torch.equal(mask, layer.weight_mask.bool())


# weights: 135, 315 and 28, 478 in all; of each of 5, 7 and 4 outputs 27, 45 and 7; filters: 5 and 7
EACH = {"0.weight": 81, "3.weight": 189, "8.weight": 16}
ROWS = {"0.weight": 5 * 16, "3.weight": 7 * 27, "8.weight": 4 * 4}


@pytest.mark.parametrize(
    "pruner, expected",
    [
        ("random", EACH),
        ("l1global", 286),
        ("lamp", 286),
        ("snip", 286),
        ("grasp", 286),
        ("wanda", ROWS),
    ],
)
def test_counts_of_weights_worked_by_hand(pruner, expected):
    found = counts(
        compute_masks(small_network(), pruner=pruner, sparsity=0.6, context=small_context())
    )
    assert found == expected or sum(found.values()) == expected
    assert list(found) == list(EACH)  # biases stay


@pytest.mark.parametrize("pruner", ["fpgm", "taylorstructure"])
def test_counts_of_filters_worked_by_hand(pruner):
    masks = compute_masks(small_network(), pruner=pruner, sparsity=0.6, context=small_context())
    gone = {name: int((~masks[f"{name}.bias"]).sum()) for name in ("0", "3")}
    assert counts(masks) == {
        "0.weight": 27 * gone["0"],
        "0.bias": gone["0"],
        "3.weight": 45 * gone["3"],
        "3.bias": gone["3"],
    }
    if pruner == "fpgm":
        assert gone == {"0": 3, "3": 4}
    assert sum(gone.values()) == 7  # int(12 * .6) over both, and int(5 * .6) + int(7 * .6)


def test_many_zero_scores_take_no_more_than_their_share():
    """Inputs that are always zero have wanda's score 0, as dead units have snip's."""
    network, context = small_network(), small_context()
    context.x[:, 0] = 0  # 9 of 27 inputs of each first filter
    masks = compute_masks(network, pruner="wanda", sparsity=0.2, context=context)
    assert (~masks["0.weight"]).flatten(1).sum(dim=1).eq(5).all()
    assert masks["0.weight"][:, 1:].all()
