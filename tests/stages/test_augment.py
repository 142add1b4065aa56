"""Training on flipped and shifted images, and queries in several views: what a stage does with them and refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import MADE, lines, make_once, manifest, run, write_images

import mia
import pretrain
import prune
import prune_dp
import quantize
from base_model import BaseModel, Callback, Stack, TrainConfig, TrainSet
from bench import training
from bench.command_line import parse
from bench.results import find_results
from core.files import read_arrays, sealed
from datasets import Records
from models import build
from models.views import augmented, seen, view_list
from reporting.results import results_table
from reporting.summary import label_configurations

VICTIM = Path("results/tiny_columnfc/victim_model")


@pytest.fixture
def images(tmp_path):
    """What a config says of images of 8 x 8 pixels."""
    return {"data_path": write_images(tmp_path), "input_dim": 64, "num_cls": 3}


def weights(results="results"):
    files = sorted(Path(results).rglob("best.pth"))
    return {str(path.relative_to(results)): path.read_bytes() for path in files}


# ---- training --------------------------------------------------------------------------------------------------------


def records_of(n=200):
    draw = torch.Generator().manual_seed(0)
    x = torch.randint(256, (n, 1, 8, 8), generator=draw, dtype=torch.uint8)
    return Records(x, torch.randint(3, (n,), generator=draw), 3, (0.5,), (0.5,))


def new_model(seed):
    draw = torch.Generator().manual_seed(seed)
    network = build("columnfc", shape=(1, 8, 8), num_cls=3, generator=draw)
    return BaseModel(network, device=torch.device("cpu"), generator=draw)


CONFIG = TrainConfig(epochs=6, batch_size=16, optimizer="sgd", lr=0.05)


def trained(data, callbacks=(), seed=3):
    model = new_model(seed)
    history = model.train(
        data, CONFIG, generator=torch.Generator().manual_seed(5), callbacks=callbacks
    )
    return history, torch.cat([one.flatten() for one in model.network.state_dict().values()])


def test_each_batch_of_training_is_augmented_by_the_generator_of_its_order_and_no_query_is():
    records, made, asked = records_of(), [], []

    class Seen(Records):
        def batch(self, indices):
            x, y = super().batch(indices)
            asked.append(x)
            return x, y

    records = Seen(records.x, records.y, 3, (0.5,), (0.5,))
    model = new_model(3)
    forward = model.network.forward
    model.network.forward = lambda x: made.append(x.clone()) or forward(x)
    data = TrainSet(records, torch.arange(48), torch.arange(100, 150), augment=True)
    draw = torch.Generator().manual_seed(5)
    config = TrainConfig(epochs=1, batch_size=16)
    model.train(data, config, generator=draw)
    again = torch.Generator().manual_seed(5)
    torch.randperm(48, generator=again)
    assert len(made) == len(asked) == 4
    for x, plain in zip(made[:3], asked[:3]):
        assert torch.equal(x, augmented(plain, [again])) and not torch.equal(x, plain)
    assert torch.equal(made[3], asked[3])  # dev


def test_augmented_training_in_two_halves_is_the_same_to_the_last_bit():
    saved = []

    class Kept(Callback):
        def __init__(self, state):
            self.state = state

        def on_start(self, run):
            if self.state is not None:
                run.set_state(self.state)

        def on_epoch(self, run):
            torch.save(run.state(), "state")
            saved.append(torch.load("state", weights_only=True))

    data = TrainSet(records_of(), torch.arange(150), torch.arange(150, 200), augment=True)
    whole, same = trained(data, [Kept(None)])
    for state in list(saved)[1::2]:
        again, other = trained(data, [Kept(state)])
        assert again == whole and torch.equal(same, other)
    plain = TrainSet(data.records, data.train, data.dev)
    assert not torch.equal(trained(plain)[1], same)


def test_each_model_of_a_stack_is_augmented_as_it_would_be_alone():
    records, train = records_of(), torch.stack([torch.arange(k, k + 61) for k in range(3)])
    draws = lambda: [torch.Generator().manual_seed(seed) for seed in range(3)]
    alone, together = [new_model(k) for k in range(3)], [new_model(k) for k in range(3)]
    config = TrainConfig(epochs=2, batch_size=16)
    for model, numbers, draw in zip(alone, train, draws()):
        model.train(TrainSet(records, numbers, augment=True), config, generator=draw)
    from base_model import Objective

    Stack(together).train_each(
        TrainSet(records, train, augment=True), config, generators=draws(), objective=Objective()
    )
    for one, other in zip(alone, together):
        for name, tensor in one.network.state_dict().items():
            torch.testing.assert_close(tensor, other.network.state_dict()[name])


@pytest.mark.slow
def test_workers_and_stacks_change_no_weight_of_augmented_models(write_config, images, monkeypatch):
    path = write_config(**images, epochs=2, shadow_num=3, augment=True)
    run(pretrain, path)
    run(pretrain, path, "--workers", "3", "--results", "workers")
    assert weights() == weights("workers")
    run(pretrain, path, "--augment", "false", "--results", "plain")
    assert not set(weights().values()) & set(weights("plain").values())
    real = training.stacks
    monkeypatch.setattr(training, "stacks", lambda parts, most: real(parts, most=99))
    run(pretrain, path, "--results", "stack")
    for name in weights():
        one, other = (
            torch.load(f"{where}/{name}", weights_only=True) for where in ("results", "stack")
        )
        for key in one:
            torch.testing.assert_close(one[key], other[key], rtol=1e-3, atol=1e-4)


def refused(stage, capsys, *words):
    capsys.readouterr()
    assert stage.main(["cpu", *words]) == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    return said


def test_what_is_trained_of_augmented_models_is_augmented_too(write_config, images, capsys):
    path = write_config(**images, epochs=2)
    run(pretrain, path, "--augment")
    assert json.loads((VICTIM / "manifest.json").read_text())["options"]["augment"] is True
    for stage, *words in ((prune,), (quantize, "--quantizer", "int8")):
        said = refused(stage, capsys, path, *words)
        assert "was made with augment True (now False): to use it give --augment true" in said
        run(stage, path, *words, "--augment")
    assert "augment True (now False)" in refused(pretrain, capsys, path)
    assert "augment True (now False)" in refused(
        quantize, capsys, path, "--quantizer", "int8", "--pruned"
    )
    run(mia, path, "--attacks", "loss")  # which trains nothing of them
    run(mia, path, "--attacks", "loss", "--original")
    assert lines("victim_model")[0]["augment"] is True
    run(pretrain, path, "--fresh")
    said = refused(prune, capsys, path, "--augment")
    assert "was made with augment False (now True): to use it give --augment false" in said


def test_the_command_that_makes_what_is_missing_augments_as_the_originals_were(
    write_config, images, capsys
):
    path = write_config(**images, epochs=1)
    run(pretrain, path, "--augment")
    said = refused(mia, capsys, path)
    assert "first run `python prune.py" in said and said.endswith("--augment`")


def test_a_model_from_before_there_was_augmentation_has_none(write_config, images, capsys):
    path = write_config(**images, epochs=1)
    run(pretrain, path)
    for file in Path("results").rglob("manifest.json"):
        manifest = json.loads(file.read_text())
        del manifest["options"]["augment"], manifest["options"]["queries"], manifest["sha256"]
        file.write_text(json.dumps(sealed(manifest)))
    run(prune, path)
    assert "augment False (now True)" in refused(prune, capsys, path, "--augment")


def test_tables_are_refused(write_config, images, capsys):
    table = write_config()
    for stage, words in ((pretrain, ["--augment"]), (mia, ["--queries", "2", "--original"])):
        said = refused(stage, capsys, table, *words)
        assert " ".join(words[:2]).replace(" --original", "") in said
        assert "flips and shifts images, the records are tables of 12 columns" in said
    assert not Path("results").exists()
    small = images | {"data_path": "small.npz", "input_dim": 9}
    np.savez("small.npz", x=np.zeros((60, 3, 3, 1), np.uint8), y=np.arange(60) % 3)
    said = refused(pretrain, capsys, write_config("none.json", **small), "--queries", "50")
    assert "--queries is an option of mia.py" in said
    said = refused(mia, capsys, write_config("small.json", **small), "--queries", "98")
    assert "--queries 98 shifts images by up to 3 pixels, those of 3x3 are too small" in said


# ---- queries ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    images = {"data_path": write_images(folder), "input_dim": 64}
    return make_once(folder, (pretrain,), **images, epochs=3, shadow_num=3)


@pytest.fixture
def made(trained_once):
    return trained_once.copy_here()


ATTACKS = "gap,loss,lira,rmia,nn"


def test_every_model_is_asked_for_every_view(made):
    from bench.attacking import load_matchup
    from bench.run import begin
    from bench.signals import collect_signals

    started = begin(parse("mia", ["cpu", made, "--original", "--queries", "18"]))
    checkpoints = load_matchup(started)
    assert not collect_signals(started, checkpoints, attacks=["nn"]).victim.views
    evidence = collect_signals(started, checkpoints, attacks=["loss"])
    x = started.records.x[torch.from_numpy(evidence.record_ids)]
    for signals, role in zip([evidence.victim, *evidence.shadows], started.splits):
        network = build("columnfc", shape=(1, 8, 8), num_cls=3, generator=torch.Generator())
        network.load_state_dict(checkpoints[role].weights())
        for of_view, view in zip(signals.all_views, view_list(18), strict=True):
            with torch.no_grad():
                expected = network.eval()((seen(x, view).float() / 255 - 0.5) / 0.5).numpy()
            assert np.allclose(of_view.logits, expected, atol=1e-5)


def test_lines_of_one_query_stay_and_those_of_several_stand_beside_them(
    made, short_attack_training, capsys
):
    run(mia, made, "--original", "--attacks", ATTACKS)
    before = {line["attack"]: line for line in lines("victim_model")}
    assert not (VICTIM / "views.npz").exists()
    logits = (VICTIM / "logits.npz").read_bytes()
    capsys.readouterr()
    run(mia, made, "--original", "--attacks", ATTACKS, "--queries", "18")
    assert "nn: kept" in capsys.readouterr().out
    assert (VICTIM / "logits.npz").read_bytes() == logits
    assert read_arrays(VICTIM / "views.npz")[1]["answers"].shape[0] == 17
    after = lines("victim_model")
    assert len(after) == 5 + 4
    queries = {(line["attack"], line.get("queries")) for line in after}
    several = ("gap", "loss", "lira", "rmia")
    assert queries == {("nn", None), *((name, q) for name in several for q in (1, 18))}
    for line in after:
        if line.get("queries") != 18:
            assert {**line, "lines": 0, "sha256": 0} == {
                **before[line["attack"]],
                "lines": 0,
                "sha256": 0,
            }
    assert len({line["scores"] for line in after}) == 9
    assert "queries" not in before["nn"]
    # nothing is made again, and the table is of what was asked for
    stamp = (VICTIM / "views.npz").stat().st_mtime_ns
    run(mia, made, "--original", "--attacks", ATTACKS, "--queries", "18")
    assert lines("victim_model") == after and (VICTIM / "views.npz").stat().st_mtime_ns == stamp


def test_a_line_from_before_there_were_several_queries_is_of_one(made, capsys):
    run(mia, made, "--original", "--attacks", "loss")
    (line,) = lines("victim_model")
    line = {name: value for name, value in line.items() if name not in ("sha256", "queries")}
    (VICTIM / "attacks.jsonl").write_text(json.dumps(sealed(line)) + "\n")
    run(mia, made, "--original", "--attacks", "loss")
    assert "loss: kept" in capsys.readouterr().out
    run(mia, made, "--original", "--attacks", "gap", "--queries", "2")
    said = capsys.readouterr().out
    assert "gap (2 queries)" in said and not any(
        row.startswith("loss ") for row in said.splitlines()
    )
    run(mia, made, "--original", "--attacks", "loss", "--queries", "2")
    assert "loss: kept" not in capsys.readouterr().out and len(lines("victim_model")) == 3


def test_a_report_keeps_numbers_of_queries_apart(made):
    for count in ("1", "2"):
        run(mia, made, "--original", "--attacks", "loss", "--queries", count)
    victims = find_results(Path("results"))
    table, same = label_configurations(results_table(victims, Path("results")))
    assert not same and set(table["attack"]) == {"loss (queries 1)", "loss (queries 2)"}


def test_private_training_takes_records_as_they_are(write_config, images):
    """Of augmented originals too: what is guaranteed is guaranteed of its own steps."""
    path = write_config("dp.json", **images, augment=True, epochs=2, prune_epochs=1)
    run(pretrain, path)
    run(prune_dp, path)
    (dp,) = (folder.name for folder in MADE.glob("l1unstructure_*_dp_*_model"))
    made = [manifest(folder)["options"]["augment"] for folder in ("victim_model", dp)]
    assert made == [True, False]
    run(mia, path, "--defend", "dp", "--adaptive", "--attacks", "loss")
