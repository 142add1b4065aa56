"""The model of a role, new or stored, with randomness of its own."""

from __future__ import annotations

from functools import lru_cache

import torch

import models
from base_model import BaseModel
from bench.options import Options
from core.devices import choose_precision, generator
from datasets import Records
from models import MODELS


@lru_cache(maxsize=1)
def on_device(records: Records, device: torch.device) -> Records:
    """The records on a device, copied once in each process that asks: a GPU must not be touched
    before a fork."""
    return records.to(device)


def new_model(
    options: Options, records: Records, role: str, stage: str, device: torch.device
) -> BaseModel:
    """A fresh model for a role; all of its randomness is its own."""
    draw = generator(options.train_seed, stage, role)
    network = models.build(
        options.model_name,
        shape=records.shape,
        num_cls=records.num_cls,
        generator=draw,
        norm=options.norm,
    )
    return BaseModel(network, device=device, generator=draw, precision=precision(options, device))


def precision(options: Options, device: torch.device) -> str:
    """What models of this network train in on this device; private gradients are float32 always."""
    if options.defend == "dp":
        return "fp32"
    convolves = "Conv2d" in MODELS[options.model_name].options["layers"]
    return choose_precision(options.precision, device, convolves=convolves)


def stored_model(
    options: Options,
    records: Records,
    role: str,
    stage: str,
    device: torch.device,
    *,
    weights: dict[str, torch.Tensor],
) -> BaseModel:
    """A model with these weights, and for this stage's randomness a new start."""
    model = new_model(options, records, role, stage, device)
    model.network.load_state_dict(weights)
    return model
