"""Defences that change what a network answers, against numbers worked out by hand and other code."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import MADE, a_batch, fixed_evidence, lines, make_once, run
from scipy.stats import entropy
from torch import nn
from torch.nn import functional as F

import mia
import pretrain
import prune
import quantize
from attackers import ATTACKS, attack
from attackers.signals import Signals
from base_model import BaseModel, Context, Objective, TrainSet
from bench.layout import WEIGHTS
from bench.options import OPTIONS
from datasets import Records
from defenders import DEFENDERS
from defenders.hamp import ALPHA, soft_label
from defenders.record_draws import RecordDraws

P = torch.tensor(
    [[0.204, 0.5042, 0.1961, 0.0957], [0.002, 0.001, 0.003, 0.994]], dtype=torch.float64
)
TRAINED_AS_NONE = ["memguard", "round", "topk", "labelonly"]


@pytest.fixture(autouse=True)
def short_training_of_memguard(monkeypatch):
    monkeypatch.setattr("defenders.memguard.TRAINING_STEPS", 300)


def answer(name, strength, posteriors=P):
    logits = posteriors.log() + 3  # whose level says nothing
    return DEFENDERS.load(name)(strength).release(logits, logits).exp()


def context(records=None, n=40, seed=0):
    draw = torch.Generator().manual_seed(seed)
    if records is None:
        records = Records(x=torch.randn(n, 5, generator=draw), y=torch.arange(n) % 3, num_cls=3)
    data = TrainSet(records, torch.arange(n - 10), torch.arange(n - 10, n))
    return Context(data, batch_size=8, generator=draw)


def test_rounded_by_hand():
    expected = [[0.20, 0.50, 0.20, 0.10], [1e-30, 1e-30, 1e-30, 0.99]]
    assert answer("round", 2).numpy() == pytest.approx(np.array(expected), rel=1e-12)
    assert answer("round", 1)[0].tolist() == pytest.approx([0.2, 0.5, 0.2, 0.1])
    assert answer("round", 0)[0].tolist() == pytest.approx([1e-30, 1.0, 1e-30, 1e-30])
    assert answer("round", 3)[0].tolist() == pytest.approx([0.204, 0.504, 0.196, 0.096])


def test_digits_that_are_dropped_are_nowhere_in_the_answer():
    other = P + torch.tensor([0.0003, -0.0003, -0.0002, 0.0002])
    assert not torch.equal(other, P)
    for dtype in (torch.float64, torch.float32):
        assert torch.equal(answer("round", 2, other.to(dtype)), answer("round", 2, P.to(dtype)))


def test_rounding_can_change_the_class_where_two_become_equal():
    close = torch.tensor([[0.399, 0.401, 0.2]])
    assert answer("round", 2, close).argmax().item() == 0
    assert answer("round", 3, close).argmax().item() == 1


def test_the_largest_alone_by_hand():
    first, second = answer("topk", 2)
    assert first.tolist() == pytest.approx([0.204, 0.5042, 0.1459, 0.1459])
    assert second.tolist() == pytest.approx([0.0015, 0.0015, 0.003, 0.994])
    assert first[2] == first[3] and second[0] == second[1]
    assert answer("topk", 1)[0].tolist() == pytest.approx([0.4958 / 3, 0.5042, *[0.4958 / 3] * 2])
    equal = answer("topk", 2, torch.tensor([[0.2, 0.4, 0.2, 0.2]]))
    assert equal[0].tolist() == pytest.approx([0.2, 0.4, 0.2, 0.2])


def test_the_largest_alone_hides_how_the_rest_is_spread_and_keeps_digits_next_to_one():
    logits = torch.tensor([[40.0, 1.0, 0.0, -9.0]])
    (shown,) = DEFENDERS.load("topk")(1.0).release(logits, logits).double()
    expected = math.log((math.exp(-39) + math.exp(-40) + math.exp(-49)) / 3)
    assert (shown[1:] - shown[0]).tolist() == pytest.approx([expected] * 3, rel=1e-7)
    assert DEFENDERS.load("topk")(4.0).release(logits, logits) is logits


def test_the_class_alone():
    assert answer("labelonly", 0).tolist() == [
        pytest.approx([1e-30, 1, 1e-30, 1e-30]),
        pytest.approx([1e-30, 1e-30, 1e-30, 1]),
    ]


@pytest.mark.parametrize(
    "name, strength", [("round", 2), ("round", 0), ("topk", 1), ("labelonly", 0)]
)
@pytest.mark.parametrize("attack_name", ["threshold", "gap", "lira", "rmia", "calibrated"])
@pytest.mark.parametrize("online", [False, True])
def test_attacks_bear_posteriors_of_zero_and_one(name, strength, attack_name, online):
    evidence = fixed_evidence(online)

    def shown(signals):
        logits = torch.from_numpy(10 * signals.logits.astype(np.float32))
        logits[:10] = 0
        return Signals(DEFENDERS.load(name)(strength).release(logits, logits).numpy())

    assert shown(evidence.victim).posteriors()[0].min() < 1e-20
    hidden = replace(
        evidence, victim=shown(evidence.victim), shadows=list(map(shown, evidence.shadows))
    )
    names = ATTACKS[attack_name].options.get("option_names", ())
    how = {one: OPTIONS[one].default for one in names}
    how |= dict(device=torch.device("cpu"), seed=0)
    plain = attack(attack_name, evidence, **how)
    for verdict, found in attack(attack_name, hidden, **how).items():
        # a record that all shadow models have, or none, has no score in either
        assert np.array_equal(np.isfinite(found.scores), np.isfinite(plain[verdict].scores))
        assert np.isfinite(found.scores).mean() > 0.4 and np.isfinite(found.threshold).all()


def test_draws_follow_from_the_record_and_the_key():
    x = torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(0))
    x[5] = x[0]
    draws = RecordDraws(torch.Generator().manual_seed(1))
    values = [torch.rand((), generator=draw).item() for draw in draws(x)]
    assert values[5] == values[0] and len(set(values)) == 5
    strided = x.permute(0, 2, 1).contiguous().permute(0, 2, 1)  # as channels last are
    again = [torch.rand((), generator=draws(row[None])[0]).item() for row in strided.flip(0)]
    assert again[::-1] == values
    others = RecordDraws(torch.Generator().manual_seed(2))(x)
    assert torch.rand((), generator=others[0]).item() != values[0]


@pytest.mark.parametrize("num_cls, share", [(10, 0.95), (30, 0.5), (100, 0.5), (2, 0.3)])
def test_soft_labels_have_the_entropy_that_is_asked_for(num_cls, share):
    label, other = soft_label(num_cls, share)
    assert label > other and label + (num_cls - 1) * other == pytest.approx(1)
    found = entropy([label] + [other] * (num_cls - 1))
    assert found == pytest.approx(share * math.log(num_cls)) and found > 0
    # the authors' search goes down by 0.01 until the entropy is as large
    steps = np.arange(1, 101) / 100
    grid = [entropy([1 - s] + [s / (num_cls - 1)] * (num_cls - 1)) for s in steps]
    theirs = 1 - steps[next(i for i, h in enumerate(grid) if h >= share * math.log(num_cls))]
    assert theirs <= label + 1e-9 < theirs + 0.01 + 1e-9


def test_soft_labels_at_both_ends():
    assert soft_label(4, 0.0) == pytest.approx((1, 0))
    assert soft_label(4, 1.0) == pytest.approx((0.25, 0.25), abs=1e-6)


def test_hamps_loss_is_that_of_the_authors_times_the_number_of_classes():
    draw = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(9, 4, generator=draw, dtype=torch.float64)).requires_grad_()
    y = torch.randint(4, (9,), generator=draw)
    label, other = soft_label(4, 0.6)
    target = torch.full((9, 4), other, dtype=torch.float64).scatter(1, y[:, None], label)
    divergence = F.kl_div(logits.log_softmax(1), target, reduction="none").mean()
    doubt = torch.distributions.Categorical(logits=logits).entropy().mean()
    expected = 4 * (divergence - ALPHA * doubt)
    hamp = DEFENDERS.load("hamp")
    found = hamp(0.6).criterion(logits, a_batch(logits, y))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(one, logits)[0] for one in (found, expected)))
    assert hamp.is_stackable()
    # by hand: gamma 0 is cross-entropy less the entropy
    p = torch.tensor([[0.2, 0.8]], dtype=torch.float64)
    value = hamp(0.0).criterion(p.log(), a_batch(p, torch.tensor([0]))).item()
    assert value == pytest.approx(-math.log(0.2) - 2 * ALPHA * entropy([0.2, 0.8]), abs=1e-9)


def ready(name, strength, network, its_context):
    defence = DEFENDERS.load(name)(strength)
    defence.setup_release(network.eval(), its_context)
    return defence


def test_hamp_answers_with_scores_of_random_inputs_in_the_records_own_order():
    network = lambda x: x[:, :3] * torch.tensor([1.0, 2.0, -1.0])
    wrapped = nn.Module()
    wrapped.forward = network
    one = context()
    hamp = ready("hamp", 0.95, wrapped, one)
    x = one.data.records.x
    logits = network(x)
    logits[0] = torch.tensor([2.0, 5.0, 2.0])
    shown = hamp.release(logits, x)
    assert torch.equal(shown.argmax(1), logits.argmax(1))
    assert torch.equal(shown[1:].argsort(1), logits[1:].argsort(1))
    assert shown[0, 1] > shown[0, 0] > shown[0, 2]  # of equal ones the first
    random = network(hamp._random_inputs(x))
    assert torch.equal(shown.sort(1).values, random.sort(1).values)
    # alike in any batch and order, and another answer of another network
    alone = torch.cat([hamp.release(logits[i : i + 1], x[i : i + 1]) for i in range(len(x))])
    assert torch.equal(alone, shown)
    assert torch.equal(hamp.release(logits.flip(0), x.flip(0)).flip(0), shown)
    other = ready("hamp", 0.95, wrapped, context(one.data.records, seed=1)).release(logits, x)
    assert not torch.equal(other, shown)


def random_inputs(x, **more):
    records = Records(x=x, y=torch.zeros(len(x), dtype=torch.int64), num_cls=2, **more)
    its_context = context(records, n=len(x))
    hamp = ready("hamp", 0.95, nn.Identity(), its_context)
    return hamp._random_inputs(records.batch(torch.arange(len(x)))[0])


def test_random_inputs_are_pixels_bits_or_within_the_columns_of_train_records():
    draw = torch.Generator().manual_seed(3)
    images = torch.randint(100, (90, 2, 4, 4), generator=draw, dtype=torch.uint8)
    made = random_inputs(images, mean=(0.5, 0.25), std=(0.5, 1.0))
    pixels = (made * torch.tensor([0.5, 1.0]).view(2, 1, 1)).add_(
        torch.tensor([0.5, 0.25]).view(2, 1, 1)
    ) * 255
    assert torch.allclose(pixels, pixels.round(), atol=1e-3)
    assert pixels.round().min() == 0 and pixels.round().max() == 255
    assert pixels.mean().item() == pytest.approx(127.5, abs=6)
    bits = random_inputs(torch.randint(2, (90, 40), generator=draw, dtype=torch.uint8))
    assert set(bits.unique().tolist()) == {0, 1} and bits.mean().item() == pytest.approx(
        0.5, abs=0.04
    )
    table = torch.randn(90, 3, generator=draw) + torch.tensor([0.0, 50.0, 0.0])
    table[:, 2] = 7
    made = random_inputs(table)
    low, high = table[:80].amin(0), table[:80].amax(0)
    assert (made >= low).all() and (made <= high).all() and (made[:, 2] == 7).all()
    assert made[:, 0].std().item() == pytest.approx(
        (high - low)[0].item() / math.sqrt(12), rel=0.15
    )


@pytest.mark.parametrize("name", ["hamp", *TRAINED_AS_NONE])
def test_queries_of_a_released_network_are_finite_and_in_evaluation_mode(name):
    network = nn.Sequential(nn.Linear(5, 3), nn.Dropout(0.9))
    model = BaseModel(network, device=torch.device("cpu"), generator=torch.Generator())
    one = context()
    defence = DEFENDERS.load(name)(DEFENDERS[name].options["default"])
    defence.setup_release(model.network, one)
    model.release(defence)
    every = torch.arange(40)
    logits = model.logits(one.data.records, every)
    assert logits.dtype == torch.float32 and torch.isfinite(logits).all()
    assert torch.equal(model.logits(one.data.records, every), logits)
    change = model.sensitivity(one.data.records, every, generator=torch.Generator(), draws=2)
    assert torch.isfinite(change).all()
    if name == "labelonly":
        assert (change == 0).float().mean() > 0.9  # no label changes so near to a record


@pytest.mark.parametrize("name", [name for name in DEFENDERS if DEFENDERS.load(name).keeps_class])
def test_who_sees_classes_alone_sees_the_network_itself(name):
    network = nn.Linear(5, 3)
    one = context()
    defence = DEFENDERS.load(name)(1)
    defence.setup_release(network, one)
    x = 3 * torch.randn(400, 5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = network(x)
        answers = defence.release(logits, x)
    if name != "memguard":  # sure of nobody here; see test_memguard.py
        assert not torch.allclose(answers.softmax(1), logits.softmax(1))
    assert torch.equal(answers.argmax(1), logits.argmax(1))


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory):
    return make_once(
        tmp_path_factory.mktemp("answers"),
        (pretrain,),
        (prune,),
        epochs=150,
        prune_epochs=20,
        weight_decay=0,
        shadow_num=4,
    )


def accuracies(folder, **wanted):
    return {
        line["attack"]: line["accuracy"]
        for line in lines(folder)
        if all(line[name] == value for name, value in wanted.items())
    }


@pytest.mark.parametrize("name", TRAINED_AS_NONE)
def test_it_trains_the_weights_of_none_and_knowing_it_is_another_attack(name, trained_once, capsys):
    path = trained_once.copy_here()
    run(prune, path, "--defend", name)
    (folder,) = (place.name for place in MADE.glob(f"l1unstructure_0.7_{name}_*_model"))
    plain = "l1unstructure_0.7_model"
    weights = [torch.load(MADE / one / WEIGHTS, weights_only=True) for one in (folder, plain)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[1])
    run(mia, path, "--attacks", "gap,threshold")
    told = {}
    for words in ((), ("--adaptive",)):
        capsys.readouterr()
        run(mia, path, "--defend", name, "--attacks", "gap,threshold", *words)
        told[words] = capsys.readouterr().out
        assert "kept what" not in told[words]
    assert len(lines(folder)) == 10  # each attacker's are kept
    naive, knowing = (accuracies(folder, adaptive=adaptive) for adaptive in (False, True))
    assert naive["gap"] == knowing["gap"]
    # rounding can change a class where two become equal
    tie = 0.02 if name == "round" else 0
    assert naive["gap"] == pytest.approx(accuracies(plain)["gap"], abs=tie)
    before = (MADE / folder / "attacks.jsonl").read_bytes()
    capsys.readouterr()
    run(mia, path, "--defend", name, "--attacks", "gap,threshold")
    assert "kept what" in capsys.readouterr().out
    assert (MADE / folder / "attacks.jsonl").read_bytes() == before


class Cooled(Objective):
    """Answers with a tenth of the logits: another level, and the same order."""

    def release(self, logits, x):
        return logits / 10


def test_who_does_not_know_the_defence_takes_its_answers_amiss(trained_once, monkeypatch):
    path = trained_once.copy_here()
    real = DEFENDERS.load
    monkeypatch.setattr(DEFENDERS, "load", lambda name: Cooled if name == "ppb" else real(name))
    run(prune, path, "--defend", "ppb")  # trained as none is
    run(mia, path, "--attacks", "threshold,gap")
    for words in ((), ("--adaptive",)):
        run(mia, path, "--defend", "ppb", "--attacks", "threshold,gap", *words)
    plain = {one["attack"]: one for one in lines("l1unstructure_0.7_model")}
    told = lines("l1unstructure_0.7_ppb_4_model")
    naive, knowing = (
        {one["attack"]: one for one in told if one["adaptive"] == adaptive}
        for adaptive in (False, True)
    )
    level = plain["top1_conf"]["accuracy"]
    assert level > 0.6 and naive["top1_conf"]["accuracy"] == 0.5
    assert knowing["top1_conf"]["accuracy"] == pytest.approx(level, abs=0.05)
    order = [one["top1_conf"]["auc"] for one in (plain, naive, knowing)]
    assert order == pytest.approx([order[0]] * 3, abs=0.01)
    assert naive["gap"]["accuracy"] == knowing["gap"]["accuracy"] == plain["gap"]["accuracy"]


def test_hamp_takes_the_thresholds_of_who_does_not_know_it_and_leaves_the_gap(trained_once):
    path = trained_once.copy_here()
    run(prune, path, "--defend", "hamp", "--defend_arg", "0.3")
    run(mia, path, "--attacks", "gap,threshold")
    run(mia, path, "--defend", "hamp", "--defend_arg", "0.3", "--attacks", "gap,threshold")
    plain = accuracies("l1unstructure_0.7_model")
    found = accuracies("l1unstructure_0.7_hamp_0.3_model")
    assert plain["top1_conf"] > 0.6 and found["top1_conf"] < 0.52
    assert found["conf"] < plain["conf"] and found["gap"] > 0.56


def test_a_quantised_network_answers_by_its_defence(trained_once):
    path = trained_once.copy_here()
    words = ("--quantizer", "int8", "--defend", "labelonly")
    run(quantize, path, *words, "--quantize_epochs", "1")
    run(mia, path, *words, "--attacks", "gap", "--adaptive")
    (folder,) = MADE.glob("int8_labelonly_0_model")
    shown = np.load(folder / "logits.npz")["answers"]
    assert len(np.unique(shown)) == 2 and (shown == 0).sum(axis=1).tolist() == [1] * len(shown)


def test_a_strength_that_is_no_number_of_digits_or_classes_is_refused(write_config, capsys):
    for name, strength, must in (
        ("round", "1.5", "be a whole number from 0 to 15, not 1.5"),
        ("topk", "0", "be a whole number from 1 to 1000, not 0"),
        ("labelonly", "1", "be from 0 to 0, not 1"),
    ):
        words = ["cpu", write_config(), "--defend", name, "--defend_arg", strength]
        assert prune.main(words) == 2
        said = f"error: --defend_arg, the strength of {name}, must {must}\n"
        assert capsys.readouterr().err == said
