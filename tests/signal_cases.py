"""All that a model is asked for attacks, as `bench` asks it."""

import numpy as np
import pytest
import torch

import bench.distilling
from attackers import Signals
from base_model import BaseModel, TrainConfig
from bench.signals import query, query_sensitivity
from models import build

CPU = torch.device("cpu")


def sensitivities(model, records, mask, draw):
    """Of the records in the mask; NaN of all others."""
    values = np.full((len(records), 10), np.nan, np.float32)
    values[mask] = query_sensitivity(model, records, np.flatnonzero(mask), generator=draw)
    return values


def metrics_while_distilled(model, records, mask, draw):
    """Of the records in the mask, after each of eight epochs; NaN of all others."""
    own, known = np.flatnonzero(mask), np.flatnonzero(~mask)
    student = BaseModel(
        build("columnfc", shape=records.shape, num_cls=10, generator=draw),
        device=CPU,
        generator=draw,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench.distilling, "CONFIG", TrainConfig(epochs=8, batch_size=64))
        found = bench.distilling.distil(
            student,
            records,
            known=known,
            teacher=query(model, records, known),
            record_ids=own,
            generator=draw,
        )
    values = np.full((len(records), *found.shape[1:]), np.nan, np.float32)
    values[own] = found
    return values


def all_signals(model, records, record_ids, mask, draw):
    """Of the records of these numbers; all but logits of those in the mask alone."""
    sensitivity = sensitivities(model, records, mask, draw)
    distillation = metrics_while_distilled(model, records, mask, draw)
    return Signals(
        query(model, records, record_ids),
        sensitivity[record_ids],
        distillation=distillation[record_ids],
    )
