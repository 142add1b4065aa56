"""Queries for images in several views."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from attackers import ATTACKS
from base_model import BaseModel
from bench.options import Options
from core.console import UserError
from datasets import Records
from models.views import seen, view_list


def check_images(options: Options, shape: tuple[int, ...]) -> None:
    """Raise UserError where options flip or shift records of this shape that are no images, or that
    are too small for it."""
    named = "--augment" if options.augment else f"--queries {options.queries}"
    if len(shape) != 3:
        if options.augment or options.queries > 1:
            raise UserError(
                f"{named} flips and shifts images, the records are tables of {shape[0]} columns: "
                f"leave it out"
            )
    elif (most := view_list(options.queries)[-1].up) >= min(shape[1:]):
        raise UserError(
            f"--queries {options.queries} shifts images by up to {most} pixels, those of "
            f"{shape[1]}x{shape[2]} are too small for that: ask for fewer"
        )


def takes_views(attack: str) -> bool:
    """Whether an attack uses more than one query a record."""
    return attack in ATTACKS and "queries" in ATTACKS[attack].options.get("option_names", ())


def query_views(
    model: BaseModel, records: Records, record_ids: np.ndarray, *, count: int
) -> np.ndarray:
    """A model's logits (count - 1, n, C) for the images of these numbers, in all of so many views
    but the first, which is the image itself."""
    ids = torch.from_numpy(record_ids).to(records.y.device)
    chosen, everyone = replace(records, x=records.x[ids], y=records.y[ids]), torch.arange(len(ids))
    everyone = everyone.to(ids.device)
    each = (replace(chosen, x=seen(chosen.x, view)) for view in view_list(count)[1:])
    return np.stack([model.logits(one, everyone).cpu().numpy() for one in each])
