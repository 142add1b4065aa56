"""All that runs on a GPU, run on a second device that machines without one have too (see `second_device`): the same
values as on the CPU, nothing left behind on the other device, and no waiting in the loop over batches."""

import json
import sys
from collections import Counter
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from second_device import OnSecond, OtherDevice, second_device
from torch import nn

import attackers.neural
import attackers.qmia
import base_model
import bench.signals
import bench.training
import core.devices
import core.parallel
import defenders.adv
import defenders.dp
import mia
import models
import pretrain
import prune
import prune_dp
import training.objective as objective_module
import transformer
from attackers import ATTACKS, VERDICTS, Evidence, attack
from base_model import BaseModel, Callback, Objective, Stack, TrainConfig, TrainSet
from bench.signals import query, query_sensitivity
from core.devices import generator
from core.files import packed, unpack
from datasets import Records
from defenders import DEFENDERS
from models import layers
from pruner import mask

DP = {"dp_lr": 0.1, "max_grad_norm": 1.0, "dp_noise": "seeded", "key": bytes(16)}


@pytest.fixture
def torch_dropout(monkeypatch):
    """Dropout on the CPU from torch's generators and SAMIA on one thread, as on a GPU: so values can be compared."""
    monkeypatch.setattr(
        layers, "dropout_generator", lambda seed, device: torch.Generator(device).manual_seed(seed)
    )
    monkeypatch.setattr(transformer, "in_slices", lambda function, x, parameters, draw: function(x))


@pytest.fixture(autouse=True)
def short_attack_training(monkeypatch):
    for module in (attackers.neural, attackers.qmia):
        monkeypatch.setattr(module, "CONFIG", replace(module.CONFIG, epochs=2))


def plain(value):
    """Tensors as tensors of the CPU."""
    return value.cpu() if isinstance(value, torch.Tensor) else value


def some_records(device, *, n=70, shape=(6,)):
    draw = np.random.default_rng(0)
    x = draw.integers(2 if len(shape) == 1 else 256, size=(n, *shape)).astype(np.uint8)
    half = (0.5,) * 3 if len(shape) == 3 else None
    return Records(
        torch.from_numpy(x), torch.from_numpy(draw.integers(3, size=n)), 3, half, half
    ).to(device)


def small_convolutional(draw):
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(16, 3),
    )
    layers.initialise(network, draw)
    return network


def a_model(device, *, shape=(6,), number=0):
    draw = generator(7, "test", number)
    network = (
        small_convolutional(draw)
        if len(shape) == 3
        else models.build("columnfc", shape=shape, num_cls=3, generator=draw)
    )
    return BaseModel(network, device=device, generator=draw)


def numbers(device, *range_):
    return torch.arange(*range_, device=device)


def trained(
    device, *, defend="", engine="pyvacy", shape=(6,), batch_size=16, pruned=True, callbacks=()
):
    """Weights after a training with dev records."""
    records, model = some_records(device, shape=shape), a_model(device, shape=shape)
    if pruned:
        model.attach_masks(mask.compute_masks(model.network, pruner="l1unstructure", sparsity=0.5))
    data = TrainSet(records, numbers(device, 49), numbers(device, 49, 70))
    defender = DEFENDERS.load(defend)(0.5, **DP | {"dp_engine": engine} if defend == "dp" else {})
    order = generator(7, "order", device=device)
    defender.setup(data, batch_size=batch_size, generator=order)
    training = model.train(
        data,
        TrainConfig(epochs=2, batch_size=batch_size),
        generator=order,
        objective=defender,
        callbacks=callbacks,
    )
    return model.network.state_dict() | {"accuracy": torch.tensor(training.dev_accuracy)}


def stacked(device, *, defend="", batch_size=16):
    """Weights of two models that were trained as a stack."""
    records, pair = some_records(device), [a_model(device, number=number) for number in range(2)]
    for one in pair:
        one.attach_masks(mask.compute_masks(one.network, pruner="l1unstructure", sparsity=0.5))
    stack = Stack(pair)
    order = torch.stack([numbers(device, 70), numbers(device, 70).flip(0)])
    trainings = stack.train_each(
        TrainSet(records, order[:, :49], order[:, 49:]),
        TrainConfig(epochs=2, batch_size=batch_size),
        generators=[generator(7, "order", number, device=device) for number in range(2)],
        objective=DEFENDERS.load(defend)(0.5),
    )
    return {
        f"{number} {name}": weight
        for number, one in enumerate(pair)
        for name, weight in one.network.state_dict().items()
    } | {"accuracy": torch.tensor([training.dev_accuracy for training in trainings])}


def asked(device, *, shape=(6,)):
    """Answers of a model to an attacker's queries."""
    records, model = some_records(device, shape=shape), a_model(device, shape=shape)
    noise = generator(7, "noise", device=device)
    return {
        "logits": query(model, records, np.arange(9)),
        "accuracy": model.test(records, numbers(device, 9)),
        "sensitivity": query_sensitivity(model, records, np.arange(9), generator=noise),
    }


def attacked(device, *, name, batch_size=32):
    """Scores of an attack with a network of its own."""
    draw = np.random.default_rng(1)
    n, shadows = 150, 3
    member = draw.random((shadows, n)) < 0.5
    posteriors = draw.dirichlet(np.ones(3), size=(shadows + 1, n))
    evidence = Evidence.from_posteriors(
        draw.integers(3, size=n),
        victim=posteriors[0],
        shadows=posteriors[1:],
        member=member,
        target=np.arange(n) < 100,
        x=draw.random((n, 6)).astype(np.float32),
        sensitivity=(posteriors[0], posteriors[1:]),
    )
    module = attackers.qmia if name == "qmia" else attackers.neural
    with mock.patch.object(
        module, "CONFIG", replace(module.CONFIG, epochs=2, batch_size=batch_size)
    ):
        verdict = attack(name, evidence, device=torch.device(device), progress=silent)[name]
    return {
        "scores": torch.from_numpy(verdict.scores),
        "threshold": torch.tensor(verdict.threshold),
    }


def silent(epochs, label):
    return lambda *_: None, lambda: None


PATHS = {
    "train": trained,
    "train without masks": lambda device, **how: trained(device, pruned=False, **how),
    "train images": lambda device, **how: trained(device, shape=(3, 8, 8), **how),
    "ppb": lambda device, **how: trained(device, defend="ppb", **how),
    "adv": lambda device, **how: trained(device, defend="adv", **how),
    "dp pyvacy": lambda device, **how: trained(device, defend="dp", **how),
    "dp opacus": lambda device, **how: trained(device, defend="dp", engine="opacus", **how),
    "dp images": lambda device, **how: trained(
        device, defend="dp", engine="opacus", shape=(3, 8, 8), **how
    ),
    "stack": stacked,
    "stack ppb": lambda device, **how: stacked(device, defend="ppb", **how),
    "query": asked,
    "query images": lambda device: asked(device, shape=(3, 8, 8)),
    **{
        name: lambda device, name=name, **how: attacked(device, name=name, **how)
        for name in ("nn", "nn_top3", "nn_cls", "samia", "qmia")
    },
}


@pytest.mark.parametrize("path", PATHS)
def test_values_on_the_second_device_are_those_of_the_cpu(path, torch_dropout):
    expected = PATHS[path]("cpu")
    with second_device():
        found = {name: plain(value) for name, value in PATHS[path]("cuda").items()}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        # torch's attention without gradients adds up in an order of its own on the CPU
        tolerance = {"rtol": 1e-4, "atol": 1e-5} if path == "samia" else {"rtol": 0, "atol": 0}
        np.testing.assert_allclose(
            np.asarray(found[name]), np.asarray(value), **tolerance, err_msg=name
        )


class Interrupted(Exception):
    pass


class InMemory(Callback):
    """Stops the training once when it has a state, and puts it back there the next time."""

    def __init__(self):
        self.state = None

    def on_start(self, run):
        if self.state:
            run.set_state(unpack(self.state))

    def on_epoch(self, run):
        if self.state is None:
            self.state = packed(run.state())
            raise Interrupted


@pytest.mark.parametrize("path", ["train images", "ppb", "adv", "dp pyvacy", "dp opacus"])
def test_a_training_on_the_second_device_goes_on_where_it_stopped(path):
    resume = InMemory()
    with second_device():
        expected = PATHS[path]("cuda")
        with pytest.raises(Interrupted):
            PATHS[path]("cuda", callbacks=[resume])
        found = PATHS[path]("cuda", callbacks=[resume])
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def run(stage, *words):
    assert stage.main(["0", *words]) == 0


def test_all_stages_and_attacks_run_on_the_second_device(write_config, capsys):
    path = write_config(epochs=2, shadow_num=3, batch_size=32, save_every=0)
    with second_device():
        run(pretrain, path)
        run(prune, path)
        run(mia, path, "--attacks", "all")
        for engine, strength in (("pyvacy", "0.5"), ("opacus", "0.6")):
            run(prune_dp, path, "--defend", "dp", "--dp_engine", engine, "--defend_arg", strength)
        run(prune, path, "--defend", "adv")
        run(mia, path, "--defend", "adv", "--adaptive", "--attacks", "qmia,blindmi,samia")
    made = Path("results/tiny_columnfc")
    manifests = list(made.rglob("manifest.json"))
    assert len(manifests) == 4 * 5
    assert {json.loads(path.read_text())["made"]["device"] for path in manifests} == {"cuda:0"}
    lines = [
        json.loads(line)
        for path in made.rglob("attacks.jsonl")
        for line in path.read_text().splitlines()
    ]
    found = {VERDICTS[line["attack"]] for line in lines}
    assert found == {name for name in ATTACKS if "variant_of" not in ATTACKS[name].options}
    assert {line["device"] for line in lines} == {"cuda:0"}


class Forked(Exception):
    pass


@pytest.mark.parametrize("workers", [2, 1])
@pytest.mark.parametrize(
    "stage, words",
    [(pretrain, []), (prune, []), (prune_dp, ["--defend", "dp"]), (mia, ["--original"])],
)
def test_the_device_is_not_touched_before_processes_are_forked(
    stage, words, workers, write_config, monkeypatch
):
    """What has touched a GPU cannot be forked; without processes, stacks are planned by the device's memory."""
    path = write_config(epochs=1, shadow_num=1)
    if stage is not pretrain:
        assert pretrain.main(["cpu", path]) == 0

    def forks(*_, **__):
        raise Forked

    def touched(*_, **__):
        raise OtherDevice("the device has been touched")

    for module in (bench.training, bench.signals, core.parallel):
        monkeypatch.setattr(module, "parallel_map", forks)
    with second_device(), monkeypatch.context() as patch:
        patch.setattr(OnSecond, "__new__", touched)
        for name in (
            "device",
            "is_available",
            "is_bf16_supported",
            "get_device_properties",
            "synchronize",
        ):
            patch.setattr(torch.cuda, name, touched)
        with pytest.raises(OtherDevice if workers == 1 and stage is not mia else Forked):
            stage.main(["0", path, *words, "--workers", str(workers)])


def remade(where, name, change):
    """A mistake: where.name returns what `change` makes of its value."""
    right = getattr(where, name)
    return where, name, lambda *given, **how: change(right(*given, **how))


def before(where, name, change):
    """A mistake: where.name(self, *given) gets what `change` makes of each of what is given."""
    right = getattr(where, name)
    return where, name, lambda self, *given: right(self, *map(change, given))


def labels_on_the_cpu(records):
    object.__setattr__(records, "y", plain(records.y))
    return records


def added_on_the_cpu(optimizer):
    optimizer.device = torch.device("cpu")
    return optimizer


def generator_of_the_cpu(*purpose, device=None, right=core.devices.generator):
    return right(*purpose)


def numpys_dropout(seed, device):
    return np.random.SFC64(seed)


def immovable(network):
    network.to = lambda device: network
    return network


class Stuck(Records):
    def to(self, device):
        return self


HERE, NUMPY = sys.modules[__name__], (layers, "dropout_generator", numpys_dropout)
MISTAKES = [  # a path, and what is put in the place of what
    ("train", remade(Records, "to", labels_on_the_cpu)),
    ("train", (HERE, "generator", generator_of_the_cpu)),
    ("train images", (Records, "to", lambda records, device: records)),
    ("train images", NUMPY),
    (
        "train",
        (
            BaseModel,
            "_update_best",
            lambda self, better, before: {
                name: plain(weight) * 1 + weight
                for name, weight in self.network.state_dict().items()
            },
        ),
    ),
    (
        "train",
        (
            base_model,
            "attach_masks",
            lambda network, masks: [
                network.get_parameter(name).data.mul_(kept) for name, kept in masks.items()
            ],
        ),
    ),
    ("ppb", remade(torch.nn.functional, "cross_entropy", lambda loss: loss + torch.ones(1))),
    ("adv", remade(defenders.adv, "posterior_and_class", plain)),
    ("adv", remade(defenders.adv, "perceptron", immovable)),
    ("dp opacus", remade(defenders.dp.PrivateSGD, "noise", plain)),
    ("dp images", (defenders.dp, "_weight_mask", lambda parameter: torch.ones(parameter.shape))),
    ("dp pyvacy", remade(defenders.dp.PrivateSGD, "build_optimizer", added_on_the_cpu)),
    (
        "stack",
        (
            Stack,
            "_update_best",
            lambda self, better, before: {
                name: torch.where(
                    torch.ones(2, *[1] * (weight.dim() - 1), dtype=torch.bool),
                    weight,
                    before.get(name, weight),
                )
                for name, weight in self.network.state_dict().items()
            },
        ),
    ),
    ("stack", NUMPY),
    ("query", (HERE, "numbers", lambda device, *range_: torch.arange(*range_))),
    ("query", (HERE, "generator", generator_of_the_cpu)),
    ("query images", (Records, "to", lambda records, device: records)),
    *((name, NUMPY) for name in ("nn", "nn_top3", "nn_cls", "samia")),
    ("nn", (attackers.neural, "generator", generator_of_the_cpu)),
    ("samia", (Records, "to", lambda records, device: records)),
    ("qmia", before(attackers.qmia.GaussianHead, "__init__", plain)),
    ("qmia", (attackers.qmia, "generator", generator_of_the_cpu)),
]


@pytest.mark.parametrize(
    "path, mistake", MISTAKES, ids=[f"{path}: {mistake[1]}" for path, mistake in MISTAKES]
)
def test_a_mistake_is_seen(path, mistake, monkeypatch):
    monkeypatch.setattr(*mistake)
    with second_device(), pytest.raises(OtherDevice):
        PATHS[path]("cuda")


@pytest.mark.parametrize(
    "mistake",
    [
        None,
        (bench.signals, "on_device", lambda records, device: records),
        (bench.signals, "generator", generator_of_the_cpu),
        remade(bench.signals.blindmi, "generate", lambda made: Stuck(made.x, made.y, made.num_cls)),
    ],
)
def test_a_mistake_in_gathering_is_seen(mistake, write_config, monkeypatch):
    path = write_config(epochs=1, shadow_num=1)
    assert pretrain.main(["cpu", path]) == 0
    if mistake is not None:
        monkeypatch.setattr(*mistake)
    with second_device(), nullcontext() if mistake is None else pytest.raises(OtherDevice):
        run(mia, path, "--original", "--attacks", "blindmi,samia")


def waits_in_batches(path, **how):
    """What the host waited for, or copied, in the loops over batches of a path's trainings; and how many batches."""
    inside, count = [], 0

    def counted(right):
        def batches(self, *given):
            nonlocal count
            start = len(events)
            for batch in right(self, *given):
                count += 1
                yield batch
            inside.extend(events[start:])

        return batches

    with ExitStack() as patches:
        events = patches.enter_context(second_device())
        for kind in (Objective, defenders.dp.PrivateSGD):
            patches.enter_context(mock.patch.object(kind, "batches", counted(kind.batches)))
        PATHS[path]("cuda", **how)
    return Counter(inside), count


TRAINED = [path for path in PATHS if not path.startswith("query")]


@pytest.mark.parametrize("path", TRAINED)
def test_no_batch_makes_the_host_wait_for_the_device(path):
    waits, batches = waits_in_batches(path)
    assert batches > 4
    parameters, expected = 6, {}
    if path.startswith(
        "dp"
    ):  # the noise of each parameter and the Poisson sample come from the operating system
        expected["aten._to_copy to cuda:0"] = (parameters + 1) * batches
    if path == "dp pyvacy":  # it reads each gradient's norm
        expected["aten._local_scalar_dense"] = parameters * batches
    assert waits == expected


def torchs_likelihood(self, logits, y):
    mean, variance = self.predict(logits, y)
    return torch.nn.functional.gaussian_nll_loss(mean, self.values[y], variance)


@pytest.mark.parametrize(
    "path, mistake",
    [
        ("train", remade(Objective, "criterion", lambda loss: loss * (loss.item() > 0))),
        (
            "stack",
            remade(Records, "batch", lambda batch: tuple(part.cpu().cuda() for part in batch)),
        ),
        (
            "nn",
            remade(objective_module, "batches", lambda orders: (order.cpu() for order in orders)),
        ),
        ("qmia", (attackers.qmia.GaussianHead, "criterion", torchs_likelihood)),
    ],
)
def test_waiting_is_seen(path, mistake, monkeypatch):
    monkeypatch.setattr(*mistake)
    waits, batches = waits_in_batches(path)
    assert waits.total() >= batches


@pytest.mark.parametrize("what", ["logits", "sensitivity"])
def test_no_batch_of_queries_makes_the_host_wait(what):
    with second_device() as events:
        records, model, rows = some_records("cuda"), a_model("cuda"), numbers("cuda", 60)
        model._in_batches.size = 8
        how = {"generator": generator(7, "noise", device="cuda")} if what == "sensitivity" else {}
        start = len(events)
        assert len(getattr(model, what)(records, rows, **how)) == 60
        assert events[start:] == []
