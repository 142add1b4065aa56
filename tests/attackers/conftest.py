"""Fixtures of the attacks' tests."""

import pytest

import attackers.compleak
import attackers.distillation
import attackers.neural
import attackers.qmia
from base_model import TrainConfig


@pytest.fixture
def short_training(monkeypatch):
    monkeypatch.setattr(attackers.neural, "CONFIG", TrainConfig(epochs=2, optimizer="sgd"))
    for name in ("TRAJECTORY_CONFIG", "SEQUENCE_CONFIG"):
        monkeypatch.setattr(attackers.distillation, name, TrainConfig(epochs=2))
    monkeypatch.setattr(attackers.compleak, "TREES", 20)
    monkeypatch.setattr(attackers.qmia, "CONFIG", TrainConfig(epochs=2))
