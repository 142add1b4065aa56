"""Shadow models on a Ray cluster of this machine."""

import os
from pathlib import Path

import pytest
from task_cases import InThisProcess, audit_model, release, said, write_task

from auditing import training

WORDS = ("my_task.py", "--device", "cpu", "--shadow_num", 2)


@pytest.fixture(scope="module")
def cluster():
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    yield made
    made.shutdown()


@pytest.mark.cluster
@pytest.mark.xdist_group("cluster")
@pytest.mark.slow
def test_a_cluster_makes_what_this_machine_makes(cluster, capsys, monkeypatch):
    write_task()
    release()
    assert audit_model(*WORDS, "--ray", cluster.address, "--out", "there") == 0
    with monkeypatch.context() as patch:
        patch.setattr(training, "Local", InThisProcess)
        assert audit_model(*WORDS, "--out", "here") == 0
    names = ("evidence.npz", "shadows/shadow_0.npz", "shadows/shadow_1.npz")
    for name in names:
        assert Path("there", name).read_bytes() == Path("here", name).read_bytes()
    assert not list(Path("there").rglob(".shared_*"))
    write_task(train="def train(network, x, y):\n    int('x')\n")
    line = said(capsys, *WORDS, "--ray", cluster.address, "--out", "failed")
    assert "my_task.py:14 in train: ValueError: invalid literal for int()" in line
