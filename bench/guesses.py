"""What an attacker has wrong of a pruned victim, and the share of the records that there are.

After Yuan & Zhang (USENIX Security 2022), whose attacker may not know the victim's pruner or
sparsity and prunes the shadow models in another way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

# an option of mia.py: the option of the victim that the attacker guesses by it
GUESSES = {
    "shadow_pruner_name": "pruner_name",
    "shadow_sparsity": "prune_sparsity",
    "shadow_model_name": "model_name",
}
KNOWLEDGE = (*GUESSES, "attacker_records")


def knowledge_in_words(options: Mapping) -> str:
    """What an attacker has wrong or lacks, "" where that is nothing; options that are missing are
    at their defaults.

    >>> knowledge_in_words({"shadow_sparsity": 0.5, "attacker_records": 0.25})
    'shadows: 50 %, 25 % of the records'
    """
    pruner, sparsity, network, share = (_known(options.get(name)) for name in KNOWLEDGE)
    guess = [network, pruner, None if sparsity is None else f"{100 * sparsity:g} %"]
    words = [f"shadows: {' '.join(filter(None, guess))}"] if any(guess) else []
    words += [f"{100 * share:g} % of the records"] if share not in (None, 1) else []
    return ", ".join(words)


def _known(value):
    """None of NaN, which tables have where there is no value."""
    return None if isinstance(value, float) and math.isnan(value) else value
