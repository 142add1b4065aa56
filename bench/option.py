"""What is known of an option, and how a dataclass declares one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bench.values import Kind

# ---- groups of stages
EVERY = "pretrain prune prune_dp quantize mia"
TRAINING = "pretrain prune quantize"
ANY_TRAINING = "pretrain prune prune_dp quantize"
PRUNED = "prune prune_dp quantize mia"
QUANTIZED = "quantize mia"


@dataclass(frozen=True)
class Option:
    """What is known of an option.

    Attributes:
        kind: what values it takes.
        default: None where it follows from other options or from the data.
        help: a line for --help, with the unit.
        stages: on whose command lines it stands; in a config every option may stand.
        result: whether it can change what comes out, so that it is recorded with every result.
        before: its value in results from before there was this option; None: the default.
        later: whether seeds were already made of all options when it came: it is left out of them
            where it is at its default or not of the stage.
    """

    kind: Kind
    default: Any
    help: str
    stages: tuple[str, ...]
    result: bool = True
    before: Any = None
    later: bool = False

    @property
    def when_missing(self):
        """What a result was made with that does not name this option."""
        return self.default if self.before is None else self.before


def option(kind: Kind, default, help: str, stages: str = EVERY, **more) -> Any:
    """A field of `Options`; see `Option`."""
    about = Option(kind, default, help, tuple(stages.split()), **more)
    return field(default=default, metadata={"option": about})
