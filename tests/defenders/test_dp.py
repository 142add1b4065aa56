"""DP-SGD: what a step does, what it guarantees, and that the guarantee holds."""

import hashlib
import itertools
import json
import math
import os
import resource
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import MADE, files, lines, manifest, run
from scipy.optimize import brentq
from scipy.stats import binom, binomtest, kstest, norm
from torch import nn
from torch.nn import functional as F

import mia
import pretrain
import prune
import prune_dp
from base_model import BaseModel, TrainConfig, TrainSet
from core.console import UserError
from core.devices import generator
from core.files import read_digested, sealed_json
from datasets import load
from defenders import dp
from defenders.accounting import (
    NO_GUARANTEE,
    beyond_guarantee,
    caveat,
    default_delta,
    guarantee,
    prv_epsilon,
)
from defenders.dp import PrivateSGD, clipped_sum
from defenders.noise import CHUNK, SecretStream, SeededStream, normals, uniforms
from models import build
from pruner import mask

ENGINES = ["pyvacy", "opacus"]


def columnfc(seed=0, columns=12, num_cls=3, sparsity=0.6):
    """A pruned network without dropout's chance, in float64; and its masks."""
    network = build(
        "columnfc", shape=(columns,), num_cls=num_cls, generator=torch.Generator().manual_seed(seed)
    )
    network = network.double().eval()
    masks = mask.compute_masks(network, pruner="l1unstructure", sparsity=sparsity)
    mask.attach_masks(network, masks)
    return network, masks


def batch(n=9, columns=12, num_cls=3, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return (
        torch.randn(n, columns, generator=draw, dtype=torch.float64) * 3,
        torch.randint(num_cls, (n,), generator=draw),
    )


def by_hand(network, x, y, max_grad_norm, masks):
    """{parameter name: sum of clipped gradients}, a record at a time, and the norms before."""
    sums, norms = {}, []
    for record in range(len(y)):
        network.zero_grad()
        F.cross_entropy(network(x[record : record + 1]), y[record : record + 1]).backward()
        gradients = {
            name: parameter.grad * masks.get(name, torch.tensor(True))
            for name, parameter in network.named_parameters()
        }
        norms.append(math.sqrt(sum(float((gradient**2).sum()) for gradient in gradients.values())))
        for name, gradient in gradients.items():
            sums[name] = sums.get(name, 0) + gradient * min(1, max_grad_norm / norms[-1])
    return sums, norms


# ---- gradients -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_grad_norm", [0.1, 6.0, 1000.0])
@pytest.mark.parametrize("way", ["chosen", "one by one"])
def test_the_sum_of_clipped_gradients_is_that_of_a_loop_over_records(max_grad_norm, way):
    network, masks = columnfc()
    x, y = batch()
    expected, norms = by_hand(network, x, y, max_grad_norm, masks)
    if way == "chosen":
        loss, sums = clipped_sum(network, x, y, max_grad_norm=max_grad_norm)
    else:
        loss, sums = dp.clipped_sum_loop(network, list(network.parameters()), x, y, max_grad_norm)
    assert max_grad_norm != 6.0 or min(norms) < 6.0 < max(norms)
    assert float(loss) == pytest.approx(F.cross_entropy(network(x), y).item())
    for name, parameter in network.named_parameters():
        assert torch.allclose(sums[parameter], expected[name], rtol=1e-9, atol=1e-12), name


def test_a_record_s_gradient_is_opacus_s():
    import copy

    from opacus import GradSampleModule

    network = nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 3)).double()
    twin = GradSampleModule(copy.deepcopy(network), loss_reduction="sum")
    x, y = batch()
    F.cross_entropy(twin(x), y, reduction="sum").backward()
    samples = [parameter.grad_sample for parameter in twin.parameters()]
    norms = torch.stack([sample.flatten(1).norm(dim=1) for sample in samples]).norm(dim=0)
    clip = float(norms.median())
    _, sums = clipped_sum(network, x, y, max_grad_norm=clip)
    for parameter, sample in zip(network.parameters(), samples):
        expected = torch.einsum("i,i...", (clip / norms).clamp(max=1), sample)
        assert torch.allclose(sums[parameter], expected, rtol=1e-9, atol=1e-12)


def test_pruned_weights_are_in_no_norm():
    """The same network without the columns that are pruned away altogether has the same clipped gradients."""
    network = nn.Sequential(nn.Linear(6, 3)).double()
    keep = torch.ones(3, 6, dtype=torch.bool)
    keep[:, 4:] = False
    mask.attach_masks(network, {"0.weight": keep})
    small = nn.Sequential(nn.Linear(4, 3)).double()
    with torch.no_grad():
        small[0].weight.copy_(network[0].weight[:, :4])
        small[0].bias.copy_(network[0].bias)
    x, y = batch(columns=6)
    _, sums = clipped_sum(network, x, y, max_grad_norm=1.0)
    _, of_small = clipped_sum(small, x[:, :4], y, max_grad_norm=1.0)
    assert torch.allclose(sums[network[0].weight][:, :4], of_small[small[0].weight])
    assert sums[network[0].weight][:, 4:].eq(0).all()


def convolutional():
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
    ).double()
    with torch.no_grad():
        network[1].running_mean.uniform_(-1, 1)
        network[1].running_var.uniform_(0.5, 2)
    return network


def test_another_record_changes_no_record_s_gradient():
    """With BatchNorm frozen; in training mode it would, and is refused."""
    network = convolutional()
    x, y = batch(n=5, columns=16)
    x = x.view(5, 1, 4, 4)
    network.eval()
    _, of_all = clipped_sum(network, x, y, max_grad_norm=0.5)
    alone = [
        clipped_sum(network, x[one : one + 1], y[one : one + 1], max_grad_norm=0.5)[1]
        for one in range(5)
    ]
    for parameter, total in of_all.items():
        assert torch.allclose(total, sum(single[parameter] for single in alone))
    network.train()
    with pytest.raises(UserError, match="BatchNorm in training mode"):
        clipped_sum(network, x, y, max_grad_norm=0.5)


@pytest.mark.parametrize("engine", ENGINES)
def test_batchnorm_keeps_its_statistics_and_its_layers_learn(engine):
    network = convolutional().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    stepper = private(network, engine=engine, count=5, expected=5)
    x, y = batch(n=5, columns=16)
    stepper(x.view(5, 1, 4, 4), y)
    for name, tensor in network.state_dict().items():
        frozen = "running" in name or "tracked" in name
        assert torch.equal(tensor, before[name]) == frozen, name


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(
            nn.Unflatten(1, (3, 4)), nn.Linear(4, 2), nn.Flatten(), nn.Linear(6, 3)
        ),  # sees three vectors
        (lambda layer: nn.Sequential(layer, nn.ReLU(), layer, nn.Linear(12, 3)))(nn.Linear(12, 12)),
    ],
)  # is seen twice
def test_layers_that_are_not_seen_once_with_a_vector_are_worked_on_record_by_record(network):
    network = network.double()
    x, y = batch()
    expected, _ = by_hand(network, x, y, 0.7, {})
    _, sums = clipped_sum(network, x, y, max_grad_norm=0.7)
    for name, parameter in network.named_parameters():
        assert torch.allclose(sums[parameter], expected[name])


# ---- the step --------------------------------------------------------------------------------------------------------


def tiny_records(n, columns=12, num_cls=3):
    """Records for a defender that steps are fed by hand: what seeded noise is drawn for."""
    draw = torch.Generator().manual_seed(9)
    return SimpleNamespace(
        x=torch.randn(n, columns, generator=draw), y=torch.randint(num_cls, (n,), generator=draw)
    )


def started(
    *, engine="pyvacy", count, expected, noise=1.0, lr=0.5, max_grad_norm=1.0, seed=0, records=None
):
    """A defender at the start of a training; `seed` None: with secret noise."""
    how = (
        {"dp_noise": "secret"}
        if seed is None
        else {"dp_noise": "seeded", "key": bytes([seed]) * 16}
    )
    defender = PrivateSGD(noise, dp_engine=engine, dp_lr=lr, max_grad_norm=max_grad_norm, **how)
    defender.setup(
        TrainSet(records or tiny_records(count), torch.arange(count)),
        batch_size=expected,
        generator=None,
    )
    return defender


def private(network, *, weight_decay=0.0, **how):
    """A function(x, y) that takes a private step."""

    defender = started(**how)
    optimizer = defender.build_optimizer(network, TrainConfig(epochs=1, weight_decay=weight_decay))
    return lambda x, y: defender.step(network, optimizer, None, x, y)


def flat(network):
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("drawn, seed", [(4, 0), (8, None), (0, 0)])
def test_mean_and_deviation_of_an_update(engine, drawn, seed):
    """-lr / B times the sum of clipped gradients, and noise of lr strength C / B: for a full sample, too, and none."""
    network, masks = columnfc(columns=4)
    lr, noise, bound, expected, repeats = 0.5, 1.5, 2.0, 4, 400
    start = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    x, y = batch(n=8, columns=4)
    x, y = x[:drawn], y[:drawn]
    sums, _ = (
        by_hand(network, x, y, bound, masks)
        if drawn
        else ({name: torch.zeros_like(value) for name, value in start.items()}, None)
    )
    step = private(
        network,
        engine=engine,
        count=8,
        expected=expected,
        noise=noise,
        lr=lr,
        max_grad_norm=bound,
        seed=seed,
    )
    moves = []
    for _ in range(repeats):
        step(x, y)
        moves.append(
            {
                name: parameter.detach() - start[name]
                for name, parameter in network.named_parameters()
            }
        )
        network.load_state_dict(start, strict=False)
    deviation = lr * noise * bound / expected
    for name in start:
        kept = masks.get(name, torch.ones_like(start[name], dtype=torch.bool))
        found = torch.stack([move[name] for move in moves])
        assert found[:, ~kept].eq(0).all()
        surprise = (found.mean(dim=0) + lr * sums[name] / expected)[kept] / (
            deviation / math.sqrt(repeats)
        )
        assert surprise.abs().max() < 5 and abs(
            float(surprise.square().mean()) - 1
        ) < 8 / math.sqrt(kept.sum() / 2)
        spread = float(found[:, kept].std(dim=0).square().mean().sqrt())
        assert spread == pytest.approx(
            deviation, rel=5 / math.sqrt(2 * repeats * int(kept.sum())) + 2e-3
        ), name


def test_pyvacy_s_own_clip_never_acts():
    """Not where every record is drawn and all gradients point the same way: the longest sum that there can be."""
    network = nn.Sequential(nn.Linear(3, 2)).double()
    with torch.no_grad():
        network[0].weight.zero_()
        network[0].bias.zero_()
    before = flat(network)
    x, y = torch.full((12, 3), 5.0, dtype=torch.float64), torch.zeros(12, dtype=torch.int64)
    private(network, engine="pyvacy", count=12, expected=3, noise=1e-9, lr=1.0)(x, y)
    assert float((flat(network) - before).norm()) == pytest.approx(12 / 3, rel=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_weight_decay_comes_after_the_noise_and_is_not_clipped(engine):
    network = nn.Sequential(nn.Linear(3, 2)).double()
    with torch.no_grad():
        network[0].weight.fill_(100.0)
        network[0].bias.zero_()
    private(network, engine=engine, count=4, expected=4, noise=1e-9, lr=1.0, weight_decay=0.1)(
        torch.zeros(0, 3, dtype=torch.float64), torch.zeros(0, dtype=torch.int64)
    )
    assert torch.allclose(network[0].weight, torch.full((2, 3), 90.0, dtype=torch.float64))


@pytest.mark.parametrize("engine", ENGINES)
def test_seeded_noise_is_the_key_s_and_leaves_the_global_generator_alone(engine):
    found = []
    for world, seed in ((1, 0), (2, 0), (3, 1)):
        network, _ = columnfc()
        torch.manual_seed(world)
        expected = torch.random.get_rng_state()
        private(network, engine=engine, count=9, expected=9, seed=seed)(*batch())
        assert torch.equal(torch.random.get_rng_state(), expected)
        found.append(flat(network))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_both_engines_take_the_same_step_with_the_same_noise():
    found = []
    for engine in ENGINES:
        network, _ = columnfc()
        step = private(
            network,
            engine=engine,
            count=20,
            expected=9,
            noise=1.5,
            max_grad_norm=0.7,
            weight_decay=0.01,
        )
        for seed in range(3):
            step(*batch(seed=seed))
        found.append(flat(network))
    assert torch.allclose(*found, rtol=1e-6, atol=1e-6) and not torch.allclose(
        found[0], flat(columnfc()[0]), atol=0.1
    )


def test_pyvacy_runs_on_the_cpu_of_a_machine_with_a_gpu(monkeypatch):
    network, _ = columnfc()
    with monkeypatch.context() as patched:
        patched.setattr(torch.cuda, "is_available", lambda: True)
        step = private(network, engine="pyvacy", count=9, expected=9)
    before = flat(network)
    step(*batch())  # it would move its noise to a GPU
    assert not torch.equal(flat(network), before)


def test_samples_are_poisson_and_an_epoch_has_as_many_as_it_would_have_batches():
    n, size = 50, 8
    defender, draw = started(count=n, expected=size), torch.Generator().manual_seed(0)
    before = draw.get_state()
    drawn = [
        sample for _ in range(600) for sample in defender.batches(torch.arange(n) + 100, size, draw)
    ]
    assert torch.equal(draw.get_state(), before)  # it tells nothing of who was drawn
    assert len(drawn) == 600 * 7
    sizes = np.array([len(sample) for sample in drawn])
    assert abs(sizes.mean() - 8) < 5 * math.sqrt(n * 0.16 * 0.84 / len(drawn))
    assert sizes.var() == pytest.approx(n * 0.16 * 0.84, rel=0.1)
    times = torch.cat(drawn).sub(100).bincount(minlength=n).numpy()
    low, high = binom.interval(1 - 1e-4 / n, len(drawn), size / n)
    assert (low <= times).all() and (times <= high).all()
    assert all(len(sample.unique()) == len(sample) for sample in drawn)


# ---- where the noise comes from --------------------------------------------------------------------------------------


def test_normals_are_normal():
    """One by one, and in pairs that chunks, summands or neighbouring draws could tie together."""
    for stream in (SeededStream(bytes(16)), SecretStream()):
        found = normals(stream, 3 * CHUNK + 5)
        assert found.shape == (3 * CHUNK + 5,) and found.dtype == np.float64
        assert kstest(found, "norm").pvalue > 1e-6
        assert kstest(found**2, "chi2", args=(1,)).pvalue > 1e-6  # a wrong deviation shows
        for apart in (1, 2, 4, CHUNK // 4, CHUNK):
            assert abs(np.corrcoef(found[:-apart], found[apart:])[0, 1]) < 5 / math.sqrt(
                len(found) - apart
            ), apart
    again = normals(SeededStream(bytes(16)), 3 * CHUNK + 5)
    assert not np.allclose(again, found) and len(np.unique(found)) == len(found)


def test_a_normal_is_half_the_sum_of_four():
    class Fixed:
        def read(self, count):
            return b"".join(
                int(share * 2**53 * 2**11).to_bytes(8, "little")
                for share in (0.5, 0.75, 0.1, 0.9, 0.25, 0.5, 0.975, 0.5)
            )[:count]

    first, second = (
        norm.ppf([0.5, 0.1, 0.25, 0.975]).sum() / 2,
        norm.ppf([0.75, 0.9, 0.5, 0.5]).sum() / 2,
    )
    assert np.allclose(normals(Fixed(), 2), [first, second], atol=1e-12)


def test_uniforms_have_53_bits_and_no_end():
    class Ends:
        def read(self, count):
            return bytes(8) + b"\xff" * 8

    low, high = uniforms(Ends(), 2)
    assert (low, high) == (2.0**-54, 1 - 2.0**-53) and np.isfinite(norm.ppf([low, high])).all()
    found = uniforms(SecretStream(), 10**5)
    assert kstest(found, "uniform").pvalue > 1e-6
    bits = (found * 2.0**53).astype(np.int64)
    for bit in range(53):  # the lowest as good as the highest
        assert abs((bits >> bit & 1).mean() - 0.5) < 5 * 0.5 / math.sqrt(10**5), bit


def test_a_seeded_stream_is_its_key_s_and_goes_on_where_it_was():
    """SHAKE-256 of the key and the call's number, by another way of hashing."""
    stream, other = SeededStream(b"k" * 16), SeededStream(b"l" * 16)
    first, second = stream.read(40), stream.read(40)
    for number, bytes_read in ((1, first), (2, second)):
        hashed = hashlib.shake_256()
        hashed.update(b"k" * 16)
        hashed.update(bytes(7) + bytes([number]))
        assert hashed.digest(40) == bytes_read
    assert other.read(40) != first
    again = SeededStream(b"k" * 16)
    again.read(3)
    late = SeededStream(b"k" * 16)
    late.set_state(again.state())
    assert late.read(40) == second and b"k" * 16 not in repr(again.state()).encode()


def test_seeded_noise_needs_a_key_and_a_wrong_one_is_named():
    with pytest.raises(ValueError, match="key must have 16 bytes or more, not 3"):
        PrivateSGD(
            1.0, dp_engine="pyvacy", dp_lr=1.0, max_grad_norm=1.0, dp_noise="seeded", key=b"abc"
        ).setup(TrainSet(tiny_records(4), torch.arange(4)), batch_size=4, generator=None)


@pytest.mark.parametrize("change", ["a record", "a label", "one fewer"])
def test_a_neighbouring_data_set_has_other_noise_of_the_same_seed(change):
    """Where two models differed by less than their noise, the noise has cancelled and the guarantee with it."""
    found = []
    for changed in (False, True):
        records, count = tiny_records(20), 20
        if changed and change == "a record":
            records.x[7, 3] += 1e-3
        if changed and change == "a label":
            records.y[7] = (records.y[7] + 1) % 3
        network, _ = columnfc()
        before = flat(network)
        x, y = batch()
        fewer = changed and change == "one fewer"
        private(network, count=count - fewer, expected=9, noise=50.0, records=records)(x, y)
        found.append((flat(network) - before)[flat(network) != 0])
    rms = float((found[0] - found[1]).square().mean().sqrt())
    assert rms == pytest.approx(math.sqrt(2) * 0.5 * 50 / 9, rel=0.05)  # two noises, not none


@pytest.mark.parametrize("engine", ENGINES)
def test_two_secret_steps_differ_by_as_much_as_the_noise_says(engine):
    found, sizes = [], []
    for _ in range(2):
        network, masks = columnfc()
        defender = started(
            engine=engine, count=50, expected=10, noise=3.0, lr=0.5, max_grad_norm=2.0, seed=None
        )
        optimizer = defender.build_optimizer(network, SimpleNamespace(weight_decay=0.0))
        defender.step(network, optimizer, None, *batch())
        found.append(flat(network)[flat(network) != 0])
        sizes.append([len(drawn) for drawn in defender.batches(torch.arange(50), 1)])
    differ = found[0] - found[1]
    deviation = math.sqrt(2) * 0.5 * 3.0 * 2.0 / 10
    assert float(differ.std()) == pytest.approx(deviation, rel=5 / math.sqrt(2 * len(differ)))
    assert kstest(differ / deviation, "norm").pvalue > 1e-6 and sizes[0] != sizes[1]


@pytest.mark.parametrize("engine", ENGINES)
def test_the_system_is_asked_for_entropy_in_each_step(engine, monkeypatch):
    asked, real = [], os.urandom

    def counted(count):
        asked.append(count)
        return real(count)

    monkeypatch.setattr(os, "urandom", counted)
    network, masks = columnfc()
    defender = started(engine=engine, count=50, expected=10, seed=None)
    optimizer = defender.build_optimizer(network, SimpleNamespace(weight_decay=0.0))
    assert asked == []  # nothing is drawn beforehand, to be kept
    weights = int((flat(network) != 0).sum()) + sum(
        layer.bias.numel() for layer in network if hasattr(layer, "bias")
    )
    for number, drawn in enumerate(defender.batches(torch.arange(50), 10), start=1):
        assert sum(asked) == 8 * 50
        defender.step(network, optimizer, None, *batch())
        assert (
            sum(asked) == 8 * 50 + 8 * 4 * weights
        )  # four uniforms of 8 bytes for each weight that is kept
        asked.clear()
    assert number == 5


def test_secret_noise_has_no_state():
    defender = started(count=50, expected=10, seed=None)
    list(defender.batches(torch.arange(50), 10))
    assert defender.state() == {"stream": {}} and vars(defender.stream) == {}


# ---- the accounting --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "n, steps, pyvacy, rdp, prv",
    [(10000, 2344, 8.18, 7.41, 6.82), (60000, 3516, 1.594, 1.281, 1.144)],
)
def test_known_epsilons(n, steps, pyvacy, rdp, prv):
    per_epoch = math.ceil(n / 256)
    epochs, left = divmod(steps, per_epoch)
    found = guarantee(n=n, batch_size=256, noise_multiplier=1.1, epochs=epochs, delta=1e-5)
    assert found.steps == epochs * per_epoch and found.sampling_rate == 256 / n
    more = guarantee(
        n=n, batch_size=256, noise_multiplier=1.1, epochs=epochs + (left > 0), delta=1e-5
    )
    for name, value in (("pyvacy", pyvacy), ("rdp", rdp), ("prv", prv)):
        low, high = getattr(found, name), getattr(more, name)
        assert low - 0.006 <= value <= high + 0.006, name
    assert found.epsilon == found.prv


def test_epsilon_of_the_gaussian_mechanism_is_the_analytic_one():
    """One step that draws every record: Balle & Wang (ICML 2018), theorem 8."""
    for noise, delta in ((1.0, 1e-2), (2.0, 1e-4)):
        found = guarantee(n=50, batch_size=50, noise_multiplier=noise, epochs=1, delta=delta)
        low, high = 0.0, 50.0
        for _ in range(80):
            epsilon = (low + high) / 2
            reached = norm.cdf(0.5 / noise - epsilon * noise)
            reached -= math.exp(epsilon) * norm.cdf(-0.5 / noise - epsilon * noise)
            low, high = (epsilon, high) if reached > delta else (low, epsilon)
        assert low <= found.epsilon <= low + 0.03 and found.rdp > low


@pytest.mark.parametrize("noise", [0.5, 1, 4, 10, 20, 100, 1000])
@pytest.mark.parametrize("n, size", [(1127, 128), (60000, 256), (54, 54)])
def test_epsilon_is_never_below_what_is_all_but_exact(n, size, noise):
    """As pyvacy's can be, and below 0."""
    found = guarantee(n=n, batch_size=size, noise_multiplier=float(noise), epochs=25, delta=None)
    assert (
        0 <= found.epsilon
        and found.epsilon == max(0, min(found.prv, found.rdp))
        and found.prv < found.rdp + 0.05
    )


def exact_delta(epsilon, rate, noise):
    """Of one Poisson-sampled Gaussian step, adding and removing: P = (1 - q) N(0, s^2) + q N(1, s^2) against N(0, s^2)
    exceeds exp(epsilon) where x > s^2 log((exp(epsilon) - (1 - q)) / q) + 1/2."""

    def crossing(ratio):
        return noise**2 * math.log((ratio - (1 - rate)) / rate) + 0.5

    def tails(x, tail):
        return (1 - rate) * tail(x / noise) + rate * tail((x - 1) / noise), tail(x / noise)

    mixed, alone = tails(crossing(math.exp(epsilon)), norm.sf)
    found = [mixed - math.exp(epsilon) * alone]
    if math.exp(-epsilon) > 1 - rate:
        mixed, alone = tails(crossing(math.exp(-epsilon)), norm.cdf)
        found.append(alone - math.exp(epsilon) * mixed)
    return max(found)


@pytest.mark.parametrize("noise", [0.15, 0.3, 0.5, 0.8, 2.0])
@pytest.mark.parametrize("n, size", [(1000, 10), (1127, 128), (50, 25)])
def test_epsilon_of_one_sampled_step_is_the_exact_one(n, size, noise):
    """Below a noise multiplier of 0.5 too, where PRV is made as well, if its grid is small."""
    epsilon = prv_epsilon(noise_multiplier=noise, rate=size / n, steps=1, delta=1e-3, rdp=0.0)
    exact = brentq(lambda epsilon: exact_delta(epsilon, size / n, noise) - 1e-3, 0, 300)
    assert exact <= epsilon < exact + 0.02


@pytest.mark.parametrize("noise, steps", [(0.3, 1), (0.4, 3), (1.0, 12)])
def test_steps_that_draw_every_record_are_one_gaussian_mechanism(noise, steps):
    """k of them with noise s are one with s / sqrt(k): Dong et al. (JRSS B 2022), corollary 3.3."""
    found = guarantee(n=50, batch_size=50, noise_multiplier=noise, epochs=steps, delta=1e-3)
    exact = brentq(
        lambda epsilon: exact_delta(epsilon, 1.0, noise / math.sqrt(steps)) - 1e-3, 0, 300
    )
    assert exact <= found.epsilon < exact + 0.03 and found.epsilon == found.prv


@pytest.mark.parametrize(
    "n, size, noise, epochs",
    [
        (1127, 128, 0.5, 1000),
        (404, 128, 0.5, 3000),
        (1127, 128, 0.1, 75),
        (60000, 256, 1.1, 3000),
        (10**7, 100, 4.0, 3000),
    ],
)
def test_prv_is_left_out_before_it_takes_gigabytes(n, size, noise, epochs):
    """At little noise or many steps; the fourth has a small epsilon by RDP, and too large a grid."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = guarantee(n=n, batch_size=size, noise_multiplier=noise, epochs=epochs, delta=None)
    assert found.prv is None
    assert found.epsilon == (found.rdp if noise >= 0.5 else min(found.rdp, found.pyvacy))
    assert (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18
    )  # KiB; importing Opacus is the most


def test_what_is_left_out_and_the_default_delta():
    none = guarantee(n=1000, batch_size=10, noise_multiplier=1.0, epochs=0, delta=None)
    assert none.epsilon == 0 and none.steps == 0 and none.delta == 1e-4
    assert [default_delta(n) for n in (1, 9, 10, 999, 1000, 1001, 1127, 10000)] == [
        1e-1,
        1e-1,
        1e-2,
        1e-3,
        1e-4,
        1e-4,
        1e-4,
        1e-5,
    ]
    assert all(
        default_delta(n) < 1 / n <= 10 * default_delta(n) * (1 + 1e-12) for n in range(1, 20000)
    )


# ---- the audit -------------------------------------------------------------------------------------------------------


def epsilon_that_is_shown(step_of, *, delta, repeats=3000):
    """A lower bound on epsilon, true with 95 %: the canary is told from its absence by where one step goes.

    The statistic is how far the step goes along the canary's gradient, in units of lr C / B.
    """
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 2)).double()
    x, y = batch(n=9, columns=4, num_cls=2)
    x, y = (
        torch.cat([torch.full((1, 4), 30.0, dtype=torch.float64), x]),
        torch.cat([torch.tensor([0]), y]),
    )
    _, of_canary = clipped_sum(network, x[:1], y[:1], max_grad_norm=1.0)
    direction = torch.cat([total.flatten() for total in of_canary.values()])
    assert float(direction.norm()) == pytest.approx(1)
    start, before = (
        {name: tensor.clone() for name, tensor in network.state_dict().items()},
        flat(network),
    )
    step, found = step_of(network), {}
    for present in (True, False):
        rows = slice(0 if present else 1, None)
        found[present] = []
        for _ in range(repeats):
            step(x[rows], y[rows])
            found[present].append(-float((flat(network) - before) @ direction))
            network.load_state_dict(start)
    with_it, without = np.array(found[True]), np.array(found[False])
    # the threshold is chosen on a third, the bound taken on the rest
    third = repeats // 3
    best = max(
        np.quantile(
            np.concatenate([with_it[:third], without[:third]]), np.linspace(0.02, 0.98, 49)
        ),
        key=lambda limit: bound(with_it[:third], without[:third], limit, delta),
    )
    return bound(with_it[third:], without[third:], best, delta)


def bound(with_it, without, limit, delta):
    def rate(values):
        return binomtest(int((values > limit).sum()), len(values)).proportion_ci(
            0.95, method="exact"
        )

    low, high = rate(with_it).low, rate(without).high
    return math.log(max(low - delta, 1e-12) / high)


def broken_noise(network):
    return private(network, engine="pyvacy", count=10, expected=10, noise=0.5)


def broken_clip(network):
    """The mean gradient is clipped as a whole, the noise is that of clipped records."""

    def step(x, y):
        network.zero_grad()
        F.cross_entropy(network(x), y).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter -= 0.5 * (parameter.grad + torch.randn_like(parameter) / 10)

    return step


@pytest.mark.parametrize("engine", ENGINES)
def test_the_audit_stays_below_the_claim(engine):
    claimed = guarantee(n=10, batch_size=10, noise_multiplier=1.0, epochs=1, delta=0.01).epsilon
    shown = epsilon_that_is_shown(
        lambda network: private(network, engine=engine, count=10, expected=10), delta=0.01
    )
    assert 1.0 < shown < claimed  # and is no idle one


@pytest.mark.parametrize("broken", [broken_noise, broken_clip])
def test_the_same_audit_exposes_a_broken_step(broken):
    claimed = guarantee(n=10, batch_size=10, noise_multiplier=1.0, epochs=1, delta=0.01).epsilon
    assert epsilon_that_is_shown(broken, delta=0.01) > claimed


# ---- the stage -------------------------------------------------------------------------------------------------------


def stopped_at(call):
    """In place of `BaseModel.accuracies`: Ctrl-C at this call of it."""
    ran, real = [], BaseModel.accuracies

    def interrupted(self, *args):
        ran.append(1)
        if len(ran) == call:
            raise KeyboardInterrupt
        return real(self, *args)

    return interrupted


class TestStage:
    @pytest.fixture
    def path(self, write_config):
        path = write_config(epochs=4)
        run(pretrain, path)
        return path

    @pytest.mark.parametrize("engine", ENGINES)
    def test_it_prunes_fine_tunes_and_says_what_is_guaranteed(self, path, capsys, engine):
        run(prune, path)
        run(prune_dp, path, "--defend", "dp", "--defend_arg", "2.0", "--dp_engine", engine)
        said = " ".join(capsys.readouterr().out.split())
        privacy = manifest("l1unstructure_0.7_dp_2_model")["privacy"]
        n, size = 54, 54
        assert privacy["steps"] == 2 * math.ceil(n / 128) and privacy["sampling_rate"] == size / n
        given = guarantee(n=n, batch_size=size, noise_multiplier=2.0, epochs=2, delta=None)
        assert (
            privacy == vars(given) | {"epsilon": given.epsilon, "noise": "secret"}
            and privacy["n"] == n
        )
        assert (
            manifest("l1unstructure_0.7_dp_2_model")["options"]["dp_noise"] == "secret"
            and NO_GUARANTEE not in said
        )
        shown = float(said.split("fine-tuning is (")[1].split(",")[0])
        assert given.epsilon <= shown < given.epsilon + 0.01
        assert (
            "the victim's fine-tuning is (" in said
            and "NO such guarantee" in said
            and "dev records" in said
        )
        weights = torch.load(MADE / "l1unstructure_0.7_dp_2_model/best.pth", weights_only=True)
        masks = torch.load(MADE / "l1unstructure_0.7_dp_2_model/best_mask.pth", weights_only=True)
        for name, kept in masks.items():
            assert weights[name][~kept].eq(0).all()
        for words in ([], ["--adaptive"]):
            run(mia, path, "--defend", "dp", "--defend_arg", "2", "--attacks", "threshold", *words)
        assert {line["adaptive"] for line in lines("l1unstructure_0.7_dp_2_model")} == {True, False}

    def test_from_scratch_sees_no_pretrained_weight(self, path, capsys):
        words = [
            "--defend_arg",
            "1",
            "--from_scratch",
            "--prune_epochs",
            "3",
            "--dp_noise",
            "seeded",
        ]
        run(prune_dp, path, *words)
        said = " ".join(capsys.readouterr().out.split())
        assert (
            "the victim would be (" in said
            and "this would hold for the network" in said
            and "NO such" not in said
        )
        folder = "l1unstructure_0.7_dp_1_scratch_model"
        assert manifest(folder)["parent"] == ""
        before = (MADE / folder / "best.pth").read_bytes()
        run(pretrain, path, "--lr", "0.01", "--fresh")
        run(
            mia,
            path,
            "--defend",
            "dp",
            "--defend_arg",
            "1",
            "--from_scratch",
            "--adaptive",
            "--attacks",
            "threshold",
        )
        assert lines(folder)[0]["from_scratch"] is True
        run(prune_dp, path, *words, "--fresh")
        assert (MADE / folder / "best.pth").read_bytes() == before

    def test_all_planned_steps_count_where_it_stops_early(self, path):
        run(
            prune_dp,
            path,
            "--defend_arg",
            "2",
            "--early_stop",
            "1",
            "--prune_epochs",
            "40",
            "--batch_size",
            "16",
        )
        said = manifest("l1unstructure_0.7_dp_2_model")
        assert (
            said["ran"] < 40
            and said["privacy"]["steps"] == 40 * 4
            and said["privacy"]["sampling_rate"] == 16 / 54
        )

    @pytest.mark.parametrize("engine", ENGINES)
    def test_interrupted_it_goes_on_with_the_same_seeded_noise(self, path, engine, monkeypatch):
        words = [
            "--defend_arg",
            "1",
            "--dp_engine",
            engine,
            "--prune_epochs",
            "5",
            "--save_every",
            "0",
            "--dp_noise",
            "seeded",
        ]
        run(prune_dp, path, *words)
        whole = files()
        with monkeypatch.context() as patched:
            patched.setattr(BaseModel, "accuracies", stopped_at(4))
            assert prune_dp.main(["cpu", path, *words, "--fresh"]) == 130
        assert list(MADE.rglob("model.resume"))
        (MADE / "l1unstructure_0.7_dp_1_model" / "manifest.json").unlink()
        run(prune_dp, path, *words)
        assert files() == whole

    def test_trainings_of_one_seed_share_no_noise(self, path):
        """Or the difference of two published models would be without any."""
        moved = {}
        original = torch.load(MADE / "victim_model/best.pth", weights_only=True)
        for noise in ("1", "2"):
            run(
                prune_dp,
                path,
                "--defend_arg",
                noise,
                "--prune_epochs",
                "1",
                "--dp_lr",
                "1e-3",
                "--weight_decay",
                "0",
                "--dp_noise",
                "seeded",
            )
            folder = MADE / f"l1unstructure_0.7_dp_{noise}_model"
            kept = torch.load(folder / "best_mask.pth", weights_only=True)["4.weight"]
            weights = torch.load(folder / "best.pth", weights_only=True)["4.weight"]
            moved[noise] = (weights - original["4.weight"])[kept]
        assert abs(float(torch.corrcoef(torch.stack(list(moved.values())))[0, 1])) < 0.2

    def test_a_config_for_scratch_changes_no_other_stage(self, write_config):
        path = write_config(epochs=2, from_scratch=True)
        run(pretrain, path)
        run(prune, path)
        assert manifest("l1unstructure_0.7_model")["parent"] != ""

    def test_it_is_never_trained_in_a_stack(self):
        from base_model import Objective
        from defenders.ppb import PosteriorBalancing

        assert (
            Objective.is_stackable()
            and PosteriorBalancing.is_stackable()
            and not PrivateSGD.is_stackable()
        )

    def test_the_same_command_gives_the_same_files_where_the_noise_is_seeded(self, path):
        made = []
        for _ in range(2):
            run(prune_dp, path, "--defend_arg", "1", "--fresh", "--dp_noise", "seeded")
            made.append(files())
            torch.rand(3)
        assert made[0] == made[1]

    def test_two_runs_of_one_command_share_masks_and_no_noise(self, path):
        """So that nothing published leads to the noise: initial weights and masks follow from the seed, and are the
        same; the updates of a single step differ by as much as sigma says."""
        words = [
            "--defend_arg",
            "3",
            "--from_scratch",
            "--prune_epochs",
            "1",
            "--weight_decay",
            "0",
        ]
        made = []
        for _ in range(2):
            run(prune_dp, path, *words, "--fresh")
            folder = MADE / "l1unstructure_0.7_dp_3_scratch_model"
            made.append(
                [
                    torch.load(folder / name, weights_only=True)
                    for name in ("best.pth", "best_mask.pth")
                ]
            )
        (weights, masks), (others, same) = made
        assert masks.keys() == same.keys() and all(
            torch.equal(masks[name], same[name]) for name in masks
        )
        moved = torch.cat([(weights[name] - others[name])[kept] for name, kept in masks.items()])
        deviation = (
            math.sqrt(2) * 3 / 54
        )  # the gradients, which differ as the weights drop out, are little beside it
        assert float(moved.std()) == pytest.approx(
            deviation, rel=5 / math.sqrt(2 * len(moved)) + 0.01
        )
        assert kstest(moved / deviation, "norm").pvalue > 1e-6

    def test_initial_weights_and_dropout_follow_from_the_seed_and_no_noise_does(
        self, path, monkeypatch
    ):
        """With entropy that is known, the same command gives the same weights to the last bit: whatever else is drawn
        is the seed's. With other entropy it does not."""
        made = []
        for key in (b"a" * 16, b"a" * 16, b"b" * 16):
            known = SeededStream(key)
            with monkeypatch.context() as patched:
                patched.setattr(os, "urandom", known.read)
                run(prune_dp, path, "--defend_arg", "1", "--from_scratch", "--fresh")
            made.append(
                torch.load(
                    MADE / "l1unstructure_0.7_dp_1_scratch_model/best.pth", weights_only=True
                )
            )
            assert known.calls > 0
        for name, tensor in made[0].items():
            assert torch.equal(tensor, made[1][name]) and not torch.equal(tensor, made[2][name]), (
                name
            )

    @pytest.mark.parametrize("engine", ENGINES)
    def test_interrupted_it_goes_on_with_fresh_noise_and_its_state_has_none(
        self, path, engine, monkeypatch, capsys
    ):
        words = [
            "--defend_arg",
            "1",
            "--dp_engine",
            engine,
            "--prune_epochs",
            "5",
            "--save_every",
            "0",
        ]
        read, real = [], os.urandom

        def noted(count):
            read.append(real(count))
            return read[-1]

        with monkeypatch.context() as patched:
            patched.setattr(BaseModel, "accuracies", stopped_at(4))
            patched.setattr(os, "urandom", noted)
            assert prune_dp.main(["cpu", path, *words]) == 130
        (kept,) = MADE.rglob("model.resume")
        state = read_digested(kept)["state"]
        assert state["defender"] == {"stream": {}}
        assert not any(drawn[:16] in kept.read_bytes() for drawn in read)
        again, better = [], itertools.count()
        # later epochs are better, so that it is their weights that are kept
        monkeypatch.setattr(BaseModel, "accuracies", lambda *_: [0.9 + next(better) / 10_000])
        for _ in range(2):
            copied = kept.read_bytes()
            capsys.readouterr()
            run(prune_dp, path, *words)
            assert (
                "going on after epoch 3" in (said := capsys.readouterr().out)
                and "with fresh noise" in said
            )
            again.append(torch.load(kept.parent / "best.pth", weights_only=True))
            (kept.parent / "manifest.json").unlink()
            kept.write_bytes(copied)
        assert any(not torch.equal(again[0][name], again[1][name]) for name in again[0])

    def test_what_is_finished_is_kept(self, path, capsys):
        run(prune_dp, path, "--defend_arg", "1")
        before = files()
        capsys.readouterr()
        run(prune_dp, path, "--defend_arg", "1")
        assert "kept results" in capsys.readouterr().out and files() == before

    def test_seeded_noise_is_said_wherever_epsilon_is(self, path, capsys):
        run(prune_dp, path, "--defend_arg", "1", "--from_scratch", "--dp_noise", "seeded")
        said = capsys.readouterr().out
        assert said.count(NO_GUARANTEE) == 2
        assert NO_GUARANTEE in next(
            line for line in said.splitlines() if "differentially private" in line
        )
        privacy = manifest("l1unstructure_0.7_dp_1_scratch_model")["privacy"]
        assert privacy["noise"] == "seeded" and privacy["warning"] == NO_GUARANTEE
        run(
            mia,
            path,
            "--defend",
            "dp",
            "--defend_arg",
            "1",
            "--from_scratch",
            "--adaptive",
            "--attacks",
            "threshold",
        )
        assert NO_GUARANTEE in capsys.readouterr().out

    def test_a_model_from_before_there_was_secret_noise_is_read_and_has_no_guarantee(
        self, path, capsys
    ):
        run(prune_dp, path, "--defend_arg", "1", "--dp_noise", "seeded")
        for file in MADE.glob("*dp_1*/manifest.json"):
            old = json.loads(file.read_text())
            del old["options"]["dp_noise"], old["sha256"]
            for name in ("noise", "warning", "n"):
                del old["privacy"][name]
            file.write_bytes(sealed_json(old))
        capsys.readouterr()
        run(
            mia, path, "--defend", "dp", "--defend_arg", "1", "--adaptive", "--attacks", "threshold"
        )
        assert NO_GUARANTEE in capsys.readouterr().out
        run(prune_dp, path, "--defend_arg", "1", "--dp_noise", "seeded")
        assert NO_GUARANTEE in capsys.readouterr().out
        assert prune_dp.main(["cpu", path, "--defend_arg", "1"]) == 2
        assert "was made with dp_noise 'seeded' (now 'secret')" in capsys.readouterr().err

    @pytest.mark.parametrize(
        "delta, warned", [("0.9", True), (str(1 / 54), True), ("0.0185", False), (None, False)]
    )
    def test_a_delta_that_lets_records_be_published_is_warned_of(self, path, capsys, delta, warned):
        run(
            prune_dp,
            path,
            "--defend_arg",
            "8",
            "--prune_epochs",
            "1",
            *(["--delta", delta] if delta else []),
        )
        said = [
            line
            for line in capsys.readouterr().out.splitlines()
            if "is not below 1/n, here 1/54" in line
        ]
        assert len(said) == warned

    @pytest.mark.parametrize(
        "stage, words, said",
        [
            (prune_dp, ["--defend_arg", "0"], "the noise multiplier of dp, must be above 0, not 0"),
            (prune_dp, ["--defend_arg", "-1"], "--defend_arg must be a number of 0 or more"),
            (prune_dp, ["--delta", "0"], "--delta must be a number between 0 and 1"),
            (prune_dp, ["--defend_arg", "1e-200"], "no epsilon can be computed"),
            (prune_dp, ["--delta", "1"], "--delta must be a number between 0 and 1"),
            (prune_dp, ["--dp_engine", "opcaus"], "--dp_engine must be 'pyvacy' or 'opacus'"),
            (prune_dp, ["--dp_noise", "public"], "--dp_noise must be 'secret' or 'seeded'"),
            (prune_dp, ["--dp_lr", "0"], "--dp_lr must be a number above 0"),
            (prune_dp, ["--max_grad_norm", "0"], "--max_grad_norm must be a number above 0"),
            (
                prune_dp,
                ["--defend", "ppb"],
                "prune_dp.py does not fine-tune with the defence 'ppb': run `python prune.py",
            ),
            (
                prune,
                ["--defend", "dp"],
                "prune.py does not fine-tune with the defence 'dp': run `python prune_dp.py",
            ),
            (mia, ["--from_scratch"], "name it with --defend dp"),
            (mia, ["--defend", "dp", "--defend_arg", "3"], "first run `python prune_dp.py"),
        ],
    )
    def test_what_is_wrong_is_one_line(self, path, capsys, stage, words, said):
        before = files()
        capsys.readouterr()
        assert stage.main(["cpu", path, *words]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1 and files() == before


def test_digits_are_learnt_privately():
    """A step that is worth its name: with little noise, accuracy rises far above chance."""

    records = load("digits", data_root="unused", num_cls=10, input_dim=64)
    draw = generator(0, "dp")
    network = build("columnfc", shape=records.shape, num_cls=10, generator=draw)
    model = BaseModel(network, device=torch.device("cpu"), generator=draw)
    train, test = torch.arange(1200), torch.arange(1200, 1797)
    defender = started(count=1200, expected=128, noise=0.5, records=records)
    model.train(TrainSet(records, train), TrainConfig(epochs=8), generator=draw, objective=defender)
    assert model.test(records, test) > 0.6


def test_privacy_is_stored_as_plain_json(write_config):
    path = write_config(epochs=2)
    run(pretrain, path)
    run(prune_dp, path, "--defend_arg", "0.05")
    said = json.loads((MADE / "l1unstructure_0.7_dp_0.05_model" / "manifest.json").read_text())[
        "privacy"
    ]
    assert (
        said["prv"] is None
        and said["rdp"] > 0
        and said["noise_multiplier"] == 0.05
        and said["noise"] == "secret"
    )


def test_what_stands_beside_epsilon():
    assert caveat(None) == caveat({"epsilon": 1.0, "noise": "secret"}) == ""
    assert caveat({"epsilon": 1.0, "noise": "seeded"}) == caveat({"epsilon": 1.0}) == NO_GUARANTEE


@pytest.mark.parametrize(
    "tpr, fpr, beyond", [(0.9, 0.1, True), (0.99, 0.95, True), (0.55, 0.45, False), (1, 1, False)]
)
def test_an_attack_that_is_surely_better_than_the_guarantee_is_found(tpr, fpr, beyond):
    """At epsilon 0.2 an exchange allows ratios up to exp(0.4) = 1.49; (.99, .95) exceeds it in (TNR, FNR)."""
    member = np.arange(4000) < 2000
    decision = np.concatenate([np.arange(2000) < 2000 * tpr, np.arange(2000) < 2000 * fpr])
    assert beyond_guarantee(decision, member, epsilon=0.2, delta=0.0) is beyond
    assert not beyond_guarantee(decision, member, epsilon=3.0, delta=0.0)


def test_the_best_attack_that_a_guarantee_allows_is_hardly_ever_found_beyond_it():
    draw = np.random.default_rng(0)
    member, factor = np.arange(2000) < 1000, np.exp(0.4)
    fpr = 1 / (1 + factor)  # randomised response: TPR = factor FPR, TNR = factor FNR
    found = [
        beyond_guarantee(
            draw.random(2000) < np.where(member, factor * fpr, fpr), member, epsilon=0.2, delta=0.0
        )
        for _ in range(200)
    ]
    assert np.mean(found) < 0.05
