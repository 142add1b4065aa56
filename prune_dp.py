"""Prune the victim and its shadow models and fine-tune them under differential privacy.

python prune_dp.py 0 config/location.json --defend dp --defend_arg 1.0
python prune_dp.py 0 config/location.json --defend dp --defend_arg 1.0 --from_scratch
"""

import sys

from core import console
from bench.command_line import parse
from prune import prune


@console.stage
def main(argv=None):
    options = parse("prune_dp", argv, about=__doc__)
    tell(options, prune(options))


def tell(options, privacy: dict) -> None:
    """What has been guaranteed of the victim, and what has not."""
    from defenders.accounting import caveat

    warning = caveat(privacy["victim"])
    if warning:
        console.say(
            f"\n{warning}: made with --dp_noise seeded, it can be made again by who knows the seed; were the "
            f"noise secret:"
        )
    tell_epsilon(
        "the victim" if options.from_scratch else "the victim's fine-tuning",
        privacy["victim"],
        warning,
    )
    if options.from_scratch:
        console.say(
            "it started from random weights and saw train records in private steps only: "
            + ("with secret noise this would hold" if warning else "this holds")
            + " for the network"
        )
    else:
        console.say(
            "but it started from weights that were trained on the same records without privacy: the network as "
            "a whole has NO such guarantee (--from_scratch makes one that has)"
        )
    losses = " and the losses in tensorboard/" if options.tensorboard else ""
    console.say(
        f"not covered: dev records, which choose the epoch that is kept; the train accuracy above and in the "
        f"manifest{losses}; your choice of options, the learning rate first of all, if you made it by looking "
        f"at results"
    )


def tell_epsilon(what: str, facts: dict, warning: str) -> None:
    """What follows from the steps taken; `facts` as a manifest has them."""
    from defenders.accounting import PYVACY_BELOW, Guarantee, rounded_up

    epsilon = rounded_up(facts["epsilon"])
    given = Guarantee(
        **{
            name: value
            for name, value in facts.items()
            if name not in ("epsilon", "noise", "warning")
        }
    )
    holds = (
        f"would be ({epsilon}, {given.delta:g})-differentially private ({warning})"
        if warning
        else f"is ({epsilon}, {given.delta:g})-differentially private"
    )
    prv = (
        "PRV left out, as it would change little or take too much memory"
        if given.prv is None
        else f"PRV {rounded_up(given.prv)}"
    )
    counts = given.noise_multiplier < PYVACY_BELOW and given.prv is None
    console.say(f"""
{what} {holds}: epsilon for adding or removing one train record
noise multiplier {given.noise_multiplier:g}, sampling rate {given.sampling_rate:.4f}, {given.steps} planned steps, \
whether it stopped early or not
epsilon by accountant, of which the smallest counts: pyvacy {rounded_up(given.pyvacy)}{"" if counts else " (not counted)"}, \
Opacus RDP {rounded_up(given.rdp)}, {prv}""")
    if facts["epsilon"] > 10:
        console.say("an epsilon above 10 is hardly any protection: take a larger --defend_arg")
    if given.n and given.delta >= 1 / given.n:
        console.say(
            f"--delta {given.delta:g} is not below 1/n, here 1/{given.n}: to publish a train record drawn at "
            f"random is differentially private in this sense too: take a smaller one"
        )


if __name__ == "__main__":
    sys.exit(main())
