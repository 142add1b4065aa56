"""Prune the victim and its shadow models and fine-tune them under differential privacy.

    python prune_dp.py 0 config/location.json --defend dp --defend_arg 1.0
    python prune_dp.py 0 config/location.json --defend dp --defend_arg 1.0 --from_scratch
"""
import math
import sys

from core import console
from options import parse
from prune import prune


@console.stage
def main(argv=None):
    options = parse("prune_dp", argv, about=__doc__)
    tell(options, prune(options))


def tell(options, privacy: dict) -> None:
    """What has been guaranteed, and what has not."""
    from defenders.accounting import PRV_FROM, Guarantee

    facts = dict(privacy["victim"])
    epsilon = math.ceil(100 * facts.pop("epsilon")) / 100  # rounded up: less is not proven
    given = Guarantee(**facts)
    what = "the victim" if options.from_scratch else "the victim's fine-tuning"
    prv = "PRV left out, as it takes tens of GB here" if given.prv is None else f"PRV {given.prv:.2f}"
    used = "" if given.noise_multiplier < PRV_FROM else " (not counted: with much noise it is too low)"
    console.say(f"""
{what} is ({epsilon:.2f}, {given.delta:g})-differentially private: epsilon for adding or removing one train record
noise multiplier {given.noise_multiplier:g}, sampling rate {given.sampling_rate:.4f}, {given.steps} planned steps, \
whether it stopped early or not
epsilon by accountant, of which the smallest counts: pyvacy {given.pyvacy:.2f}{used}, Opacus RDP {given.rdp:.2f}, {prv}""")
    if epsilon > 10:
        console.say("an epsilon above 10 is hardly any protection: take a larger --defend_arg")
    if options.from_scratch:
        console.say("it started from random weights and saw train records in private steps only: this holds for the "
                    "network")
    else:
        console.say("but it started from weights that were trained on the same records without privacy: the network as "
                    "a whole has NO such guarantee (--from_scratch makes one that has)")
    console.say(f"the noise follows from --train_seed, here {options.train_seed}: for a model that is published take a "
                f"seed that nobody knows, and another one for each model")
    losses = " and the losses in tensorboard/" if options.tensorboard else ""
    console.say(f"not covered: dev records, which choose the epoch that is kept; the train accuracy above and in the "
                f"manifest{losses}; your choice of options, the learning rate first of all, if you made it by looking "
                f"at results")


if __name__ == "__main__":
    sys.exit(main())
