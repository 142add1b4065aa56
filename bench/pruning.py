"""The pruned models from which fine-tuning starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from base_model import BaseModel
from bench.checkpoints import Checkpoint
from bench.role_models import new_model, stored_model
from bench.run import Run
from core.console import say
from pruner.mask import compute_masks, emptied


@dataclass(frozen=True)
class PrunedModels:
    """Models made of the originals, or of new ones where there are none.

    Attributes:
        originals: by role; {} = from scratch. Their weights are read when a model is made.
    """

    run: Run
    originals: Mapping[str, Checkpoint]

    def model(self, role: str, device: torch.device) -> BaseModel:
        """A role's model with its masks. Raises UserError where its original is damaged."""
        options, records = self.run.options, self.run.records
        if self.originals:
            weights = self.originals[role].weights()
            model = stored_model(options, records, role, "prune", device, weights=weights)
        else:
            model = new_model(options, records, role, "scratch", device)
        masks = compute_masks(
            model.network, pruner=options.pruner_name, sparsity=options.prune_sparsity
        )
        model.attach_masks(masks)
        return model


def warn_of_emptied_layers(pruned: PrunedModels) -> None:
    """Name the layers of which pruning leaves nothing, and in which roles; that all can be read and
    pruned is known behind it, before any model is fine-tuned."""
    options = pruned.run.options
    roles_by_layer: dict[str, list[str]] = {}
    for role in pruned.run.splits:
        model = pruned.model(role, torch.device("cpu"))
        for layer in emptied(model.network, model.masks or {}):
            roles_by_layer.setdefault(layer, []).append(role)
    for layer, roles in roles_by_layer.items():
        say(
            f"warning: {options.pruner_name} at sparsity {options.prune_sparsity:g} leaves nothing "
            f"of layer {layer} in {', '.join(roles)}: try a smaller --prune_sparsity"
        )
