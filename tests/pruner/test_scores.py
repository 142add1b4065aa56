"""Scores against numbers worked by hand, brute force, full Hessians and other libraries."""

from dataclasses import replace

import pytest
import torch
from pruner_cases import filters, linear, small_context, small_network
from scipy.spatial.distance import cdist
from torch import nn
from torch.nn import functional as F

from core.console import UserError
from pruner import scores
from pruner.context import Context, hessian_gradient_products, input_norms, weight_layers
from pruner.mask import compute_masks

HALF = linear([[1.0, 1.0], [3.0, 0.0]])  # logits 3 and 3 for x = (1, 2): both classes at 0.5


def records(x, y, **how):
    return Context(x=torch.tensor(x, dtype=torch.float64), y=torch.tensor(y), **how)


def pruned(network, pruner, sparsity, **how):
    """What goes of the first layer, by number."""
    masks = compute_masks(network, pruner=pruner, sparsity=sparsity, **how)
    return (~masks["0.weight"].flatten()).nonzero().flatten().tolist()


def test_lamp_by_hand():
    score = scores.lamp(linear([[1.0, -2.0, 3.0]])[0])
    torch.testing.assert_close(
        score, torch.tensor([[1 / 14, 4 / 13, 1.0]], dtype=torch.float64), rtol=1e-14, atol=0
    )


def test_lamp_is_the_square_over_all_squares_not_smaller():
    network = small_network()
    for module in (network[0], network[8]):
        squares = module.weight.detach().double().flatten().square()
        brute = torch.stack([one / squares[squares >= one].sum() for one in squares])
        torch.testing.assert_close(scores.lamp(module).flatten(), brute, rtol=1e-12, atol=0)


def test_lamp_of_zeros_and_of_ties():
    assert scores.lamp(linear([[0.0, 0.0, 2.0]])[0]).tolist() == [[0, 0, 1]]
    assert scores.lamp(linear([[2.0, 2.0]])[0]).tolist() == [[0.5, 1]]
    assert scores.lamp(linear([[0.0, 0.0]])[0]).tolist() == [[0, 0]]


def test_lamp_leaves_the_largest_of_a_layer_of_tiny_weights():
    network = nn.Sequential(*linear([[1e-9, 2e-9]]), *linear([[5.0], [6.0], [7.0], [8.0]]))
    masks = compute_masks(network, pruner="lamp", sparsity=0.6)  # int(3.6) = 3 of 6
    assert masks["0.weight"].tolist() == [[False, True]]  # 1/5 goes
    # 25/174, 36/149 go; 49/113 stays
    assert masks["1.weight"].flatten().tolist() == [False, False, True, True]
    whole = compute_masks(network, pruner="l1global", sparsity=0.6)
    assert not whole["0.weight"].any()  # as magnitudes alone would have it


def test_fpgm_by_hand():
    network = filters([[1.0, 0.0], [4.0, 4.0], [7.0, 8.0]])  # 5 apart, and 10
    assert scores.filters_fpgm(network[0]).tolist() == [15, 10, 15]
    assert pruned(network, "fpgm", 0.4) == [2, 3]  # the filter between the others
    assert pruned(network, "l2structure", 0.4) == [0, 1]


def test_fpgm_sums_euclidean_distances():
    layer = small_network()[3]
    rows = layer.weight.detach().flatten(1).double().numpy()
    brute = torch.from_numpy(cdist(rows, rows).sum(axis=1))
    torch.testing.assert_close(scores.filters_fpgm(layer), brute, rtol=1e-12, atol=0)


def test_fpgm_measures_no_distance_to_pruned_filters():
    network = filters([[1.0, 0.0], [4.0, 4.0], [7.0, 8.0], [0.0, 0.0]])
    assert scores.filters_fpgm(network[0])[:3].tolist() == [15, 10, 15]


def test_random_takes_uniform_numbers_of_its_generator_alone():
    network, state = small_network(), torch.get_rng_state()
    first, again, other = (
        scores.random(network, Context(generator=torch.Generator().manual_seed(seed)))
        for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert list(first) == ["0", "3", "8"]
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)
    every = torch.cat([score.flatten() for score in first.values()])
    assert 0 <= every.min() and every.max() < 1 and abs(every.mean() - 0.5) < 0.06  # 4 deviations


def test_snip_by_hand():
    # g = (p - y) x = ((-.5, -1), (.5, 1)); |w g| sums to 3
    found = scores.snip(HALF, records([[1.0, 2.0]], [0]))["0"]
    torch.testing.assert_close(
        found, torch.tensor([[1 / 6, 1 / 3], [1 / 2, 0]], dtype=torch.float64)
    )


def test_snip_is_the_gradient_by_a_mask_of_the_whole_batch():
    """The paper's definition: by masks c at 1 of the loss of the network with weights c w."""
    network, context = small_network().double().eval(), small_context(dtype=torch.float64)
    gates = {
        f"{name}.weight": torch.ones_like(layer.weight, requires_grad=True)
        for name, layer in weight_layers(network).items()
    }
    weights = {name: network.get_parameter(name).detach() * gate for name, gate in gates.items()}
    loss = F.cross_entropy(torch.func.functional_call(network, weights, context.x), context.y)
    by_gates = [gate.abs() for gate in torch.autograd.grad(loss, list(gates.values()))]
    total = sum(gate.sum() for gate in by_gates)
    found = scores.snip(network, context)
    for gate, score in zip(by_gates, found.values(), strict=True):
        torch.testing.assert_close(score, gate / total, rtol=1e-9, atol=1e-15)


def test_grasp_by_hand():
    # with d = p - y = (-.5, .5), T the temperature: g = d x / T, H g = A d (x . x) x / T^3 with
    # A = diag(p) - p p', A d = (-.25, .25), x . x = 5
    found = scores.grasp(HALF, records([[1.0, 2.0]], [0]))["0"]
    hand = torch.tensor([[-1.25, -2.5], [3.75, 0]], dtype=torch.float64) / 200**3
    # p at temperature 200 is 0.5 as well: both logits are the same
    torch.testing.assert_close(found, hand, rtol=1e-9, atol=1e-20)
    assert pruned(HALF, "grasp", 0.5, context=records([[1.0, 2.0]], [0])) == [0, 1]


class TestHessianGradientProducts:
    temperature = 3.0

    @pytest.fixture
    def network(self):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 2, 2, bias=False), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3)
        ).double()

    @pytest.fixture
    def context(self):
        draw = torch.Generator().manual_seed(3)
        x = torch.randn(7, 1, 3, 3, generator=draw, dtype=torch.float64)
        return Context(x=x, y=torch.arange(7) % 3, batch_size=3)

    def brute(self, network, context, kept):
        """The whole Hessian times the gradient of what is kept."""
        shapes = {name: network.get_parameter(name).shape for name in ("0.weight", "3.weight")}
        flat = torch.cat([network.get_parameter(name).detach().flatten() for name in shapes])

        def loss(flat):
            parts = flat.split([shape.numel() for shape in shapes.values()])
            weights = {n: part.view(shapes[n]) for n, part in zip(shapes, parts, strict=True)}
            logits = torch.func.functional_call(network, weights, context.x)
            return F.cross_entropy(logits / self.temperature, context.y)

        hessian = torch.autograd.functional.hessian(loss, flat)
        return hessian @ (torch.func.grad(loss)(flat) * kept)

    def found(self, network, context):
        products = hessian_gradient_products(network, context, temperature=self.temperature)
        return torch.cat([product.flatten() for product in products.values()])

    def test_of_all_weights(self, network, context):
        brute = self.brute(network, context, torch.ones(32, dtype=torch.float64))
        torch.testing.assert_close(self.found(network, context), brute, rtol=1e-9, atol=1e-12)

    def test_of_what_earlier_masks_leave(self, network, context):
        kept = torch.rand(32, generator=torch.Generator().manual_seed(4)) > 0.5
        masks = {"0.weight": kept[:8].view(2, 1, 2, 2), "3.weight": kept[8:].view(3, 8)}
        with torch.no_grad():
            for name, mask in masks.items():
                network.get_parameter(name).mul_(mask)
        found = self.found(network, replace(context, masks=masks))
        brute = self.brute(network, context, kept)
        torch.testing.assert_close(found, brute, rtol=1e-9, atol=1e-12)
        assert not torch.allclose(found, self.found(network, context))

    def test_they_are_how_the_gradients_norm_changes_with_a_weight(self, network, context):
        """-2 w (H g) is the first-order change without the weight, so 2 (H g) the derivative."""
        products = hessian_gradient_products(network, context)["3"]

        def squared_norm():
            loss = F.cross_entropy(network(context.x), context.y)
            weights = [network[0].weight, network[3].weight]
            return sum(g.square().sum() for g in torch.autograd.grad(loss, weights))

        step = 1e-5
        with torch.no_grad():
            network[3].weight[1, 2] += step
        above = squared_norm()
        with torch.no_grad():
            network[3].weight[1, 2] -= 2 * step
        below = squared_norm()
        assert float((above - below) / (2 * step)) == pytest.approx(float(2 * products[1, 2]), 1e-5)


def test_wanda_by_hand():
    network = linear([[1.0, 4.0, -3.0], [0.1, 0.2, 0.1]])
    context = records([[3.0, 1.0, 0.0], [4.0, 0.0, 2.0]], [0, 1])  # norms 5, 1, 2
    found = scores.wanda(network, context)["0"]
    hand = torch.tensor([[5.0, 4.0, 6.0], [0.5, 0.2, 0.2]], dtype=torch.float64)
    torch.testing.assert_close(found, hand)
    # one of each row, the largest weight of the first; of tied ones the first
    assert pruned(network, "wanda", 0.4, context=context) == [1, 4]


@pytest.mark.parametrize("batch_size", [2, 100])
@pytest.mark.parametrize(
    "how",
    [{}, {"padding": 1, "stride": 2}, {"dilation": 2, "padding": (1, 0)}, {"groups": 2}],
    ids=str,
)
def test_input_norms_of_a_convolution_are_those_of_its_unfolded_inputs(how, batch_size):
    layer = nn.Conv2d(4, 6, (3, 2), **how).double()
    x = torch.randn(5, 4, 8, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    network = nn.Sequential(layer, nn.Flatten(), nn.LazyLinear(2).double())
    network(x)
    context = Context(x=x, y=torch.zeros(5), batch_size=batch_size)
    found = input_norms(network, context)["0"].expand(layer.weight.shape)
    unfolded = F.unfold(x, (3, 2), layer.dilation, layer.padding, layer.stride)  # (5, 24, L)
    norms = torch.linalg.vector_norm(unfolded, dim=(0, 2)).view(4, 3, 2)
    for output in range(6):
        group = output // 3 if layer.groups == 2 else 0
        reads = slice(2 * group, 2 * group + 2) if layer.groups == 2 else slice(None)
        torch.testing.assert_close(found[output], norms[reads])


def test_input_norms_of_deeper_layers_are_those_of_the_evaluated_network():
    network, context = small_network().double(), small_context(dtype=torch.float64)
    found = input_norms(network, context)["8"]
    inputs = network.eval()[:8](context.x)
    torch.testing.assert_close(found[0], torch.linalg.vector_norm(inputs, dim=0))


def test_other_paddings_have_no_input_norms():
    network = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"))
    with pytest.raises(ValueError, match="padded with reflect"):
        input_norms(network, Context(x=torch.zeros(1, 1, 4, 4), y=torch.zeros(1)))


def gate(weights):
    """Logits that are two 1 x 1 filters times the record's one number."""
    return nn.Sequential(*filters(weights), nn.Flatten())


def test_taylor_by_hand():
    network = gate([[1.5], [1.5]])  # equal logits: g = (-.5, .5) x, or its opposite for class 1
    one = records([[[[2.0]]], [[[2.0]]]], [0, 1], batch_size=1)
    # (1.5 * 1)^2 in both batches of one; in a batch of both the gradients cancel
    assert scores.filters_taylor(network, one)["0"].tolist() == pytest.approx([2.25, 2.25])
    with pytest.raises(UserError, match="taylorstructure can't tell weights apart"):
        scores.filters_taylor(network, replace(one, batch_size=2))
    # batches of 2.25 and of nothing, where x is 0
    half = records([[[[2.0]]], [[[0.0]]]], [0, 1], batch_size=1)
    assert scores.filters_taylor(network, half)["0"].tolist() == pytest.approx([1.125, 1.125])


class Gated(nn.Module):
    """A convolution with gates of 1 behind it."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.z = nn.Parameter(torch.ones(layer.out_channels, dtype=torch.float64))

    def forward(self, x):
        return self.layer(x) * self.z[:, None, None]


def test_taylor_is_the_squared_gradient_of_a_gate_behind_the_filter():
    network, context = small_network().double().eval(), small_context(dtype=torch.float64)
    found = scores.filters_taylor(network, context)
    assert list(found) == ["0", "3"]
    for name, score in found.items():
        gated = Gated(network[int(name)])
        inside = nn.Sequential(*(gated if n == int(name) else one for n, one in enumerate(network)))
        squares = []
        for x, y in context.batches():
            (gradient,) = torch.autograd.grad(F.cross_entropy(inside(x), y), gated.z)
            squares.append(gradient.square())
        torch.testing.assert_close(score, torch.stack(squares).mean(0), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("pruner", ["snip", "grasp", "taylorstructure"])
def test_zero_gradients_are_an_error(pruner):
    network = small_network()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    with pytest.raises(UserError, match=f"{pruner} can't tell weights apart"):
        compute_masks(network, pruner=pruner, sparsity=0.5, context=small_context())
