"""Prune the victim and its shadow models and fine-tune them, with or without a defence.

python prune.py 0 config/cifar10_resnet18.json --pruner_name l1unstructure --prune_sparsity 0.7
python prune.py 0 config/cifar10_resnet18.json --defend ppb --defend_arg 4
"""

import sys

from core import console
from bench.options import parse


@console.stage
def main(argv=None):
    prune(parse("prune", argv, about=__doc__))


def prune(options) -> dict:
    """All of the stage; returns what differential privacy guarantees of each role, see `store.Checkpoint`."""
    import torch

    from bench.store import ORIGINAL, Store
    from bench.training import (
        TrainingPlan,
        load_device_and_data,
        new_model,
        stored_model,
        train_roles,
    )
    from pruner.mask import compute_masks, emptied

    device, records = load_device_and_data(options)
    store = Store(options, records.digest())
    parts = store.load_split(len(records))
    store.check_place(store.pruned)
    originals = {}
    if not options.from_scratch:
        originals = {
            role: store.load(role, ORIGINAL, part) for role, part in parts.items()
        }  # all, before any work
        console.say(f"loaded {len(originals)} original models from {store.root}")

    def pruned(role, device):
        if options.from_scratch:
            model = new_model(options, records, role, "scratch", device)
        else:
            model = stored_model(
                options, records, role, "prune", device, weights=originals[role].weights
            )
        model.attach_masks(
            compute_masks(
                model.network, pruner=options.pruner_name, sparsity=options.prune_sparsity
            )
        )
        return model

    empty = {}  # that all can be pruned is known before any is fine-tuned
    for role in parts:
        model = pruned(role, torch.device("cpu"))
        for layer in emptied(model.network, model.masks):
            empty.setdefault(layer, []).append(role)
    for layer, roles in empty.items():
        console.say(
            f"warning: {options.pruner_name} at sparsity {options.prune_sparsity:g} leaves nothing of layer "
            f"{layer} in {', '.join(roles)}: try a smaller --prune_sparsity"
        )

    return train_roles(
        TrainingPlan(
            store=store,
            version=store.pruned,
            device=device,
            records=records,
            splits=parts,
            start=lambda role: pruned(role, device),
            epochs=options.prune_epochs,
            defend=options.defend,
            parents={role: original.digest for role, original in originals.items()},
            title=f"{store.pruned}: kept epoch, accuracy, pruned share of what can be",
        )
    )


if __name__ == "__main__":
    sys.exit(main())
