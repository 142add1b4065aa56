"""Train a victim and its shadow models.

python pretrain.py 0 config/cifar10_resnet18.json
"""

import sys

from core import console
from bench.options import parse


@console.stage
def main(argv=None):
    options = parse("pretrain", argv, about=__doc__)

    from bench.store import ORIGINAL, Store
    from bench.training import TrainingPlan, load_device_and_data, new_model, train_roles
    from datasets import split

    device, records = load_device_and_data(options)
    parts = split(
        len(records), seed=options.seed, shadow_num=options.shadow_num, kind=options.split
    )
    store = Store(options, records.digest())
    store.check_place(ORIGINAL)
    console.say(f"split: {store.save_split(parts)}")

    def start(role):
        return new_model(options, records, role, "pretrain", device)

    train_roles(
        TrainingPlan(
            store=store,
            version=ORIGINAL,
            device=device,
            records=records,
            splits=parts,
            start=start,
            epochs=options.epochs,
            title="original models: kept epoch and accuracy",
        )
    )


if __name__ == "__main__":
    sys.exit(main())
