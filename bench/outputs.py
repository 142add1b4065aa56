"""What is kept of models' outputs, and what attacks have learnt from them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.callbacks import Resume
from bench.layout import ModelSet, attack_network_file, attack_state_file, outputs_file
from core.console import UserError, say
from core.files import (
    array_digest,
    digested,
    locked,
    packed_arrays,
    read_arrays,
    read_digested,
    write,
)

_A_WEEK = 7 * 24 * 3600.0  # seconds; a lock is gone with the process that holds it


@dataclass(frozen=True)
class Outputs:
    """A model's outputs for an attacker's queries, kept in its folder.

    Attributes:
        what: logits, sensitivity, views, generated, distillation, copies or distances.
        facts: all that they depend on.
        record_ids: numbers of the records asked for, in order, which are kept beside the outputs;
            None of records that were made up.
    """

    models: ModelSet
    role: str
    what: str
    facts: dict
    record_ids: np.ndarray | None

    @property
    def path(self) -> Path:
        return self.models.file(self.role, outputs_file(self.what))

    def ask(self, query: Callable[[], np.ndarray], *, fresh: bool) -> None:
        """Have those of just these facts there: `query()`'s where there are none, or `fresh`."""
        with self.models.lock(self.role, self.what, wait=600):
            if fresh or self._stored() is None:
                arrays = {"answers": query()}
                if self.record_ids is not None:
                    arrays["records"] = self.record_ids
                write(self.path, packed_arrays(self.facts, arrays))

    def load(self) -> np.ndarray:
        """Those that are there. Raises UserError where another command has replaced them."""
        with self.models.lock(self.role, self.what, wait=600):
            outputs = self._stored()
        if outputs is None:
            raise UserError(
                f"{self.path} has been replaced by another command: give this one again"
            )
        return outputs

    def _stored(self) -> np.ndarray | None:
        if not os.path.exists(self.path):
            return None
        facts, arrays = read_arrays(self.path)
        return arrays["answers"] if facts == self.facts else None


def cached_network(
    name: str, cache_key: list, train: Callable[[list], dict], *, models: ModelSet, device: str
) -> dict:
    """Weights of an attack's network: those that lie there, or else `train(callbacks)`'s, which are
    kept.

    An attacker who has trained on shadow models once need not do it again for the next victim.
    Whoever comes while another process trains the same network waits for it.

    Args:
        cache_key: all that the weights depend on but the option `threads` and the device: arrays,
            and what its `repr` tells from others, such as a network.
        models: of the data set and network in question; of any version.
    """
    options, folder = models.options, models.attack_networks
    words = [array_digest(one) if isinstance(one, np.ndarray) else repr(one) for one in cache_key]
    facts = {"network": name, "device": device, "threads": options.threads, "facts": words}
    name = f"{name}_{array_digest(np.array(json.dumps(facts)))[:16]}"
    path = folder / attack_network_file(name)
    with ExitStack() as lock:
        try:
            lock.enter_context(locked(folder, name, wait=2, makes=[f"{name}."]))
        except UserError as busy:
            say(f"waiting for a network of this attack: {busy}")
            lock.enter_context(locked(folder, name, wait=_A_WEEK, makes=[f"{name}."]))
        if os.path.exists(path) and not options.fresh:
            return read_digested(path)
        state = folder / attack_state_file(name)
        weights = train([Resume(state, facts, [device], options, _refuse_other_network)])
        write(path, digested(weights))
        state.unlink(missing_ok=True)
    return weights


def _refuse_other_network(path: Path, have: dict, wanted: dict) -> None:
    if have != wanted:  # hardly ever: its name has their digest
        raise UserError(f"{path} is the state of another network: start over with --fresh")
