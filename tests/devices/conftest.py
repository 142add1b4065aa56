"""Short trainings of attack networks."""

from dataclasses import replace

import pytest

import attackers.neural
import attackers.qmia


@pytest.fixture(autouse=True)
def short_attack_training(monkeypatch):
    for module in (attackers.neural, attackers.qmia):
        monkeypatch.setattr(module, "CONFIG", replace(module.CONFIG, epochs=2))
