"""The released model from its file: weights in every wrapping, and exported programs."""

import importlib.util
import os
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from auditing.queries import answers, are_posteriors, as_posteriors, changes_its_answers, of_network
from auditing.released import fit, read_weights, released_model
from core.console import UserError

CPU = torch.device("cpu")
X = torch.randn(70, 1, 8, 8, generator=torch.Generator().manual_seed(3))


def needs(*packages):
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{' and '.join(missing)} not installed")


def build(width=6):
    return nn.Sequential(
        nn.Conv2d(1, width, 3),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(36 * width, 5),
    )


@pytest.fixture
def network():
    """One with moved statistics, so that its training mode answers otherwise."""
    torch.manual_seed(1)
    made = build()
    with torch.no_grad():
        made(3 * X + 1)
    return made.eval()


def expected(network):
    with torch.no_grad():
        return network(X).numpy()


def ask(path, make=build):
    return answers(released_model(Path(path), [("build()", make)], CPU), X)


# ---- weights

WRAPPINGS = {
    "alone": lambda state: state,
    "in a checkpoint": lambda state: {"epoch": 3, "state_dict": state},
    "of a training": lambda state: {"model_state_dict": state, "optimizer_state_dict": {}},
    "of DataParallel": lambda state: {f"module.{name}": one for name, one in state.items()},
    "of torch.compile": lambda state: {f"_orig_mod.{name}": one for name, one in state.items()},
    "of Lightning": lambda state: {
        "state_dict": {f"model.{name}": one for name, one in state.items()}
    },
}


@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS)
def test_weights_in_every_wrapping(network, wrap):
    torch.save(wrap(network.state_dict()), "model.pt")
    np.testing.assert_array_equal(ask("model.pt"), expected(network))


@needs("safetensors")
def test_safetensors(network):
    from safetensors.torch import save_file

    save_file(network.state_dict(), "model.safetensors")
    np.testing.assert_array_equal(ask("model.safetensors"), expected(network))
    Path("model.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match="cannot read model.safetensors"):
        ask("model.safetensors")


@pytest.mark.parametrize(
    "package, name", [("safetensors", "m.safetensors"), ("onnxruntime", "m.onnx")]
)
def test_what_is_not_installed(package, name, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    Path(name).write_bytes(b"x")
    with pytest.raises(UserError, match="pip install -r requirements-audit.txt"):
        ask(name)


class Planted:
    """What a pickle that runs code looks like."""

    def __reduce__(self):
        return os.mkdir, ("planted",)


def test_no_pickle_is_run():
    torch.save({"weight": torch.ones(2), "more": Planted()}, "model.pt")
    with pytest.raises(UserError, match="no pickle is run: save them by .*network.state_dict"):
        ask("model.pt")
    assert not Path("planted").exists()


def test_a_whole_network_is_no_weights(network):
    torch.save(network, "model.pt")
    with pytest.raises(UserError, match="save them by torch.save"):
        ask("model.pt")


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, torch.ones(3)])
def test_other_content_is_no_weights(content):
    torch.save(content, "model.pt")
    with pytest.raises(UserError, match="is no state dict"):
        read_weights(Path("model.pt"))


def test_the_first_network_that_fits_is_taken(network):
    torch.save(network.state_dict(), "model.pt")
    found = fit([("small", lambda: build(3)), ("right", build)], Path("model.pt"))
    assert found[0].weight.shape == (6, 1, 3, 3)
    with pytest.raises(UserError, match=r"do not fit small: .* and 4 more, nor tiny: they lack"):
        fit([("small", lambda: build(3)), ("tiny", lambda: nn.Linear(2, 2))], Path("model.pt"))


# ---- programs


def test_torchscript(network):
    torch.jit.script(network).save("model.pt")
    np.testing.assert_allclose(ask("model.pt"), expected(network), atol=1e-6)


@pytest.mark.parametrize("batch", [None, 70, 32, 1])
def test_torch_export(network, batch):
    """Of any number of records, or of 70, 32 or 1 at a time."""
    shapes = None if batch else ({0: torch.export.Dim("n")},)
    program = torch.export.export(network, (X[: batch or 2],), dynamic_shapes=shapes)
    torch.export.save(program, "model.pt2")
    np.testing.assert_allclose(ask("model.pt2"), expected(network), atol=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("batch", [None, 32])
@needs("onnx", "onnxscript", "onnxruntime")
def test_onnx(network, batch):
    shapes = None if batch else ({0: torch.export.Dim("n")},)
    program = torch.onnx.export(network, (X[: batch or 2],), dynamo=True, dynamic_shapes=shapes)
    program.save("model.onnx")
    np.testing.assert_allclose(ask("model.onnx"), expected(network), atol=1e-5)


def test_a_program_that_would_run_pickles_is_refused(network):
    program = torch.export.export(network, (X[:2],))
    torch.export.save(program, "model.pt2")
    with zipfile.ZipFile("model.pt2", "a") as archive:
        archive.writestr("model/data/constants/opaque_obj_0", b"")
    with pytest.raises(UserError, match="holds opaque_obj_0, compiled code or a pickled object"):
        ask("model.pt2")


def test_pickled_examples_of_a_program_are_not_run(network):
    """torch.export.load falls back to unpickling anything where weights alone do not load."""
    program = torch.export.export(network, (X[:2],))
    torch.export.save(program, "model.pt2")
    torch.save((Planted(),), "planted.pt")
    with zipfile.ZipFile("model.pt2") as old, zipfile.ZipFile("bad.pt2", "w") as new:
        changed = [name for name in old.namelist() if "sample_inputs" in name]
        assert changed
        for name in old.namelist():
            content = Path("planted.pt").read_bytes() if name in changed else old.read(name)
            new.writestr(name, content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UserError, match="cannot load bad.pt2"):
            ask("bad.pt2")
    assert not Path("planted").exists()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_damaged_programs_get_one_line():
    Path("model.onnx").write_bytes(b"x")
    Path("model.pt2").write_bytes(b"PK")
    for name in ("model.pt2", *(["model.onnx"] if importlib.util.find_spec("onnxruntime") else [])):
        with pytest.raises(UserError) as error:
            ask(name)
        assert "\n" not in str(error.value)


# ---- answers


def test_answers_do_not_depend_on_batches_and_modes(network, monkeypatch):
    once = answers(of_network("n", network.train()), X)
    monkeypatch.setattr("auditing.queries._MOST", 32)
    np.testing.assert_allclose(answers(of_network("n", network.train()), X), once, atol=1e-6)
    np.testing.assert_allclose(once, expected(network.eval()), atol=1e-6)


def test_a_program_in_training_mode_is_noticed(network):
    moved = torch.export.export(network.train(), (X[:64],))
    torch.export.save(moved, "model.pt2")
    model = released_model(Path("model.pt2"), [], CPU)
    assert changes_its_answers(model, X)
    assert not changes_its_answers(of_network("n", network), X)


def test_posteriors_are_told_from_logits():
    logits = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    p = as_posteriors(logits)
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(p, np.exp(logits) / np.exp(logits).sum(1, keepdims=True), rtol=1e-5)
    assert are_posteriors(p) and as_posteriors(p) is p
    assert not are_posteriors(logits) and not are_posteriors(p / 2)
    assert not are_posteriors(np.array([[0.5, 0.5], [1.2, -0.2]]))
    assert are_posteriors(p.round(4))


def test_numbers_are_given_as_a_network_takes_them():
    seen = []

    class Seen(nn.Module):
        def forward(self, x):
            seen.append(x.dtype)
            return torch.zeros(len(x), 2)

    for x in (np.zeros((3, 4)), np.zeros((3, 4), np.int64), torch.zeros(3, 4, dtype=torch.float64)):
        answers(of_network("n", Seen()), x)
    assert seen == [torch.float32, torch.int64, torch.float32]
