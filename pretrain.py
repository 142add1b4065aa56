"""Train a victim and its shadow models.

python pretrain.py 0 config/cifar10_resnet18.json
"""

import sys

from core import console
from bench.command_line import parse


@console.stage
def main(argv=None):
    options = parse("pretrain", argv, about=__doc__)

    from bench.checkpoints import check_place
    from bench.role_models import new_model
    from bench.run import begin_pretraining
    from bench.splits import save_split
    from bench.training import TrainingPlan, train_roles

    run = begin_pretraining(options)
    originals = run.models(original=True)
    check_place(originals)
    console.say(f"split: {save_split(originals, run.splits)}")
    train_roles(
        TrainingPlan(
            run=run,
            models=originals,
            start=lambda role, _: new_model(run.options, run.records, role, "pretrain", run.device),
            epochs=run.options.epochs,
            keep_epochs=run.options.keep_epochs,
            title="original models: kept epoch and accuracy",
        )
    )


if __name__ == "__main__":
    sys.exit(main())
