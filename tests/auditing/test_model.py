"""`audit.py model`: from a user's module to the answers of all models."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import PROJECT, wait_for
from sklearn.metrics import roc_auc_score
from task_cases import OUT, PARTS, RELEASE, InThisProcess, audit_model, release, said, write_task

import auditing.run
from attackers import Evidence, attack
from auditing import training
from auditing.weaknesses import mislabelled, unlike_shadows

WORDS = ("my_task.py", "--device", "cpu", "--shadow_num", 4)


@pytest.fixture
def here(monkeypatch):
    """Shadow models are trained in this process, and no attacks are made."""
    monkeypatch.setattr(training, "Local", InThisProcess)

    def no_attacks(given, request):
        for weak in (*request.weaknesses, *mislabelled(given), *unlike_shadows(given)):
            print(f"warning: {weak.says}{' (no gate may pass)' if weak.blocks else ''}")
        return 0

    monkeypatch.setattr(auditing.run, "run", no_attacks)


def evidence(folder="audit"):
    with np.load(Path(folder, "evidence.npz"), allow_pickle=False) as file:
        return dict(file)


def digests(folder="audit"):
    """Of the answers of all models, and of each shadow model."""
    files = [Path(folder, "evidence.npz"), *sorted(Path(folder, "shadows").glob("*.npz"))]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def softmax(logits):
    return torch.softmax(torch.from_numpy(logits).double(), dim=-1).numpy()


def auc(found, name):
    made = Evidence.from_posteriors(
        found["labels"],
        victim=softmax(found["victim_logits"]),
        shadows=softmax(found["shadows_logits"]),
        member=found["shadow_member"],
        target=found["target"],
    )
    (verdict,) = attack(name, made).values()
    return roc_auc_score(found["member"][found["target"]], verdict.scores)


def test_what_the_file_holds(here, capsys):
    write_task()
    task = release()
    assert audit_model(*WORDS) == 0
    found, (x, y, member) = evidence(), task["data"]()
    assert set(found) == {
        "labels",
        "member",
        "target",
        "record_ids",
        "shadow_member",
        "victim_logits",
        "shadows_logits",
    }
    assert (found["labels"] == y.numpy()).all() and (found["member"] == member.numpy()).all()
    assert found["shadows_logits"].shape == (4, 80, 3) and found["target"].sum() == 76
    with torch.no_grad():
        expected = task["network"].eval()(x).numpy()
    np.testing.assert_array_equal(found["victim_logits"], expected)
    # a shadow model is what the module's code makes of its records, with these seeds
    from auditing.shadows import seed_everything, shadow_seed

    for number in range(4):
        seed_everything(shadow_seed(7, number))
        rows, network = np.flatnonzero(found["shadow_member"][number]), task["build"]()
        task["train"](network, x[rows], y[rows])
        with torch.no_grad():
            np.testing.assert_array_equal(
                found["shadows_logits"][number], network.eval()(x).numpy()
            )
    assert "40 members, 36 non-members as targets, 4 more" in capsys.readouterr().out


def test_what_is_there_is_kept_and_more_is_trained(here, capsys):
    write_task()
    release()
    assert audit_model(*WORDS) == 0
    before, first = digests(), evidence()
    assert audit_model(*WORDS) == 0
    assert digests() == before and "4 of 4 shadow models are there" in capsys.readouterr().out
    assert audit_model(*WORDS[:-1], 6) == 0
    np.testing.assert_array_equal(evidence()["shadows_logits"][:4], first["shadows_logits"])
    assert audit_model(*WORDS, "--out", "other", "--seed", 8) == 0
    assert not np.array_equal(evidence("other")["shadow_member"], first["shadow_member"])


CHANGES = {
    "code": ({"train": PARTS["train"].replace("range(5)", "range(6)")}, (), "made of other code:"),
    "records": ({"data": PARTS["data"].replace("2 * torch", "3 * torch")}, (), "other code and"),
    "seed": ({}, ("--seed", 8), "made of another seed (--seed 7): give --fresh"),
}


@pytest.mark.parametrize("parts, words, says", CHANGES.values(), ids=CHANGES)
def test_other_shadow_models_are_refused(here, capsys, parts, words, says):
    write_task()
    release()
    assert audit_model(*WORDS) == 0
    before = digests()
    write_task(**parts)
    assert says in said(capsys, *WORDS, *words)
    assert digests() == before
    assert audit_model(*WORDS, *words, "--fresh") == 0
    assert digests() != before
    assert audit_model(*WORDS, *words) == 0


def test_another_file_of_records_is_refused(here, capsys):
    """Where the code is the same and what it reads is not."""
    x, y = np.random.default_rng(0).normal(size=(80, 12)).astype(np.float32), np.arange(80) % 3
    np.savez("records.npz", x=x, y=y)
    write_task(
        head=PARTS["head"] + "import numpy as np\n",
        data="def data():\n    x, y = map(np.load('records.npz').get, 'xy')\n"
        "    return torch.from_numpy(x), torch.from_numpy(y), np.arange(80) < 40\n",
    )
    release()
    assert audit_model(*WORDS) == 0
    np.savez("records.npz", x=x + 1, y=y)
    assert "made of other records or members: give" in said(capsys, *WORDS)


def test_another_release_of_the_same_training_needs_no_new_shadow_models(here, capsys):
    write_task()
    release()
    release(RELEASE.replace("manual_seed(0)", "manual_seed(1)").replace("model.pt", "second.pt"))
    assert audit_model(*WORDS) == 0
    first = evidence()
    write_task(CHECKPOINT='CHECKPOINT = "second.pt"\n')
    assert audit_model(*WORDS) == 0
    assert "4 of 4 shadow models are there" in capsys.readouterr().out
    second = evidence()
    np.testing.assert_array_equal(second["shadows_logits"], first["shadows_logits"])
    assert not np.array_equal(second["victim_logits"], first["victim_logits"])


COMPRESS = {
    "in place": (
        "def compress(network, x, y):\n    with torch.no_grad():\n        network[0].weight *= 0.5\n"
    ),
    "returned": (
        "def compress(network, x, y):\n    return nn.Sequential(network, nn.Linear(3, 3))\n"
    ),
}


@pytest.mark.parametrize("compress", COMPRESS.values(), ids=COMPRESS)
def test_compression_before_release(here, compress):
    """Shadow models are compressed too; with ORIGINAL an attacker holds both of each."""
    write_task(compress=compress)
    task = release(
        RELEASE.replace("model.pt", "full.pt") + "import copy\nmade = copy.deepcopy(network)\n"
        "made = compress(made, x[member], y[member]) or made\n"
        "torch.save(made.state_dict(), 'model.pt')\n"
    )
    assert audit_model(*WORDS) == 0
    alone = evidence()
    assert "original_logits" not in alone
    write_task(compress=compress, more='ORIGINAL = "full.pt"\n')
    assert audit_model(*WORDS) == 0
    both, x = evidence(), task["x"]
    with torch.no_grad():
        np.testing.assert_array_equal(both["original_logits"], task["network"].eval()(x).numpy())
        np.testing.assert_array_equal(both["victim_logits"], task["made"].eval()(x).numpy())
    np.testing.assert_array_equal(both["shadows_logits"], alone["shadows_logits"])
    assert both["original_shadows_logits"].shape == both["shadows_logits"].shape
    assert not np.array_equal(both["original_shadows_logits"], both["shadows_logits"])


def test_compress_takes_the_network_as_train_leaves_it(here):
    """Not in the mode in which it was asked for its answers before."""
    write_task(
        compress="def compress(network, x, y):\n"
        "    if not network.training:\n"
        "        raise ValueError('evaluation mode')\n"
    )
    release()
    assert audit_model(*WORDS) == 0


def test_posteriors_of_one_make_posteriors_of_all(here):
    """The released program ends in a softmax, which build()'s network has not."""
    write_task(CHECKPOINT='CHECKPOINT = "model.ts"\n')
    release(
        RELEASE
        + "torch.jit.script(nn.Sequential(network, nn.Softmax(1))).eval().save('model.ts')\n"
    )
    assert audit_model(*WORDS) == 0
    found = evidence()
    assert {"victim", "shadows"} <= set(found) and "victim_logits" not in found
    np.testing.assert_allclose(found["shadows"].sum(axis=2), 1, atol=1e-5)


# ---- what goes wrong in training


def test_code_that_raises_while_it_trains(here, capsys):
    """One line with the place, the traceback on stderr; what is finished is kept."""
    write_task(
        train=PARTS["train"]
        + "    if x[0, 0] not in (FIRST, SECOND):\n        raise ValueError('no')\n",
        more="FIRST = SECOND = 0\n",
    )
    release(RELEASE.replace("train(network, x", "pass; (network, x"))
    line = said(capsys, *WORDS)
    assert "shadow model 0: my_task.py:20 in train: ValueError: no (all it printed: " in line
    assert not Path("audit/evidence.npz").exists()


def test_finished_shadow_models_outlive_one_that_fails(here, capsys):
    write_task(
        train=PARTS["train"] + "    open('ran.txt', 'a').write('x')\n    fails()\n",
        more="def fails():\n    if len(open('ran.txt').read()) == 3:\n        int('x')\n",
    )
    release(RELEASE.replace("train(network, x", "pass; (network, x"))
    line = said(capsys, *WORDS)
    assert "shadow model 2: my_task.py" in line and "in fails: ValueError" in line
    assert audit_model(*WORDS) == 0
    assert len(Path("ran.txt").read_text()) == 5  # two, the one that failed, two
    assert "2 of 4 shadow models are there already" in capsys.readouterr().out


def test_records_that_change_at_each_call(here, capsys):
    write_task(data=PARTS["data"].replace("generator=draw", ""))
    release("\ntorch.save(build().state_dict(), 'model.pt')\n")
    assert "data() returns other records each time" in said(capsys, *WORDS)


def test_a_training_that_diverges(here, capsys):
    write_task(
        train=PARTS["train"] + "    torch.nn.init.constant_(network[0].weight, float('nan'))\n"
    )
    release("\ntorch.save(build().state_dict(), 'model.pt')\n")
    assert "the shadow model answers NaN or infinity to 80 of 80 records" in said(capsys, *WORDS)


# ---- what is odd


def warned(capsys):
    lines = capsys.readouterr().out.splitlines()
    return " | ".join(line for line in lines if line.startswith("warning: "))


LONG = PARTS["train"].replace("range(5)", "range(300)").replace("lr=0.1", "lr=0.5")


def test_a_task_that_is_as_it_should_be_is_not_warned_of(here, capsys):
    write_task(train=LONG)
    release()
    assert audit_model(*WORDS) == 0
    assert warned(capsys) == ""


ODD = {
    "nothing is trained": (
        {"train": "def train(network, x, y):\n    pass\n"},
        "train() left 4 of 4 shadow models as build() made them",
    ),
    "labels in another order": (
        {"data": PARTS["data"].replace("return x, y,", "return x, (y + 1) % 3,")},
        "0.0 % of its own members right, no more than guessing",
    ),
    "trained otherwise": (
        {"train": LONG.replace("y).backward", "y.roll(1)).backward")},
        "or member is not the truth; attacks by them are then weaker (no gate may pass)",
    ),
    "a rare class": (
        {"data": PARTS["data"].replace("    return", "    y[y == 2], y[0] = 1, 2\n    return")},
        "class 2 has 1 record among 3 classes' targets: 2 of 4 shadow models",
    ),
    "few non-members": (
        {"data": PARTS["data"].replace("% 2 == 0", "> 15")},
        "fewer non-members (16) than members (64): shadow models have 39 records each",
    ),
    "copies": (
        {"data": PARTS["data"].replace("    return", "    x[1], x[3] = x[0], x[0]\n    return")},
        "2 of 40 non-members are copies of members",
    ),
}


@pytest.mark.parametrize("parts, says", ODD.values(), ids=ODD)
def test_what_is_odd_gets_a_line(here, capsys, parts, says):
    write_task(train=LONG)
    release()
    write_task(**{"train": LONG} | parts)
    assert audit_model(*WORDS) == 0
    assert says in warned(capsys)


# ---- what the evidence tells

MEMORISES = (
    "def train(network, x, y):\n"
    "    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)\n"
    "    for _ in range(150):\n"
    "        optimiser.zero_grad()\n"
    "        cross_entropy(network(x), y).backward()\n"
    "        optimiser.step()\n"
)
NOISE = (
    "def data():\n"
    "    draw = torch.Generator().manual_seed(1)\n"
    "    x, y = torch.randn(400, 12, generator=draw), torch.randint(3, (400,), generator=draw)\n"
    "    return x, y, torch.arange(400) % 2 == 0\n"
)
WIDE = "def build():\n    return nn.Sequential(nn.Linear(12, 128), nn.ReLU(), nn.Linear(128, 3))\n"


@pytest.mark.parametrize("name", ["lira", "rmia"])
def test_a_model_that_memorises_is_found(here, name):
    """Labels are noise, so that only who was trained on can be answered right."""
    write_task(build=WIDE, train=MEMORISES, data=NOISE)
    release()
    assert audit_model(*WORDS[:-1], 8) == 0
    assert auc(evidence(), name) > 0.85


@pytest.mark.parametrize("name", ["lira", "rmia"])
def test_a_model_of_other_records_tells_nothing(here, name):
    """The released model has none of the records: whoever is said to be a member, by chance."""
    write_task(build=WIDE, train=MEMORISES, data=NOISE)
    release(RELEASE.replace("train(network, x[member]", "train(network, torch.randn(200, 12)"))
    assert audit_model(*WORDS[:-1], 8) == 0
    # of 200 members and 180 non-members, chance has a standard deviation of 0.030
    assert abs(auc(evidence(), name) - 0.5) < 0.09


# ---- processes

AUDIT = str(PROJECT / "audit.py")


@pytest.mark.survive
@pytest.mark.slow
def test_killed_and_given_again_it_is_the_same_to_the_bit():
    write_task()
    release()
    words = [sys.executable, AUDIT, "model", *map(str, WORDS), "--workers", "2", "--out"]
    run = subprocess.Popen([*words, "killed"])
    wait_for(lambda: any(Path("killed/shadows").glob("*.npz")))
    run.kill()
    run.wait()
    assert not Path("killed/evidence.npz").exists()
    made = subprocess.run([*words, "killed"], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert "shadow models are there already" in made.stdout
    subprocess.run([*words, "whole"], check=True)
    assert digests("killed") == digests("whole")
    assert json.loads(Path("whole/shadows/task.json").read_text())["seed"] == 7
    assert not list(Path("whole").rglob("*.part")) and not list(
        Path("whole").rglob("shadow_*.json")
    )


@pytest.mark.slow
def test_a_task_as_people_write_them():
    """Records in a file beside the task, a network in a module called `models`, data loaders with
    processes of their own, and another working folder."""
    Path("task").mkdir()
    draw = np.random.default_rng(0)
    np.savez("task/records.npz", x=draw.normal(size=(60, 12)), y=np.arange(60) % 3)
    Path("task/models.py").write_text(PARTS["head"] + PARTS["build"])
    write_task(
        "task/my_task.py",
        head=PARTS["head"] + "import numpy as np\nfrom models import build\n"
        "from torch.utils.data import DataLoader, TensorDataset\n",
        build=None,
        train=(
            "def train(network, x, y):\n"
            "    records = TensorDataset(torch.from_numpy(x).float(), torch.from_numpy(y))\n"
            "    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)\n"
            "    for a, b in DataLoader(records, batch_size=9, shuffle=True, num_workers=1):\n"
            "        optimiser.zero_grad()\n"
            "        cross_entropy(network(a), b).backward()\n"
            "        optimiser.step()\n"
            "    print('trained on', len(y))\n"
        ),
        data="def data():\n    file = np.load('records.npz')\n"
        "    return file['x'], file['y'], np.arange(60) < 25\n",
    )
    make = "from my_task import *\ntorch.save(build().state_dict(), 'model.pt')\n"
    subprocess.run([sys.executable, "-c", make], cwd="task", check=True)
    words = ["model", "task/my_task.py", "--device", "cpu", "--shadow_num", "2", *OUT]
    made = subprocess.run([sys.executable, AUDIT, *words], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert evidence()["shadows_logits"].shape == (2, 60, 3)
    assert Path("audit/shadows/shadow_0.log").read_text() == "trained on 25\n"
    assert Path("audit/audit.html").is_file()


# ---- the command line

COMMANDS = {
    "odd": (("--shadow_num", "3"), "--shadow_num must be even, not 3"),
    "none": (("--shadow_num", "0"), "--shadow_num must be 2 or more"),
    "no number": (("--shadow_num", "many"), "must be a whole number, not 'many'"),
    "unknown": (("--shadows", "4"), "unknown argument '--shadows', did you mean '--shadow_num'?"),
    "no device": (("--device", "gpu"), "--device must be a GPU's number, cuda:N or cpu"),
    "no such GPU": (("--device", "77"), "GPU 77 does not exist"),
    "shares": (("--gpus_per_shadow", "1"), "are for --ray ADDRESS"),
    "workers": (("--ray", "auto", "--workers", "2"), "--workers is for this machine"),
    "no workers": (("--workers", "0"), "must be above 0"),
    "out": (("--out", "my_task.py"), "is a file; a folder is needed"),
    "no cluster": (("--ray", "127.0.0.1:9"), "no Ray cluster at 127.0.0.1:9"),
}


@pytest.mark.parametrize("words, says", COMMANDS.values(), ids=COMMANDS)
def test_a_wrong_command_gets_one_line(capsys, words, says):
    write_task()
    release()
    assert says in said(capsys, "my_task.py", *words)
    assert not Path("audit/evidence.npz").exists()


def test_a_train_that_raised_is_mended_and_the_audit_goes_on(here, capsys):
    """Nothing was trained by the code before: nothing is refused."""
    write_task(train=LONG)
    release()
    write_task(train=LONG.replace("    optimiser =", "    raise ValueError('oh')\n    optimiser ="))
    assert audit_model(*WORDS) == 2
    assert "ValueError: oh" in capsys.readouterr().err
    write_task(train=LONG)
    assert audit_model(*WORDS) == 0
