"""Prune the victim and its shadow models and fine-tune them, with or without a defence.

python prune.py 0 config/cifar10_resnet18.json --pruner_name l1unstructure --prune_sparsity 0.7
python prune.py 0 config/cifar10_resnet18.json --defend ppb --defend_arg 4
"""

import sys

from core import console
from bench.command_line import parse


@console.stage
def main(argv=None):
    prune(parse("prune", argv, about=__doc__))


def prune(options) -> dict:
    """All of the stage; returns what differential privacy guarantees of each role, see
    `Checkpoint`."""
    from bench.canaries import with_canaries
    from bench.checkpoints import check_place, load_checkpoint
    from bench.pruning import PrunedModels, warn_of_emptied_layers
    from bench.run import begin
    from bench.training import TrainingPlan, train_roles

    run, canaries = with_canaries(begin(options))
    models, originals = run.models(), {}
    check_place(models)
    if not options.from_scratch:  # all, before any work
        originals = {
            role: load_checkpoint(models.originals, role, split)
            for role, split in run.splits.items()
        }
        console.say(f"loaded {len(originals)} original models from {models.root}")
    pruned = PrunedModels(run, originals)
    pruned.check_rewind()
    warn_of_emptied_layers(pruned)
    return train_roles(
        TrainingPlan(
            run=run,
            models=models,
            start=lambda role, one: pruned.model(role, run.device, one),
            epochs=run.options.prune_epochs,
            rounds=run.options.prune_iterations,
            defend=run.options.defend,
            parents={role: original.digest for role, original in originals.items()},
            canaries=canaries,
            title=f"{models.version}: kept epoch, accuracy, pruned share of what can be"
            + (f"\n{canaries}" if canaries else ""),
        )
    )


if __name__ == "__main__":
    sys.exit(main())
