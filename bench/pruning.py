"""The pruned models from which fine-tuning starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from base_model import BaseModel
from bench.checkpoints import Checkpoint
from bench.role_models import new_model, on_device, stored_model
from bench.rounds import Round, round_purpose
from bench.run import Run
from core.console import say
from core.devices import generator
from defenders import DEFENDERS
from pruner import PRUNERS
from pruner.context import Context
from pruner.mask import compute_masks, emptied


@dataclass(frozen=True)
class PrunedModels:
    """Models made of the originals, or of new ones where there are none.

    Attributes:
        originals: by role; {} = from scratch. Their weights are read when a model is made.
    """

    run: Run
    originals: Mapping[str, Checkpoint]

    def check_rewind(self) -> None:
        """Raise UserError where the weights to rewind to were not kept of each original."""
        rewind = self.run.options.rewind
        if rewind is not None:
            for original in self.originals.values():
                original.weights_after(rewind)

    def model(self, role: str, device: torch.device, one: Round) -> BaseModel:
        """A role's model with the masks of a round. Raises UserError where its original is
        damaged."""
        options, records = self.run.options, self.run.records
        stage = "-".join(["prune", *round_purpose(one.number)])
        if one.weights or self.originals:
            weights = dict(one.weights) or self.originals[role].weights()
            model = stored_model(options, records, role, stage, device, weights=weights)
        else:
            model = new_model(options, records, role, "scratch", device)
        masks = compute_masks(
            model.network,
            pruner=options.pruner_name,
            sparsity=sparsity_of(one.number, options.prune_iterations, options.prune_sparsity),
            context=self._context(role, device, one.number),
            within=one.masks,
        )
        if options.rewind is not None:
            model.network.load_state_dict(self.originals[role].weights_after(options.rewind))
        elif DEFENDERS[options.defend].options.get("new_weights") and not one.weights:
            student = new_model(options, records, role, "student", device)
            model.network.load_state_dict(student.network.state_dict())
        model.attach_masks(masks)
        return model

    def _context(self, role: str, device: torch.device, number: int) -> Context:
        """What a score may ask for: some of the role's own train records, and what it draws by.

        As many as a step's, or ten times the classes where these are more, drawn from all classes
        together. SNIP takes a minibatch, GraSP ten records of each class for CIFAR, Wanda 128
        sequences for language models and 4096 images.
        """
        options, records = self.run.options, on_device(self.run.records, device)
        purpose = [options.stage, role, "scores", *round_purpose(number)]
        draw = generator(options.train_seed, *purpose)
        if "data" not in PRUNERS[options.pruner_name].options.get("needs", ()):
            return Context(generator=draw)
        train = torch.from_numpy(self.run.splits[role].train)
        count = max(options.batch_size, 10 * records.num_cls)
        rows = train[torch.randperm(len(train), generator=draw)[:count]]
        x, y = records.batch(rows.to(device))
        return Context(x=x, y=y, generator=draw, batch_size=options.batch_size)


def sparsity_of(number: int, rounds: int, final: float) -> float:
    """The share that is pruned behind round `number` of so many: each leaves the same share of what
    the one before left, (1 - final)^(1 / rounds) (Frankle & Carbin, ICLR 2019, section 2)."""
    return final if number == rounds else 1 - (1 - final) ** (number / rounds)


def warn_of_emptied_layers(pruned: PrunedModels) -> None:
    """Name the layers of which pruning leaves nothing, and in which roles; that all can be read and
    pruned is known behind it, before any model is fine-tuned."""
    options = pruned.run.options
    roles_by_layer: dict[str, list[str]] = {}
    for role in pruned.run.splits:
        last = Round(options.prune_iterations)
        model = pruned.model(role, torch.device("cpu"), last)
        for layer in emptied(model.network, model.masks or {}):
            roles_by_layer.setdefault(layer, []).append(role)
    for layer, roles in roles_by_layer.items():
        say(
            f"warning: {options.pruner_name} at sparsity {options.prune_sparsity:g} leaves nothing "
            f"of layer {layer} in {', '.join(roles)}: try a smaller --prune_sparsity"
        )
