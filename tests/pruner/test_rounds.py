"""Masks within earlier masks, and what computing masks leaves as it was."""

from dataclasses import replace

import pytest
import torch
from pruner_cases import WEIGHT_PRUNERS, final_sparsity, small_context, small_network
from torch import nn

from core.console import UserError
from models import build
from models.layers import evaluation_mode
from pruner import PRUNERS, mask
from pruner.context import Context

NEEDS = {name: PRUNERS[name].options.get("needs", ()) for name in PRUNERS}


def train(network, steps=3):
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=0.1)
    draw = torch.Generator().manual_seed(5)
    network.train()
    for _ in range(steps):
        optimizer.zero_grad()
        x = torch.randn(8, 3, 6, 6, generator=draw)
        nn.functional.cross_entropy(network(x), torch.arange(8) % 4).backward()
        optimizer.step()


def counts(masks):
    return sum(int((~part).sum()) for part in masks.values())


@pytest.mark.parametrize("pruner", list(PRUNERS))
def test_masks_of_three_rounds_are_nested_and_end_at_the_sparsity(pruner):
    network, context, final = small_network(), small_context(), final_sparsity(pruner, 0.7)
    once = mask.compute_masks(network, pruner=pruner, sparsity=final, context=context)
    masks = None
    for number in (1, 2, 3):
        sparsity = 1 - (1 - final) ** (number / 3)
        new = mask.compute_masks(
            network, pruner=pruner, sparsity=sparsity, context=context, within=masks
        )
        for name, earlier in (masks or {}).items():
            assert not (new[name] & ~earlier).any()
        mask.attach_masks(network, new)
        train(network)
        assert all(network.get_parameter(name)[~part].eq(0).all() for name, part in new.items())
        masks = new
    if pruner in ("slim", "taylorstructure"):  # filters and channels of layers differ in size
        once, masks = ({n: m for n, m in one.items() if "bias" in n} for one in (once, masks))
    assert counts(masks) == counts(once)


@pytest.mark.parametrize("pruner", list(PRUNERS))
def test_no_earlier_masks_and_masks_that_prune_nothing_are_the_same(pruner):
    network, sparsity = small_network(), final_sparsity(pruner)
    whole = {name: torch.ones_like(p, dtype=torch.bool) for name, p in network.named_parameters()}
    alone, within = (
        mask.compute_masks(
            network, pruner=pruner, sparsity=sparsity, context=small_context(), within=masks
        )
        for masks in (None, whole)
    )
    assert all(torch.equal(within[name], alone.get(name, part)) for name, part in whole.items())


def test_a_smaller_sparsity_than_before_prunes_nothing_more():
    network = small_network()
    for pruner in ("l1unstructure", "l1global", "fpgm", "l1structure"):
        first = mask.compute_masks(network, pruner=pruner, sparsity=0.6)
        pruned = small_network()
        mask.attach_masks(pruned, first)
        again = mask.compute_masks(pruned, pruner=pruner, sparsity=0.3, within=first)
        assert list(again) == list(first)
        assert all(torch.equal(again[name], first[name]) for name in first)


def test_masks_of_another_pruner_stay():
    network = small_network()
    first = mask.compute_masks(network, pruner="l1unstructure", sparsity=0.4)
    mask.attach_masks(network, first)
    both = mask.compute_masks(network, pruner="fpgm", sparsity=0.4, within=first)
    assert torch.equal(both["8.weight"], first["8.weight"])
    assert not (both["3.weight"] & ~first["3.weight"]).any()
    assert (~both["3.bias"]).sum() == 2  # int(7 * .4) filters as a whole


def test_earlier_masks_must_be_attached():
    network = small_network()
    masks = mask.compute_masks(network, pruner="l1global", sparsity=0.5)
    with pytest.raises(ValueError, match="0.weight has weights that the earlier masks prune"):
        mask.compute_masks(network, pruner="l1global", sparsity=0.7, within=masks)


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("pruner", list(PRUNERS))
def test_the_network_and_global_random_state_stay_as_they_were(pruner, mode):
    network, context = small_network().train(mode), small_context()
    network[4].eval()  # each module keeps its own mode
    modes = [module.training for module in network.modules()]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state, drawn = torch.get_rng_state(), context.generator.get_state()
    with torch.no_grad():
        masks = [
            mask.compute_masks(
                network, pruner=pruner, sparsity=final_sparsity(pruner), context=context
            )
            for _ in range(2)
        ]
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert [module.training for module in network.modules()] == modes
    assert all(p.grad is None and p.requires_grad for p in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(context.generator.get_state(), drawn) == ("generator" not in NEEDS[pruner])
    same = all(torch.equal(masks[0][name], masks[1][name]) for name in masks[0])
    assert same == ("generator" not in NEEDS[pruner])
    assert all(part.dtype == torch.bool and part.device.type == "cpu" for part in masks[0].values())


def test_modes_come_back_after_an_error():
    network = small_network().train()
    with pytest.raises(KeyError), evaluation_mode(network):
        assert not network.training
        raise KeyError
    assert all(module.training for module in network.modules())


@pytest.mark.parametrize("pruner", [name for name in PRUNERS if NEEDS[name]])
def test_what_a_pruner_needs_must_be_there(pruner):
    needs = "generator" if "generator" in NEEDS[pruner] else "train records"
    whole = small_context()
    wrong = [None, Context(), replace(whole, generator=None, x=None), replace(whole, x=whole.x[:0])]
    for context in wrong[: 3 if needs == "generator" else 4]:
        with pytest.raises(ValueError, match=rf"{pruner} .*needs .*{needs.split()[0]}|{pruner} is"):
            mask.compute_masks(small_network(), pruner=pruner, sparsity=0.5, context=context)
    if needs != "generator":
        with pytest.raises(ValueError, match="12 records have 9 labels"):
            mask.compute_masks(
                small_network(), pruner=pruner, sparsity=0.5, context=replace(whole, y=whole.y[:9])
            )


def test_which_pruners_see_train_records():
    """A private fine-tuning of what they leave has no guarantee."""
    assert {name for name in PRUNERS if "data" in NEEDS[name]} == {
        "snip",
        "grasp",
        "wanda",
        "taylorstructure",
    }


@pytest.mark.parametrize("pruner", ["snip", "grasp", "wanda"])
def test_batches_change_scores_by_rounding_alone(pruner):
    network, context = small_network().double(), small_context(dtype=torch.float64)
    small, large = (
        PRUNERS.load(pruner)(network, replace(context, batch_size=size)) for size in (5, 100)
    )
    for name in small:
        torch.testing.assert_close(small[name], large[name], rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("pruner", WEIGHT_PRUNERS)
def test_a_perceptron_is_pruned_by_every_pruner_of_weights(pruner):
    network = build("columnfc", shape=(30,), num_cls=3, generator=torch.Generator().manual_seed(0))
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(20, 30, generator=draw)
    context = Context(x=x, y=torch.arange(20) % 3, generator=draw)
    masks = mask.compute_masks(network, pruner=pruner, sparsity=0.5, context=context)
    assert mask.sparsity(masks) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("pruner", ["taylorstructure", "fpgm"])
def test_filters_need_a_convolution(pruner):
    network = nn.Sequential(nn.Flatten(), nn.Linear(108, 2))
    with pytest.raises(UserError, match=f"{pruner} has nothing to prune here.*no Conv2d"):
        mask.compute_masks(network, pruner=pruner, sparsity=0.5, context=small_context())
