"""What the tests share: a tiny data set of the user's own kind, and a config for it."""
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"
PROJECT = Path(__file__).resolve().parent.parent
SHARED_DATA = PROJECT.parent / "shared" / "data"


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path_factory, monkeypatch):
    """Each test runs in a folder of its own, so that what a stage writes is all that lies there."""
    monkeypatch.chdir(tmp_path_factory.mktemp("empty"))
    monkeypatch.delenv("MIA_DATA", raising=False)


def table_arrays(n=240, columns=12, num_cls=3, seed=0):
    """Clusters that overlap, with a few wrong labels: learnable, and worth memorising."""
    draw = np.random.default_rng(seed)
    y = draw.integers(num_cls, size=n)
    x = draw.normal(size=(num_cls, columns))[y] + draw.normal(size=(n, columns))
    wrong = draw.random(n) < 0.2
    y[wrong] = draw.integers(num_cls, size=wrong.sum())
    return x.astype(np.float32), y


@pytest.fixture
def write_config(tmp_path):
    """write_config(**changes) -> path of a config for the tiny table, with a key changed (None: left out)."""
    return config_writer(tmp_path)


def config_writer(folder):
    x, y = table_arrays()
    np.savez(folder / "tiny.npz", x=x, y=y)

    def write(name="tiny.json", **changes):
        config = {"dataset_name": "tiny", "data_path": str(folder / "tiny.npz"), "model_name": "columnfc",
                  "num_cls": 3, "input_dim": 12, "epochs": 4, "shadow_num": 2, "early_stop": 0,
                  "workers": 1} | changes
        path = folder / name
        path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
        return str(path)

    return write
