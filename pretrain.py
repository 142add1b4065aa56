"""Train a victim and its shadow models.

    python pretrain.py 0 config/cifar10_resnet18.json
"""
import sys

from core import console
from options import parse


@console.stage
def main(argv=None):
    options = parse("pretrain", argv, about=__doc__)

    from datasets import split
    from roles import Start, new_model, prepare, train_all
    from store import ORIGINAL, Store

    device, records = prepare(options)
    parts = split(len(records), seed=options.seed, shadow_num=options.shadow_num, kind=options.split)
    store = Store(options, records.digest())
    store.check_place(ORIGINAL)
    console.say(f"split: {store.save_split(parts)}")

    def start(role):
        return Start(new_model(options, records, role, "pretrain", device))

    train_all(start, device, records, parts, store=store, version=ORIGINAL, epochs=options.epochs,
              title="original models: kept epoch and accuracy")


if __name__ == "__main__":
    sys.exit(main())
