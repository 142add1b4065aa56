"""Mistakes of code for a GPU are seen on the second device, and so is waiting inside a loop."""

from collections import Counter
from contextlib import ExitStack, nullcontext
from unittest import mock

import device_paths
import numpy as np
import pytest
import torch
from device_paths import PATHS, a_model, numbers, plain, some_records
from second_device import OtherDevice, second_device

import attackers.learning
import attackers.qmia
import base_model
import bench.signals
import bench.training
import core.devices
import core.parallel
import defenders.adv
import defenders.dp
import mia
import pretrain
import training.objective as objective_module
from base_model import BaseModel, Objective, Stack
from core.devices import generator
from datasets import Records
from models import layers

pytestmark = pytest.mark.usefixtures("short_attack_training")


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


NUMPY = (layers, "dropout_generator", numpys_dropout)

MISTAKES = [  # a path, and what is put in the place of what
    ("train", remade(Records, "to", labels_on_the_cpu)),
    ("train", (device_paths, "generator", generator_of_the_cpu)),
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
    ("dp images", remade(defenders.dp, "_layer_squares", plain)),
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
    ("query", (device_paths, "numbers", lambda device, *range_: torch.arange(*range_))),
    ("query", (device_paths, "generator", generator_of_the_cpu)),
    ("query images", (Records, "to", lambda records, device: records)),
    *((name, NUMPY) for name in ("nn", "nn_top3", "nn_cls", "samia")),
    ("nn", (attackers.learning, "generator", generator_of_the_cpu)),
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
        assert mia.main(["0", path, "--original", "--attacks", "blindmi,samia"]) == 0


def waits_in_batches(path, **how):
    """What the host waited for, or copied, in the loops over batches of a path's trainings; and
    how many batches there were."""
    inside, count = [], 0

    def counted(right):
        def batches(self, *given, **more):
            nonlocal count
            start = len(events)
            for batch in right(self, *given, **more):
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
        ("qmia", (attackers.qmia.GaussianHead, "negative_log_likelihood", torchs_likelihood)),
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
