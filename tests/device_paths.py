"""All that runs on a GPU, as functions of a device: trainings, stacks, queries, attack networks."""

from dataclasses import replace
from functools import partial
from unittest import mock

import numpy as np
import torch
from torch import nn

import attackers.neural
import attackers.qmia
import models
from attackers import Evidence, attack
from attackers.copies import UnitCube
from base_model import BaseModel, Context, Stack, TrainConfig, TrainSet
from bench.label_only import query_copies, query_distances
from bench.signals import query, query_sensitivity
from bench.views import query_views
from core.devices import generator
from datasets import Records
from defenders import DEFENDERS
from models import layers
from pruner import mask

DP = {"dp_lr": 0.1, "max_grad_norm": 1.0, "dp_noise": "seeded", "key": bytes(16)}


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


def trained(  # many parameters: each path varies one or two of them
    device,
    *,
    defend="",
    engine="pyvacy",
    shape=(6,),
    batch_size=16,
    pruned=True,
    augment=False,
    callbacks=(),
):
    """Weights after a training with dev records."""
    records, model = some_records(device, shape=shape), a_model(device, shape=shape)
    if pruned:
        model.attach_masks(mask.compute_masks(model.network, pruner="l1unstructure", sparsity=0.5))
    data = TrainSet(records, numbers(device, 49), numbers(device, 49, 70), augment)
    strength = {"selena": 5, "wemem_rsw": 1.0, "wemem_swmr": 0.0, "past": 1e-3}.get(defend, 0.5)
    defender = DEFENDERS.load(defend)(
        strength, **DP | {"dp_engine": engine} if defend == "dp" else {}
    )
    order = generator(7, "order", device=device)
    others = [a_model(device, shape=shape, number=number) for number in range(5)]
    defender.setup(
        Context(
            data,
            batch_size=batch_size,
            generator=order,
            original=partial(others[0].logits, records),
            original_network=others[0].network.eval,
            sub_models=lambda _: torch.stack([one.logits(records, data.train) for one in others]),
        )
    )
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
    noise, cube = generator(7, "noise", device=device), UnitCube(records)
    views = {"views": query_views(model, records, np.arange(9), count=18)} if shape[1:] else {}
    return views | {
        "logits": query(model, records, np.arange(9)),
        "accuracy": model.test(records, numbers(device, 9)),
        "sensitivity": query_sensitivity(model, records, np.arange(9), generator=noise),
        "copies": query_copies(model, cube, np.arange(9), seed=7),
        "distances": query_distances(
            model,
            cube,
            np.arange(40),
            generator=generator(7, "directions", device=device),
            budget=300,
        ),
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
    "train augmented images": lambda device, **how: trained(
        device, shape=(3, 8, 8), augment=True, **how
    ),
    "ppb": lambda device, **how: trained(device, defend="ppb", **how),
    "adv": lambda device, **how: trained(device, defend="adv", **how),
    "relaxloss": lambda device, **how: trained(device, defend="relaxloss", **how),
    "mixup_mmd": lambda device, **how: trained(device, defend="mixup_mmd", **how),
    **{
        name: lambda device, name=name, **how: trained(device, defend=name, **how)
        for name in ("past", "selena", "wemem_rsw", "wemem_swmr", "radd", "distill")
    },
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
