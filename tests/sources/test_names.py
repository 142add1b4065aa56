"""Data sets by name: facts that are told before a download, and the digits."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import PROJECT, load_named

from core.console import UserError
from datasets import DATASETS, load
from sources import bundled_sets


def test_import_is_light():
    heavy = "{'torch', 'torchvision', 'sklearn', 'PIL'}"
    code = f"import sys, datasets; datasets.DATASETS.help(); assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=True)


@pytest.mark.parametrize("name", list(DATASETS))
def test_every_name_has_code_and_facts(name):
    assert callable(DATASETS.load(name))
    facts = DATASETS[name].options
    channels = facts["shape"][0] if len(facts["shape"]) == 3 else None
    for numbers in (facts.get("mean"), facts.get("std")):
        assert (None if numbers is None else len(numbers)) == channels


@pytest.mark.parametrize("name", list(DATASETS))
def test_misfits_are_told_before_a_download(name, tmp_path):
    facts = DATASETS[name].options
    with pytest.raises(UserError, match=f"{name}.*{facts['num_cls']} classes.*num_cls is 7"):
        load(name, data_root=tmp_path, num_cls=7, input_dim=facts["shape"][0])
    with pytest.raises(UserError, match=f"{name}.*{facts['shape'][0]}.*input_dim.*5"):
        load(name, data_root=tmp_path, num_cls=facts["num_cls"], input_dim=5)


def test_unknown_name(tmp_path):
    with pytest.raises(UserError, match="'digit'.*did you mean 'digits'"):
        load("digit", data_root=tmp_path, num_cls=10, input_dim=1)


@pytest.mark.parametrize("input_dim", [1, 64])
def test_digits(tmp_path, input_dim):
    records = load("digits", data_root=tmp_path, num_cls=10, input_dim=input_dim)
    assert (len(records), records.shape, records.x.dtype) == (1797, (1, 8, 8), torch.uint8)
    # the first row of the first digit, a zero, is 0 0 5 13 9 1 0 0 of 16
    assert records.x[0, 0, 0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]
    assert records.y[:5].tolist() == [0, 1, 2, 3, 4]
    x, _ = records.batch(torch.arange(1797))
    assert x.min() == -1 and x.max() == 1
    assert not any(tmp_path.iterdir())


def test_labels_of_a_named_set_are_tested(monkeypatch, tmp_path):
    monkeypatch.setitem(DATASETS["digits"].options, "num_cls", 9)
    with pytest.raises(UserError, match="digits.*label 9.*0 to 8"):
        load_named("digits", tmp_path)


@pytest.mark.parametrize(
    "x, y, message",
    [
        (np.zeros((3, 1, 8, 8), np.uint8), np.zeros(2, int), "3 records but 2 labels"),
        (np.zeros((0, 1, 8, 8), np.uint8), np.zeros(0, int), "empty"),
        (np.zeros((3, 1, 8, 9), np.uint8), np.zeros(3, int), r"\(1, 8, 9\), not \(1, 8, 8\)"),
    ],
)
def test_arrays_of_a_named_set_are_tested(monkeypatch, tmp_path, x, y, message):
    monkeypatch.setattr(bundled_sets, "digits", lambda folder: (x, y))
    with pytest.raises(UserError, match=message):
        load_named("digits", tmp_path)


@pytest.mark.parametrize("name", sorted(set(DATASETS) - {"digits"}))
@pytest.mark.parametrize("where", [".", "NAME"])
def test_a_file_where_the_folder_of_data_should_be(name, where, tmp_path):
    path = tmp_path / "data" if where == "." else tmp_path / "data" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("")
    with pytest.raises(UserError, match=f"data_root: {path} is a file; a folder is needed"):
        load_named(name, tmp_path / "data")
