"""Kinds of value that options have."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from attackers import ATTACKS, VERDICTS, can_be_combined
from core.console import UserError
from core.inputs import expand_home
from core.registry import Registry


@dataclass(frozen=True)
class Kind:
    """A kind of value.

    Attributes:
        read: takes what stands in a config or on a command line; returns the value, or raises
            ValueError, or UserError where it can say more than what is expected.
        expected: what it takes, in words.
    """

    read: Callable
    expected: str


def whole(low: int, high: int = 2**31 - 1) -> Kind:
    """Whole numbers from `low` to `high`, also written 3.0 or "3"."""

    def read(value) -> int:
        number = float(value) if not isinstance(value, bool) else math.nan
        if not (math.isfinite(number) and number == int(number) and low <= number <= high):
            raise ValueError
        return int(number)

    return Kind(read, f"a whole number from {low} to {high}")


def count_of(counts: Sequence[int]) -> Kind:
    """One of a few whole numbers, also written 3.0 or "3"."""

    def read(value) -> int:
        if (count := whole(min(counts), max(counts)).read(value)) not in counts:
            raise ValueError
        return count

    return Kind(read, f"one of {', '.join(map(str, counts))}")


def number(expected: str, holds: Callable[[float], bool]) -> Kind:
    """Finite real numbers of which `holds` is true; `expected` says so in words."""

    def read(value) -> float:
        real = float(value) if not isinstance(value, bool) else math.nan
        if not (math.isfinite(real) and holds(real)):
            raise ValueError
        return real

    return Kind(read, expected)


def one_of(registry: Registry) -> Kind:
    """Names of a registry."""

    def read(value) -> str:
        return registry.check(value if isinstance(value, str) else repr(value))

    return Kind(read, f"a {registry.noun}")


def choice(*words: str) -> Kind:
    """One of a few words."""

    def read(value) -> str:
        if value not in words:
            raise ValueError
        return value

    return Kind(read, " or ".join(map(repr, words)))


def or_word(kind: Kind, *words: str) -> Kind:
    """Values of this kind, or one of a few words."""

    def read(value):
        return value if value in words else kind.read(value)

    return Kind(read, f"{kind.expected}, or {' or '.join(map(repr, words))}")


def _words(value) -> list[str]:
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list):
        raise ValueError
    return [name.strip() for name in names]


def _attack_list(value) -> tuple[str, ...]:
    names = _words(value)
    if not names:
        raise ValueError
    if names == ["all"]:  # which these are depends on the split
        return ("all",)
    if "all" in names:
        raise UserError("'all' stands alone")
    for name in names:
        if name in VERDICTS and name not in ATTACKS:
            raise UserError(f"{name!r} is what the attack {VERDICTS[name]!r} says: name that")
    return tuple(dict.fromkeys(ATTACKS.check(name) for name in names))


_COMBINABLE = tuple(filter(can_be_combined, ATTACKS))


def _combined_attacks(value) -> tuple[str, ...]:
    names = _attack_list(value)
    for name in names:
        if name == "all" or not can_be_combined(name):
            raise UserError(f"{name!r} cannot be combined: name some of {', '.join(_COMBINABLE)}")
    return names


def _version_list(value) -> tuple[str, ...]:
    return tuple(dict.fromkeys(map(_folder_name, _words(value))))


def _epoch_list(value) -> tuple[int, ...]:
    numbers = value.split(",") if isinstance(value, str) else value
    if not isinstance(numbers, list):
        numbers = [numbers]
    return tuple(sorted({whole(0).read(number) for number in numbers}))


def _path(value) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError
    return expand_home(value)


def _folder_name(value) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", value):
        raise ValueError
    return value


def _flag(value) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def name_or_none(registry: Registry) -> Kind:
    """Names of a registry, or "" for none of them."""
    return or_word(one_of(registry), "")


def _true_or_false(value) -> bool:
    words = {"true": True, "false": False}
    return _flag(words.get(value, value) if isinstance(value, str) else value)


attack_list = Kind(_attack_list, "attack names, separated by commas")
combined_attacks = Kind(_combined_attacks, "attack names, separated by commas")
version_list = Kind(_version_list, "names of versions, separated by commas")
epoch_list = Kind(_epoch_list, "whole numbers from 0, separated by commas")
path = Kind(_path, "a path")  # `~` is the home folder, as in a shell
folder_name = Kind(_folder_name, "a name of letters, digits, '.', '_' and '-'")
flag = Kind(_flag, "true or false")  # without a value on the command line
switch = Kind(_true_or_false, "true or false")  # on the command line without a value, or a word
true_or_false = Kind(_true_or_false, "true or false")  # a word on the command line
ignored = Kind(lambda value: None, "anything")
positive = number("a number above 0", lambda real: real > 0)
not_negative = number("a number of 0 or more", lambda real: real >= 0)
share = number("a number from 0 to 1", lambda real: 0 <= real <= 1)
share_of_some = number("a number above 0, up to 1", lambda real: 0 < real <= 1)
below_half = number("a number from 0 to below 0.5", lambda real: 0 <= real < 0.5)
between = number("a number between 0 and 1, neither included", lambda real: 0 < real < 1)
