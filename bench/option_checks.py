"""Which options contradict each other, or what cannot be done."""

from __future__ import annotations

import math

from bench.configs import command, stage_of
from bench.guesses import GUESSES
from bench.layout import ModelSet
from bench.options import OPTIONS, Options
from bench.releases import check_shadows, release_options
from core.console import UserError
from datasets import check_even, check_share
from defenders import DEFENDERS
from models import kinds_of_layers
from pruner import PRUNERS, check_sparsity
from quantizer import QUANTIZERS


def check_together(options: Options) -> None:
    """Raise UserError where options contradict each other."""
    kinds_of_layers(options.model_name, options.norm)
    compresses = options.stage in OPTIONS["pruner_name"].stages
    if compresses and ModelSet.under_attack(options).is_pruned:
        _check_pruner(options)
    if options.quantizer or options.stage == "quantize":
        _check_quantizer(options)
    maker = stage_of(options.defend)
    if options.stage in ("prune", "prune_dp") and options.stage != maker:
        raise UserError(
            f"{options.stage}.py does not fine-tune with the defence {options.defend!r}: run "
            f"`{command(maker, options)}`"
        )
    if options.defend == "dp" and not (options.defend_arg or 0) > 0:
        raise UserError(
            f"--defend_arg, the noise multiplier of dp, must be above 0, not {options.defend_arg:g}"
        )
    _check_strength(options)
    if options.from_scratch:
        _check_from_scratch(options)
    if options.stage == "pretrain":
        check_share(options.split, options.attacker_records)
        if options.split == "inout":
            check_even(options.shadow_num)
    if options.stage == "mia":
        _check_attacker(options)
    elif options.tensorboard:
        _check_tensorboard()


def _check_strength(options: Options) -> None:
    allowed, strength = DEFENDERS[options.defend].options, options.defend_arg or 0.0
    low, high = allowed.get("strengths", (0, math.inf))
    counts = allowed.get("whole", False)
    if not low <= strength <= high or (counts and strength != int(strength)):
        raise UserError(
            f"--defend_arg, the strength of {options.defend}, must be "
            f"{'a whole number ' * counts}from {low:g} to {high:g}, not {strength:g}"
        )


def _check_pruner(options: Options) -> None:
    needs = PRUNERS[options.pruner_name].options["layer"]
    kinds = kinds_of_layers(options.model_name, options.norm)
    if needs not in kinds:
        fits = [name for name in PRUNERS if PRUNERS[name].options["layer"] in kinds]
        network = options.model_name + (" with --norm group" if options.norm == "group" else "")
        raise UserError(
            f"{options.pruner_name} prunes {needs} layers, of which {network} has none: "
            f"use --pruner_name {' or '.join(fits)}"
        )

    check_sparsity(options.pruner_name, options.prune_sparsity)
    uses_data = "data" in PRUNERS[options.pruner_name].options.get("needs", ())
    if uses_data and options.defend == "dp":
        raise UserError(
            f"{options.pruner_name} looks at train records, which no differential privacy protects "
            f"then: use another --pruner_name with --defend dp"
        )


def _check_quantizer(options: Options) -> None:
    if not options.quantizer:
        raise UserError(f"quantize.py needs --quantizer, one of {', '.join(QUANTIZERS)}")
    if options.defend == "dp":
        raise UserError(
            "no stage quantises under differential privacy: use another --defend with --quantizer"
        )


def _check_from_scratch(options: Options) -> None:
    if options.rewind is not None:
        raise UserError(
            "--rewind goes back to weights of pretraining, of which --from_scratch uses none"
        )
    if options.stage == "prune_dp" and options.pruner_name == "slim":
        raise UserError(
            "slim prunes by BatchNorm's weights, which are all 1 in a network that is not trained: "
            "use another --pruner_name with --from_scratch"
        )
    if options.stage == "mia" and options.defend != "dp":
        raise UserError(
            "--from_scratch attacks what `prune_dp.py --from_scratch` made: name it with --defend dp"
        )


def _check_attacker(options: Options) -> None:
    given = [name for name in ("defend", "adaptive", "quantizer") if getattr(options, name)]
    if options.original and given:
        raise UserError(
            f"--original attacks the model before compression and without a defence: leave out "
            f"{' and '.join(f'--{name}' for name in given)}"
        )
    if options.guess:
        _check_guess(options)
    held = [options, *(release_options(options, name) for name in options.also)]
    check_shadows(held)
    if options.adaptive and not any(one.defend for one in held):
        raise UserError(
            "--adaptive means that the attacker knows the defence: name it with --defend"
        )


def _check_guess(options: Options) -> None:
    names = " and ".join(f"--{name}" for name in GUESSES if getattr(options, name) is not None)
    if options.also:
        raise UserError(
            f"--also is of an attacker who knows how each release was made: leave out {names}"
        )
    try:
        _check_pruner(options.guessed)
    except UserError as error:
        text = str(error)
        for name, of in GUESSES.items():
            text = text.replace(f"--{of}", f"--{name}")
        raise UserError(f"{names}: {text}") from error


def _check_tensorboard() -> None:
    try:
        import torch.utils.tensorboard  # noqa: F401
    except Exception as error:  # one that is there and broken raises anything
        raise UserError(
            f"--tensorboard needs a package that cannot be imported here ({error}): "
            f"`pip install tensorboard`"
        ) from error
