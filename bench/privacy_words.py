"""What prune_dp.py says of the guarantee."""

from __future__ import annotations

from bench.checkpoints import Checkpoint
from bench.layout import ModelSet
from bench.options import Options
from core.console import say
from defenders.accounting import PYVACY_BELOW, Guarantee, caveat, rounded_up


def remarks(checkpoint: Checkpoint) -> str:
    """What must stand above a table of attacks on a model; "" where nothing must."""
    canaries = checkpoint.options.get("canaries", 0)
    about = f"trained on about half of {canaries} canaries too" if canaries else ""
    return "; ".join(filter(None, [caveat(checkpoint.privacy), about]))


def say_guarantee(options: Options, privacy: dict) -> None:
    """Say what has been guaranteed of the victim, and what has not; `privacy` as its manifest has
    it."""
    warning = caveat(privacy)
    if warning:
        say(
            f"\n{warning}: made with --dp_noise seeded, it can be made again by who knows the seed; "
            f"were the noise secret:"
        )
    _say_epsilon(
        "the victim" if options.from_scratch else "the victim's fine-tuning", privacy, warning
    )
    if options.from_scratch:
        say(
            "it started from random weights and saw train records in private steps only: "
            + ("with secret noise this would hold" if warning else "this holds")
            + " for the network"
        )
    else:
        say(
            "but it started from weights that were trained on the same records without privacy: the "
            "network as a whole has NO such guarantee (--from_scratch makes one that has)"
        )
    if options.canaries:
        say(
            f"n, and so epsilon, counts half of the canaries, however their coins fell; to hold it "
            f"against them run `python audit.py canaries {ModelSet(options).folder('victim')}`"
        )
    losses = " and the losses in tensorboard/" if options.tensorboard else ""
    say(
        f"not covered: dev records, which choose the epoch that is kept; the train accuracy above "
        f"and in the manifest{losses}; your choice of options, the learning rate first of all, if "
        f"you made it by looking at results"
    )


def _say_epsilon(what: str, facts: dict, warning: str) -> None:
    """Say what follows from the steps taken."""
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
    pyvacy = f"pyvacy {rounded_up(given.pyvacy)}{'' if counts else ' (not counted)'}"
    say(
        f"\n{what} {holds}: epsilon for adding or removing one train record\n"
        f"noise multiplier {given.noise_multiplier:g}, sampling rate {given.sampling_rate:.4f}, "
        f"{given.steps} planned steps, whether it stopped early or not\n"
        f"epsilon by accountant, of which the smallest counts: {pyvacy}, "
        f"Opacus RDP {rounded_up(given.rdp)}, {prv}"
    )
    if facts["epsilon"] > 10:
        say("an epsilon above 10 is hardly any protection: take a larger --defend_arg")
    if given.n and given.delta >= 1 / given.n:
        say(
            f"--delta {given.delta:g} is not below 1/n, here 1/{given.n}: to publish a train record "
            f"drawn at random is differentially private in this sense too: take a smaller one"
        )
