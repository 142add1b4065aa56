"""GroupNorm in place of BatchNorm."""

import pytest
import torch
from torch import nn

from core.console import UserError
from models import MODELS, build, kinds_of_layers

IMAGES = [name for name in MODELS if "BatchNorm2d" in kinds_of_layers(name)]


def made(name, norm):
    draw = torch.Generator().manual_seed(0)
    return build(name, shape=(3, 32, 32), num_cls=5, generator=draw, norm=norm)


@pytest.mark.parametrize("name", IMAGES)
def test_it_is_opacus_s_replacement_with_the_weights_of_the_same_generator(name):
    from opacus.validators import ModuleValidator

    expected = ModuleValidator.fix(made(name, "batch")).eval()
    network = made(name, "group").eval()
    kinds = {type(layer) for layer in network.modules()}
    assert nn.GroupNorm in kinds and nn.BatchNorm2d not in kinds
    weights = network.state_dict()
    assert weights.keys() == expected.state_dict().keys()
    assert all(torch.equal(weights[key], value) for key, value in expected.state_dict().items())
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(network(x), expected(x))


def test_records_do_not_meet_while_it_trains():
    network = made("resnet18", "group").double().train()
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    alone = torch.cat([network(x[one : one + 1]) for one in range(4)])
    assert torch.allclose(network(x), alone)
    batch = made("resnet18", "batch").double().train()
    assert not torch.allclose(batch(x), torch.cat([batch(x[:2]), batch(x[2:])]), atol=0.01)


def test_a_network_without_normalisation_is_refused():
    with pytest.raises(UserError, match="columnfc has no BatchNorm .* leave out --norm group"):
        made("columnfc", "group")
