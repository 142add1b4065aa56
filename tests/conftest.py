"""Fixtures that all tests share."""

import os

import pytest
import torch
from helpers import config_writer

torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path_factory, monkeypatch):
    """Each test runs in a folder of its own, so that what a stage writes is all that lies there."""
    monkeypatch.chdir(tmp_path_factory.mktemp("empty"))
    monkeypatch.delenv("MIA_DATA", raising=False)


@pytest.fixture
def write_config(tmp_path):
    """write_config(**changes) -> path of a config for the tiny table, with a key changed (None: left out)."""
    return config_writer(tmp_path)
