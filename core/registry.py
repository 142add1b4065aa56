"""Names that a user can choose from: attacks, defences, pruners, networks, data sets."""

import difflib
from dataclasses import dataclass

from core.console import UserError
from core.imports import import_own


def nearest(word: str, names, *, dashes: str = "") -> str:
    """', did you mean NAME?' for the name most like `word`, or nothing where none is alike."""
    close = difflib.get_close_matches(word.lower(), list(names), n=1, cutoff=0.5)
    return f", did you mean {dashes + close[0]!r}?" if close else ""


@dataclass(frozen=True)
class Entry:
    about: str  # one line for --help, with the paper
    target: str  # "module:attribute"
    options: dict  # what else is known of it without importing it


class Registry:
    """A table of names, each with the place of its code.

    The code is imported when a name is loaded, not when it is registered, so that `--help` and a
    misspelt option answer without importing torch.
    """

    def __init__(self, noun: str):
        self.noun = noun
        self._entries: dict[str, Entry] = {}
        self._aliases: dict[str, str] = {}

    def register(
        self, name: str, target: str, about: str, *, alias: str | None = None, **options
    ) -> None:
        """Add a name, and perhaps a second one for the same thing. Raises ValueError where either
        is taken."""
        for taken in {name, alias} & (set(self._entries) | set(self._aliases)):
            raise ValueError(f"{self.noun} {taken!r} is registered twice")
        self._entries[name] = Entry(about, target, options)
        if alias is not None:
            self._aliases[alias] = name

    def __iter__(self):
        return iter(self._entries)

    def __getitem__(self, name: str) -> Entry:
        return self._entries[self.check(name)]

    def check(self, name: str) -> str:
        """Return the registered form of `name`. Raises UserError with the choices and the nearest
        name."""
        name = self._aliases.get(name, name)
        if name not in self._entries:
            choices = ", ".join(repr(known) for known in self._entries)
            raise UserError(
                f"unknown {self.noun} {name!r}{nearest(str(name), self._entries)} "
                f"(choices: {choices})"
            )
        return name

    def load(self, name: str):
        """Import and return what `name` stands for."""
        module, attribute = self[name].target.split(":")
        return getattr(import_own(module), attribute)

    def help(self) -> str:
        """One line a name, for --help."""
        return "\n".join(
            f"  {name or repr(name):<14} {entry.about}" for name, entry in self._entries.items()
        )
