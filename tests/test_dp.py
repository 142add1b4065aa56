"""DP-SGD: what a step does, what it guarantees, and that the guarantee holds."""
import json
import math

import numpy as np
import pytest
import torch
from scipy.stats import binom, binomtest, norm
from torch import nn
from torch.nn import functional as F

import mia
import prune
import prune_dp
import pretrain
from base_model import BaseModel, TrainConfig, TrainSet
from core.devices import generator
from core.console import UserError
from datasets import load
from defenders import dp
from defenders.accounting import default_delta, guarantee
from defenders.dp import PrivateSGD, clipped_sum
from models import build
from pruner import mask
from test_stages import MADE, files, lines, manifest, run

ENGINES = ["pyvacy", "opacus"]


def columnfc(seed=0, columns=12, num_cls=3, sparsity=0.6):
    """A pruned network without dropout's chance, in float64; and its masks."""
    network = build("columnfc", shape=(columns,), num_cls=num_cls, generator=torch.Generator().manual_seed(seed))
    network = network.double().eval()
    masks = mask.compute_masks(network, pruner="l1unstructure", sparsity=sparsity)
    mask.attach_masks(network, masks)
    return network, masks


def batch(n=9, columns=12, num_cls=3, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return (torch.randn(n, columns, generator=draw, dtype=torch.float64) * 3,
            torch.randint(num_cls, (n,), generator=draw))


def by_hand(network, x, y, max_grad_norm, masks):
    """{parameter name: sum of clipped gradients}, a record at a time, and the norms before."""
    sums, norms = {}, []
    for record in range(len(y)):
        network.zero_grad()
        F.cross_entropy(network(x[record: record + 1]), y[record: record + 1]).backward()
        gradients = {name: parameter.grad * masks.get(name, torch.tensor(True))
                     for name, parameter in network.named_parameters()}
        norms.append(math.sqrt(sum(float((gradient ** 2).sum()) for gradient in gradients.values())))
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
        loss, sums = dp.one_by_one(network, list(network.parameters()), x, y, max_grad_norm)
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
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
                            nn.Linear(64, 3)).double()
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
    alone = [clipped_sum(network, x[one: one + 1], y[one: one + 1], max_grad_norm=0.5)[1] for one in range(5)]
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


@pytest.mark.parametrize("network", [
    nn.Sequential(nn.Unflatten(1, (3, 4)), nn.Linear(4, 2), nn.Flatten(), nn.Linear(6, 3)),  # sees three vectors
    (lambda layer: nn.Sequential(layer, nn.ReLU(), layer, nn.Linear(12, 3)))(nn.Linear(12, 12))])  # is seen twice
def test_layers_that_are_not_seen_once_with_a_vector_are_worked_on_record_by_record(network):
    network = network.double()
    x, y = batch()
    expected, _ = by_hand(network, x, y, 0.7, {})
    _, sums = clipped_sum(network, x, y, max_grad_norm=0.7)
    for name, parameter in network.named_parameters():
        assert torch.allclose(sums[parameter], expected[name])


# ---- the step --------------------------------------------------------------------------------------------------------

def private(network, *, engine, count, expected, noise=1.0, lr=0.5, max_grad_norm=1.0, seed=0, weight_decay=0.0):
    """A function(x, y) that takes a private step."""

    defender = PrivateSGD(noise, dp_engine=engine, dp_lr=lr, max_grad_norm=max_grad_norm)
    defender.setup(TrainSet(None, torch.arange(count)), batch_size=expected,
                   generator=torch.Generator().manual_seed(seed))
    optimizer = defender.build_optimizer(network, TrainConfig(epochs=1, weight_decay=weight_decay))
    return lambda x, y: defender.step(network, optimizer, None, x, y)


def flat(network):
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("drawn", [4, 8, 0])
def test_mean_and_deviation_of_an_update(engine, drawn):
    """-lr / B times the sum of clipped gradients, and noise of lr strength C / B: for a full sample, too, and none."""
    network, masks = columnfc(columns=4)
    lr, noise, bound, expected, repeats = 0.5, 1.5, 2.0, 4, 400
    start = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    x, y = batch(n=8, columns=4)
    x, y = x[:drawn], y[:drawn]
    sums, _ = by_hand(network, x, y, bound, masks) if drawn else ({name: torch.zeros_like(value) for name, value
                                                                   in start.items()}, None)
    step = private(network, engine=engine, count=8, expected=expected, noise=noise, lr=lr, max_grad_norm=bound)
    moves = []
    for _ in range(repeats):
        step(x, y)
        moves.append({name: parameter.detach() - start[name] for name, parameter in network.named_parameters()})
        network.load_state_dict(start, strict=False)
    deviation = lr * noise * bound / expected
    for name in start:
        kept = masks.get(name, torch.ones_like(start[name], dtype=torch.bool))
        found = torch.stack([move[name] for move in moves])
        assert found[:, ~kept].eq(0).all()
        surprise = (found.mean(dim=0) + lr * sums[name] / expected)[kept] / (deviation / math.sqrt(repeats))
        assert surprise.abs().max() < 5 and abs(float(surprise.square().mean()) - 1) < 8 / math.sqrt(kept.sum() / 2)
        spread = float(found[:, kept].std(dim=0).square().mean().sqrt())
        assert spread == pytest.approx(deviation, rel=5 / math.sqrt(2 * repeats * int(kept.sum())) + 2e-3), name


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
        torch.zeros(0, 3, dtype=torch.float64), torch.zeros(0, dtype=torch.int64))
    assert torch.allclose(network[0].weight, torch.full((2, 3), 90.0, dtype=torch.float64))


@pytest.mark.parametrize("engine", ENGINES)
def test_noise_is_the_seed_s_and_leaves_the_global_generator_alone(engine):
    found = []
    for world, seed in ((1, 0), (2, 0), (3, 1)):
        network, _ = columnfc()
        torch.manual_seed(world)
        expected = torch.random.get_rng_state()
        private(network, engine=engine, count=9, expected=9, seed=seed)(*batch())
        assert torch.equal(torch.random.get_rng_state(), expected)
        found.append(flat(network))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_pyvacy_runs_on_the_cpu_of_a_machine_with_a_gpu(monkeypatch):
    network, _ = columnfc()
    with monkeypatch.context() as patched:
        patched.setattr(torch.cuda, "is_available", lambda: True)
        step = private(network, engine="pyvacy", count=9, expected=9)
    before = flat(network)
    step(*batch())  # it would move its noise to a GPU
    assert not torch.equal(flat(network), before)


def test_samples_are_poisson_and_an_epoch_has_as_many_as_it_would_have_batches():
    defender = PrivateSGD(1.0, dp_engine="pyvacy", dp_lr=1.0, max_grad_norm=1.0)
    draw, n, size = torch.Generator().manual_seed(0), 50, 8
    defender.setup(TrainSet(None, torch.arange(n)), batch_size=size, generator=draw)
    drawn = [sample for _ in range(600) for sample in defender.batches(torch.arange(n) + 100, size, draw)]
    assert len(drawn) == 600 * 7
    sizes = np.array([len(sample) for sample in drawn])
    assert abs(sizes.mean() - 8) < 5 * math.sqrt(n * 0.16 * 0.84 / len(drawn))
    assert sizes.var() == pytest.approx(n * 0.16 * 0.84, rel=0.1)
    times = torch.cat(drawn).sub(100).bincount(minlength=n).numpy()
    low, high = binom.interval(1 - 1e-4 / n, len(drawn), size / n)
    assert (low <= times).all() and (times <= high).all()
    assert all(len(sample.unique()) == len(sample) for sample in drawn)


# ---- the accounting --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("n, steps, pyvacy, rdp, prv", [
    (10000, 2344, 8.18, 7.41, 6.82), (60000, 3516, 1.594, 1.281, 1.144)])
def test_known_epsilons(n, steps, pyvacy, rdp, prv):
    per_epoch = math.ceil(n / 256)
    epochs, left = divmod(steps, per_epoch)
    found = guarantee(n=n, batch_size=256, noise_multiplier=1.1, epochs=epochs, delta=1e-5)
    assert found.steps == epochs * per_epoch and found.sampling_rate == 256 / n
    more = guarantee(n=n, batch_size=256, noise_multiplier=1.1, epochs=epochs + (left > 0), delta=1e-5)
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
    assert 0 <= found.epsilon and found.epsilon == max(0, min(found.prv, found.rdp)) and found.prv < found.rdp + 0.05


def test_what_is_left_out_and_the_default_delta():
    assert guarantee(n=1000, batch_size=10, noise_multiplier=0.4, epochs=1, delta=None).prv is None
    none = guarantee(n=1000, batch_size=10, noise_multiplier=1.0, epochs=0, delta=None)
    assert none.epsilon == 0 and none.steps == 0 and none.delta == 1e-3
    assert [default_delta(n) for n in (999, 1000, 1001, 1127, 10000)] == [1e-3, 1e-3, 1e-4, 1e-4, 1e-4]


# ---- the audit -------------------------------------------------------------------------------------------------------

def epsilon_that_is_shown(step_of, *, delta, repeats=3000):
    """A lower bound on epsilon, true with 95 %: the canary is told from its absence by where one step goes.

    The statistic is how far the step goes along the canary's gradient, in units of lr C / B.
    """
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 2)).double()
    x, y = batch(n=9, columns=4, num_cls=2)
    x, y = torch.cat([torch.full((1, 4), 30.0, dtype=torch.float64), x]), torch.cat([torch.tensor([0]), y])
    _, of_canary = clipped_sum(network, x[:1], y[:1], max_grad_norm=1.0)
    direction = torch.cat([total.flatten() for total in of_canary.values()])
    assert float(direction.norm()) == pytest.approx(1)
    start, before = {name: tensor.clone() for name, tensor in network.state_dict().items()}, flat(network)
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
    best = max(np.quantile(np.concatenate([with_it[:third], without[:third]]), np.linspace(0.02, 0.98, 49)),
               key=lambda limit: bound(with_it[:third], without[:third], limit, delta))
    return bound(with_it[third:], without[third:], best, delta)


def bound(with_it, without, limit, delta):
    def rate(values):
        return binomtest(int((values > limit).sum()), len(values)).proportion_ci(0.95, method="exact")

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
    shown = epsilon_that_is_shown(lambda network: private(network, engine=engine, count=10, expected=10), delta=0.01)
    assert 1.0 < shown < claimed  # and is no idle one


@pytest.mark.parametrize("broken", [broken_noise, broken_clip])
def test_the_same_audit_exposes_a_broken_step(broken):
    claimed = guarantee(n=10, batch_size=10, noise_multiplier=1.0, epochs=1, delta=0.01).epsilon
    assert epsilon_that_is_shown(broken, delta=0.01) > claimed


# ---- the stage -------------------------------------------------------------------------------------------------------

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
        assert privacy == vars(given) | {"epsilon": given.epsilon}
        shown = float(said.split("fine-tuning is (")[1].split(",")[0])
        assert given.epsilon <= shown < given.epsilon + 0.01
        assert "the victim's fine-tuning is (" in said and "NO such guarantee" in said and "dev records" in said
        weights = torch.load(MADE / "l1unstructure_0.7_dp_2_model/best.pth", weights_only=True)
        masks = torch.load(MADE / "l1unstructure_0.7_dp_2_model/best_mask.pth", weights_only=True)
        for name, kept in masks.items():
            assert weights[name][~kept].eq(0).all()
        for words in ([], ["--adaptive"]):
            run(mia, path, "--defend", "dp", "--defend_arg", "2", "--attacks", "threshold", *words)
        assert {line["adaptive"] for line in lines("l1unstructure_0.7_dp_2_model")} == {True, False}

    def test_from_scratch_sees_no_pretrained_weight(self, path, capsys):
        words = ["--defend_arg", "1", "--from_scratch", "--prune_epochs", "3"]
        run(prune_dp, path, *words)
        said = " ".join(capsys.readouterr().out.split())
        assert "the victim is (" in said and "this holds for the network" in said and "NO such" not in said
        folder = "l1unstructure_0.7_dp_1_scratch_model"
        assert manifest(folder)["parent"] == ""
        before = (MADE / folder / "best.pth").read_bytes()
        run(pretrain, path, "--lr", "0.01", "--fresh")
        run(mia, path, "--defend", "dp", "--defend_arg", "1", "--from_scratch", "--adaptive", "--attacks", "threshold")
        assert lines(folder)[0]["from_scratch"] is True
        run(prune_dp, path, *words, "--fresh")
        assert (MADE / folder / "best.pth").read_bytes() == before

    def test_all_planned_steps_count_where_it_stops_early(self, path):
        run(prune_dp, path, "--defend_arg", "2", "--early_stop", "1", "--prune_epochs", "40", "--batch_size", "16")
        said = manifest("l1unstructure_0.7_dp_2_model")
        assert said["ran"] < 40 and said["privacy"]["steps"] == 40 * 4 and said["privacy"]["sampling_rate"] == 16 / 54

    @pytest.mark.parametrize("engine", ENGINES)
    def test_interrupted_it_goes_on_with_the_same_noise(self, path, engine, monkeypatch):
        words = ["--defend_arg", "1", "--dp_engine", engine, "--prune_epochs", "5", "--save_every", "0"]
        run(prune_dp, path, *words)
        whole, ran, real = files(), [], BaseModel.accuracies

        def interrupted(self, *args):
            ran.append(1)
            if len(ran) == 4:
                raise KeyboardInterrupt
            return real(self, *args)

        with monkeypatch.context() as patched:
            patched.setattr(BaseModel, "accuracies", interrupted)
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
            run(prune_dp, path, "--defend_arg", noise, "--prune_epochs", "1", "--dp_lr", "1e-3", "--weight_decay", "0")
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

        assert Objective.is_stackable() and PosteriorBalancing.is_stackable() and not PrivateSGD.is_stackable()

    def test_the_same_command_gives_the_same_files(self, path):
        made = []
        for _ in range(2):
            run(prune_dp, path, "--defend_arg", "1", "--fresh")
            made.append(files())
            torch.rand(3)
        assert made[0] == made[1]

    @pytest.mark.parametrize("stage, words, said", [
        (prune_dp, ["--defend_arg", "0"], "the noise multiplier of dp, must be above 0, not 0"),
        (prune_dp, ["--defend_arg", "-1"], "--defend_arg must be a number of 0 or more"),
        (prune_dp, ["--delta", "0"], "--delta must be a number between 0 and 1"),
        (prune_dp, ["--defend_arg", "1e-200"], "no epsilon can be computed"),
        (prune_dp, ["--delta", "1"], "--delta must be a number between 0 and 1"),
        (prune_dp, ["--dp_engine", "opcaus"], "--dp_engine must be 'pyvacy' or 'opacus'"),
        (prune_dp, ["--dp_lr", "0"], "--dp_lr must be a number above 0"),
        (prune_dp, ["--max_grad_norm", "0"], "--max_grad_norm must be a number above 0"),
        (prune_dp, ["--defend", "ppb"], "prune_dp.py does not fine-tune with the defence 'ppb': run `python prune.py"),
        (prune, ["--defend", "dp"], "prune.py does not fine-tune with the defence 'dp': run `python prune_dp.py"),
        (mia, ["--from_scratch"], "name it with --defend dp"),
        (mia, ["--defend", "dp", "--defend_arg", "3"], "first run `python prune_dp.py"),
    ])
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
    defender = PrivateSGD(0.5, dp_engine="pyvacy", dp_lr=0.5, max_grad_norm=1.0)
    train, test = torch.arange(1200), torch.arange(1200, 1797)
    defender.setup(TrainSet(records, train, test), batch_size=128, generator=draw)
    model.train(TrainSet(records, train), TrainConfig(epochs=8), generator=draw, objective=defender)
    assert model.test(records, test) > 0.6


def test_privacy_is_stored_as_plain_json(write_config):
    path = write_config(epochs=2)
    run(pretrain, path)
    run(prune_dp, path, "--defend_arg", "0.3")
    said = json.loads((MADE / "l1unstructure_0.7_dp_0.3_model" / "manifest.json").read_text())["privacy"]
    assert said["prv"] is None and said["rdp"] > 0 and said["noise_multiplier"] == 0.3
