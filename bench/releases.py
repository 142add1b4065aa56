"""Other versions of the same models that the attacker holds too, named as their folders are."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from bench.configs import epochs_again, read_value
from bench.layout import NAMED_AFTER, ModelSet
from bench.options import OPTIONS, Options
from core.console import UserError
from core.registry import nearest
from defenders import DEFENDERS
from pruner import PRUNERS
from quantizer import QUANTIZERS

ORIGINAL = "original"
_NUMBER = r"[0-9.e+-]+"


def _any_of(names: Iterable[str]) -> str:
    return "|".join(re.escape(name) for name in names if name)


_VERSION = re.compile(
    rf"(?:(?P<pruner_name>{_any_of(PRUNERS)})_(?P<prune_sparsity>{_NUMBER})"
    r"(?:_x(?P<prune_iterations>\d+))?(?:_rewind(?P<rewind>\d+))?)?"
    rf"(?:_?(?P<quantizer>{_any_of(QUANTIZERS)}))?"
    rf"(?:_(?P<defend>{_any_of(DEFENDERS)})_(?P<defend_arg>{_NUMBER})(?P<from_scratch>_scratch)?)?"
)


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Names of versions, each once: the original, then all others by name. So the order in which
    they are given makes no two attackers of those who hold the same."""
    return tuple(sorted(set(names), key=lambda name: (name != ORIGINAL, name)))


def release_options(options: Options, name: str) -> Options:
    """The options of mia.py that attack the version of this name in place of that of `options`.

    Raises:
        UserError: no version has this name, or it is the one under attack.
    """
    plain = replace(
        options,
        **{one: OPTIONS[one].default for one in NAMED_AFTER},
        original=name == ORIGINAL,
        adaptive=False,
        also=(),
    )
    made = plain if plain.original else _of_version(plain, name)
    made = replace(made, adaptive=options.adaptive and bool(made.defend))
    made = replace(made, **epochs_again(vars(options), vars(made)))
    version, own = (ModelSet.under_attack(one).version for one in (made, options))
    if version == own:
        raise UserError(f"--also: {name!r} is the version under attack: name another")
    if version != name and not made.original:
        raise UserError(f"--also: unknown version {name!r}{nearest(name, [version])}")
    return made


def check_shadows(held: Iterable[Options]) -> None:
    """Raise UserError where two versions that an attacker holds would share their shadow models, of
    which an attack would learn that they are alike."""
    seen: dict[str, str] = {}
    for one in held:
        models = ModelSet.under_attack(one)
        shadows, name = models.of_attacker.version, models.version or ORIGINAL
        if shadows in seen:
            raise UserError(
                f"--also: {name} and {seen[shadows]} would have the same shadow models, which carry "
                f"no defence: give --adaptive, or another version"
            )
        seen[shadows] = name


def _of_version(plain: Options, name: str) -> Options:
    found = _VERSION.fullmatch(name)
    said = {one: word for one, word in found.groupdict().items() if word} if found else {}
    if not said:
        known = [ORIGINAL, *PRUNERS, *QUANTIZERS]
        raise UserError(
            f"--also: unknown version {name!r}{nearest(name.split('_')[0], known)}: versions are called as their folders are, such as "
            f"{ORIGINAL}, l1unstructure_0.9, int8 or l1unstructure_0.7_int8"
        )
    if "from_scratch" in said:
        said["from_scratch"] = True
    said["pruned"] = "pruner_name" in said and "quantizer" in said
    values = {one: read_value(f"--also {name}: {one}", one, value) for one, value in said.items()}
    return replace(plain, **values)
