"""The quantised models from which fine-tuning starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from base_model import BaseModel
from bench.checkpoints import Checkpoint
from bench.role_models import on_device, stored_model
from bench.run import Run
from quantizer import QUANTIZERS
from quantizer.attach import attach_quantizer


def of_parents(run: Run, parents: Mapping[str, Checkpoint]) -> Run:
    """The run, with options that say how the pruned models that it quantises were fine-tuned."""
    if not run.options.pruned:
        return run
    epochs = parents["victim"].options["prune_epochs"]
    return replace(run, options=replace(run.options, prune_epochs=epochs))


@dataclass(frozen=True)
class QuantizedModels:
    """Models made of the originals, or of pruned ones.

    Attributes:
        parents: by role. Their weights are read when a model is made.
    """

    run: Run
    parents: Mapping[str, Checkpoint]

    def model(self, role: str) -> BaseModel:
        """A role's model with the quantiser attached, and the masks of what it was pruned to.
        Raises UserError where its parent is damaged."""
        run, parent = self.run, self.parents[role]
        options = run.options
        model = stored_model(
            options, run.records, role, "quantize", run.device, weights=parent.weights()
        )
        masks = parent.masks()
        if masks:
            model.attach_masks(masks)
        attach_quantizer(model.network, options.quantizer, calibration=self._calibration(role))
        return model

    def _calibration(self, role: str) -> torch.Tensor | None:
        """What ranges of inputs are taken from: all train records of the role; None where they are
        not quantised."""
        run = self.run
        if not QUANTIZERS[run.options.quantizer].options["inputs"]:
            return None
        train = torch.from_numpy(run.splits[role].train).to(run.device)
        x, _ = on_device(run.records, run.device).batch(train)
        return x
