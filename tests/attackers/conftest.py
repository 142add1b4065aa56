"""Fixtures of the attacks' tests."""

import pytest

import attackers.compleak
import attackers.compleak_mr
import attackers.distillation
import attackers.neural
import attackers.qmia
import attackers.trajectory
from base_model import TrainConfig


@pytest.fixture
def short_training(monkeypatch):
    monkeypatch.setattr(attackers.neural, "CONFIG", TrainConfig(epochs=2, optimizer="sgd"))
    for name in ("TRAJECTORY_CONFIG", "SEQUENCE_CONFIG"):
        monkeypatch.setattr(attackers.distillation, name, TrainConfig(epochs=2))
    monkeypatch.setattr(attackers.compleak, "TREES", 20)
    monkeypatch.setattr(attackers.qmia, "CONFIG", TrainConfig(epochs=2))
    monkeypatch.setattr(attackers.compleak_mr, "CONFIG", TrainConfig(epochs=2, optimizer="sgd"))
    monkeypatch.setattr(attackers.trajectory, "CONFIG", TrainConfig(epochs=2))
