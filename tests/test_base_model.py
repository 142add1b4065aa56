"""Training, testing and querying a network, against closed forms and brute force."""

import math
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from base_model import BaseModel, Callback, Objective, Progress, TrainConfig, TrainSet
from core.console import UserError
from core.devices import choose_device, choose_precision, generator
from datasets import Records, batches
from models import queries
from training.config import CosineConfig

CPU = torch.device("cpu")


def model_of(network):
    return BaseModel(network, device=CPU, generator=torch.Generator().manual_seed(0))


def linear_records(n=6, columns=4, num_cls=3):
    draw = torch.Generator().manual_seed(5)
    return Records(
        x=torch.randn(n, columns, generator=draw), y=torch.arange(n) % num_cls, num_cls=num_cls
    )


def test_sensitivity_of_a_linear_softmax_equals_its_closed_form():
    """For small noise |p(x + eps u) - p(x)| / eps = |J u|, and J u ~ N(0, J J^T): its mean is sqrt(2 / pi) |J_c|."""
    records = linear_records()
    model = model_of(nn.Linear(4, 3))
    draws = 20_000
    found = model.sensitivity(
        records, torch.arange(6), generator=torch.Generator().manual_seed(1), draws=draws
    )
    weight = model.network.weight.detach().double()
    p = torch.softmax(model.logits(records, torch.arange(6)).double(), dim=1)
    jacobian = (torch.diag_embed(p) - p[:, :, None] * p[:, None, :]) @ weight  # (n, C, D)
    spread = jacobian.norm(dim=2)
    assert torch.allclose(
        found.double(), math.sqrt(2 / math.pi) * spread, rtol=0, atol=6 * spread.max() / draws**0.5
    )
    assert found.dtype == torch.float32


def test_sensitivity_is_zero_where_the_answer_never_changes_and_counts_draws():
    records = linear_records()
    model = model_of(nn.Linear(4, 3))
    nn.init.zeros_(model.network.weight)
    assert model.sensitivity(records, torch.arange(6), generator=torch.Generator()).eq(0).all()
    calls = []
    model.network.register_forward_hook(lambda *_: calls.append(1))
    model.sensitivity(records, torch.arange(6), generator=torch.Generator())
    assert len(calls) == 1 + 10


def test_queries_are_in_evaluation_mode_and_leave_batchnorm_alone():
    model = model_of(nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3)))
    records = linear_records()
    model.network.train()
    first = model.logits(records, torch.arange(6))
    model.sensitivity(records, torch.arange(6), generator=torch.Generator())
    assert torch.equal(first, model.logits(records, torch.arange(6)))
    assert model.network[0].running_mean.eq(0).all()


def test_accuracy_worked_by_hand(monkeypatch):
    monkeypatch.setattr(queries, "QUERY_BATCH", 2)  # more than one part
    records = Records(
        x=torch.tensor([[1.0, 0], [0, 1], [2, 1], [0, 3]]), y=torch.tensor([0, 0, 0, 1]), num_cls=2
    )
    assert model_of(Answers()).test(records, torch.arange(4)) == 0.75
    assert model_of(Answers()).test(records, torch.tensor([1, 2, 0])) == pytest.approx(2 / 3)


class Answers(nn.Module):
    """Hands its input on as logits."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return x


@pytest.mark.parametrize(
    "n, size, expected",
    [(10, 4, [4, 4, 2]), (9, 4, [4, 5]), (8, 4, [4, 4]), (3, 4, [3]), (1, 4, [1]), (5, 4, [5])],
)
def test_batches_cover_an_epoch_and_leave_no_single_record(n, size, expected):
    indices = torch.arange(100, 100 + n)
    parts = list(batches(indices, size, torch.Generator().manual_seed(0)))
    assert [len(part) for part in parts] == expected
    assert sorted(torch.cat(parts).tolist()) == indices.tolist()
    if n == 10:
        assert torch.cat(parts).tolist() != indices.tolist()


class Scripted(BaseModel):
    """Says a given accuracy after each epoch."""

    def __init__(self, accuracies):
        super().__init__(nn.Linear(4, 3), device=CPU, generator=torch.Generator())
        self.script = iter(accuracies)
        self.seen = []

    def accuracies(self, records, indices):
        self.seen.append(self.network.weight.detach().clone())
        return [next(self.script)]


@pytest.mark.parametrize(
    "early_stop, accuracies, best, ran",
    [
        (
            2,
            [0.5, 0.6, 0.6, 0.4, 0.5, 0.9, 0.9],
            2,
            5,
        ),  # three epochs without a better one are more than two
        (2, [0.5, 0.6, 0.6, 0.4, 0.7, 0.1, 0.1], 5, 7),
        (0, [0.5, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1], 1, 7),  # 0 = never
        (5, [0.0] * 7, 1, 7),  # even an accuracy of 0 is better than none
    ],
)
def test_the_best_epoch_is_kept_and_training_stops_early(early_stop, accuracies, best, ran):
    model = Scripted(accuracies)
    training = model.train(
        TrainSet(linear_records(), torch.arange(4), torch.tensor([4, 5])),
        TrainConfig(epochs=7, early_stop=early_stop, lr=0.1),
        generator=torch.Generator(),
    )
    assert (training.best_epoch, len(training.dev_accuracy)) == (best, ran)
    assert training.best_accuracy == accuracies[best - 1]
    assert torch.equal(model.network.weight, model.seen[best - 1])


def test_without_dev_the_last_epoch_is_kept_and_lr_falls_at_milestones():
    model = model_of(nn.Linear(4, 3))
    with torch.no_grad():
        model.network.weight.zero_(), model.network.bias.zero_()
    records = Records(x=torch.eye(4)[:2], y=torch.tensor([0, 1]), num_cls=3)
    biases = []
    model.train(
        TrainSet(records, torch.tensor([0])),
        TrainConfig(epochs=3, optimizer="sgd", lr=1.0, weight_decay=0, milestones=(1, 2)),
        generator=torch.Generator(),
        callbacks=[Progress(lambda *_: biases.append(model.network.bias.detach().clone()))],
    )
    # by hand: the gradient of the bias is p - onehot, momentum .9, lr 1, .1, .01
    bias, weight, moment, moment_w = np.zeros(3), np.zeros(3), np.zeros(3), np.zeros(3)
    for lr, seen in zip((1.0, 0.1, 0.01), biases):
        z = bias + weight  # the one record is the first unit vector, so its logits are these
        p = np.exp(z) / np.exp(z).sum()
        moment, moment_w = 0.9 * moment + p - [1, 0, 0], 0.9 * moment_w + p - [1, 0, 0]
        bias, weight = bias - lr * moment, weight - lr * moment_w
        assert seen.numpy() == pytest.approx(bias, abs=1e-5)
    assert torch.equal(model.network.bias, biases[-1])


def test_a_cosine_takes_the_learning_rate_to_zero():
    model = model_of(nn.Linear(4, 3))
    seen = []

    class Watch(Callback):
        def on_epoch(self, run):
            seen.append(run.schedule.get_last_lr()[0])

    model.train(
        TrainSet(Records(x=torch.eye(4), y=torch.arange(4) % 3, num_cls=3), torch.arange(4)),
        CosineConfig(epochs=6, optimizer="sgd", lr=0.8),
        generator=torch.Generator(),
        callbacks=[Watch()],
    )
    # lr (1 + cos(pi t / 6)) / 2: cosines of 30, 60, 90, 120, 150 and 180 degrees
    root = np.sqrt(3) / 2
    assert seen == pytest.approx([0.4 * (1 + c) for c in (root, 0.5, 0, -0.5, -root, -1)])


def test_adam_step_worked_by_hand():
    model = model_of(nn.Linear(1, 2, bias=False))
    with torch.no_grad():
        model.network.weight.copy_(torch.tensor([[0.3], [-0.2]]))
    records = Records(x=torch.tensor([[2.0]]), y=torch.tensor([0]), num_cls=2)
    model.train(
        TrainSet(records, torch.tensor([0])),
        TrainConfig(epochs=1, lr=0.01, weight_decay=0.5),
        generator=torch.Generator(),
    )
    # Adam's first step is lr * g / (|g| + eps), the gradient with the decay in it
    p = math.exp(0.6) / (math.exp(0.6) + math.exp(-0.4))
    gradients = [2 * (p - 1) + 0.5 * 0.3, 2 * (1 - p) - 0.5 * 0.2]
    expected = [
        0.3 - 0.01 * math.copysign(1, gradients[0]),
        -0.2 - 0.01 * math.copysign(1, gradients[1]),
    ]
    assert model.network.weight.flatten().tolist() == pytest.approx(expected, abs=1e-6)


def test_a_loss_that_is_not_finite_stops_the_training():
    records = Records(x=torch.full((4, 4), 1e30), y=torch.arange(4) % 3, num_cls=3)
    with pytest.raises(UserError, match="no longer finite in epoch .*learning rate"):
        model_of(nn.Linear(4, 3)).train(
            TrainSet(records, torch.arange(4)),
            TrainConfig(epochs=9, optimizer="sgd", lr=1e30),
            generator=torch.Generator(),
        )


def test_training_is_the_same_to_the_last_digit_and_draws_nothing_from_the_global_generator():
    def weights():
        network = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 3))
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.fill_(0.1)
        model = model_of(network)
        before = torch.get_rng_state()
        model.train(
            TrainSet(linear_records(), torch.arange(6), torch.arange(6)),
            TrainConfig(epochs=5, batch_size=2),
            generator=generator(3, "a"),
        )
        assert torch.equal(before, torch.get_rng_state())
        torch.rand(3)  # the global generator moves on; nothing else may
        return torch.cat([parameter.detach().flatten() for parameter in model.network.parameters()])

    assert torch.equal(weights(), weights())


def test_generators_differ_by_every_word_of_their_purpose():
    draws = {
        purpose: torch.randint(2**62, (), generator=generator(*purpose)).item()
        for purpose in [
            (7, "pretrain", "shadow_1"),
            (7, "pretrain", "shadow_11"),
            (8, "pretrain", "shadow_1"),
            (7, "prune", "shadow_1"),
            (7, "pretrain", "shadow_1", "order"),
        ]
    }
    assert len(set(draws.values())) == len(draws)
    assert (
        draws[7, "prune", "shadow_1"]
        == torch.randint(2**62, (), generator=generator(7, "prune", "shadow_1")).item()
    )


@pytest.mark.parametrize(
    "gpus, name, expected",
    [
        (0, "cpu", "cpu"),
        (0, "0", "cpu"),
        (0, "cuda", "cpu"),
        (0, "cuda:0", "cpu"),
        (0, "1", None),
        (0, "cuda:1", None),
        (2, "0", "cuda:0"),
        (2, "1", "cuda:1"),
        (2, "cuda:1", "cuda:1"),
        (2, "cpu", "cpu"),
        (2, "2", None),
    ],
)
def test_device_by_name(monkeypatch, capsys, gpus, name, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    if expected is None:
        with pytest.raises(UserError, match="does not exist"):
            choose_device(name)
    else:
        assert choose_device(name) == torch.device(expected)
        assert ("running on the CPU" in capsys.readouterr().out) == (gpus == 0 and name != "cpu")


class Types(nn.Module):
    """Notes the type of what its layer says."""

    def __init__(self):
        super().__init__()
        self.layer, self.seen = nn.Linear(4, 3), []

    def forward(self, x):
        out = self.layer(x)
        self.seen.append((self.training, out.dtype))
        return out


@pytest.mark.parametrize("precision, expected", [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_precision_is_for_training_and_queries_are_float32(precision, expected):
    model = BaseModel(
        Types(), device=CPU, generator=torch.Generator().manual_seed(0), precision=precision
    )
    records, rows = linear_records(), torch.arange(6)
    model.train(TrainSet(records, rows, rows), TrainConfig(epochs=1), generator=torch.Generator())
    model.sensitivity(records, rows, generator=torch.Generator())
    assert set(model.network.seen) == {(True, expected), (False, torch.float32)}
    assert model.network.layer.weight.dtype == torch.float32


@pytest.mark.parametrize(
    "asked, device, convolves, capable, expected",
    [
        (None, "cpu", True, True, "fp32"),
        (None, "cuda", True, True, "bf16"),
        (None, "cuda", True, False, "fp32"),
        (None, "cuda", False, True, "fp32"),
        ("bf16", "cpu", False, False, "bf16"),
        ("fp32", "cuda", True, True, "fp32"),
    ],
)
def test_bfloat16_is_the_default_for_convolutions_where_the_gpu_has_it(
    monkeypatch, asked, device, convolves, capable, expected
):
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation: capable or including_emulation
    )
    assert choose_precision(asked, torch.device(device), convolves=convolves) == expected


@pytest.mark.parametrize(
    "memory, expected", [(2**34, 2**10), (2**34 - 1, 2**9), (1, 2**6), (2**60, 2**14)]
)
def test_queries_on_a_gpu_fill_a_quarter_of_its_memory(monkeypatch, memory, expected):
    """A batch of 64 that takes 256 MiB: 4 MiB a record."""
    held = iter([100])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: next(held))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 100 + 64 * 2**22)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=memory)
    )
    model = model_of(nn.Linear(4, 3))
    assert model._in_batches.batch_size(linear_records()) == queries.QUERY_BATCH
    assert queries.fitting_batch(model.network, linear_records(), CPU) == expected


OUTSIDE_TRAINING = (
    *("criterion", "privacy", "release", "setup_release", "is_releasing", "keeps_class"),
)
HOOKS = [name for name in vars(Objective) if not name.startswith("_")]


@pytest.mark.parametrize("hook", HOOKS)
def test_an_objective_with_any_hook_but_the_criterion_is_not_stacked(hook):
    changed = type("Changed", (Objective,), {hook: lambda self, *args, **how: None})
    if hook != "is_stackable":
        assert changed.is_stackable() == (hook in OUTSIDE_TRAINING)
    assert Objective.is_stackable() and len(HOOKS) > 8
