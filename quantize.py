"""Quantise the victim and its shadow models, or cluster their weights, and fine-tune them.

python quantize.py 0 config/cifar10_resnet18.json --quantizer int8
python quantize.py 0 config/cifar10_resnet18.json --quantizer int8 --pruned --prune_sparsity 0.7
python quantize.py 0 config/cifar10_resnet18.json --quantizer cluster16 --defend ppb --defend_arg 4
"""

import sys

from core import console
from bench.command_line import parse
from quantizer import QUANTIZERS


@console.stage
def main(argv=None):
    options = parse("quantize", argv, about=f"{__doc__}\nquantisers:\n{QUANTIZERS.help()}")

    from bench.checkpoints import check_place, load_checkpoint
    from bench.quantizing import QuantizedModels, of_parents
    from bench.run import begin
    from bench.training import TrainingPlan, train_roles

    run = begin(options)
    models = run.models()
    check_place(models)
    source = models.parent
    assert source is not None  # nothing is quantised from scratch
    parents = {role: load_checkpoint(source, role, split) for role, split in run.splits.items()}
    what = source.version or "original"
    console.say(f"loaded {len(parents)} {what} models from {models.root}")
    run = of_parents(run, parents)
    models = run.models()
    quantized = QuantizedModels(run, parents)
    train_roles(
        TrainingPlan(
            run=run,
            models=models,
            start=lambda role, _: quantized.model(role),
            epochs=run.options.quantize_epochs or 0,
            defend=run.options.defend,
            parents={role: parent.digest for role, parent in parents.items()},
            title=f"{models.version}: kept epoch and accuracy",
        )
    )


if __name__ == "__main__":
    sys.exit(main())
