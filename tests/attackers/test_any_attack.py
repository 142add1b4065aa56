"""Every attack on arrays alone, without models or options."""

import numpy as np
import pytest
from attack_cases import FITTING, N, S, as_seen_by, balanced_member, same_verdict
from helpers import fixed_evidence

from attackers import ATTACKS, Evidence, attack
from core.console import UserError


def arrays(online, *, n=120, num_cls=3, shadows=8, labels=np.int64):
    draw = np.random.default_rng(11)
    target = np.arange(n) < n // 2
    member = balanced_member(draw, shadows, n) & (target == online)
    return dict(
        labels=draw.integers(num_cls, size=n).astype(labels),
        victim=draw.dirichlet([1] * num_cls, size=n),
        shadows=draw.dirichlet([1] * num_cls, size=(shadows, n)),
        member=member,
        target=target,
        x=draw.normal(size=(n, 5)).astype(np.float32),
        generated=(draw.dirichlet([1] * num_cls, size=20), np.arange(20) % num_cls),
        distillation=(
            draw.dirichlet([1] * num_cls, size=(3, n)),
            draw.dirichlet([1] * num_cls, size=(shadows, 3, n)),
        ),
        also={
            "original": (
                draw.dirichlet([1] * num_cls, size=n),
                draw.dirichlet([1] * num_cls, size=(shadows, n)),
            )
        },
    )


@pytest.mark.parametrize(
    "name, online", [(name, online) for name in ATTACKS for online in (False, True)]
)
@pytest.mark.filterwarnings("error")
def test_an_attack_takes_arrays_and_no_options(name, online, short_training):
    evidence = Evidence.from_posteriors(**arrays(online))
    assert evidence.online == online
    if name == "samia" or name == "lira_online" and not online:
        with pytest.raises(UserError):
            attack(name, evidence)
        return
    found = attack(name, as_seen_by(name, evidence))
    assert list(found) == list(ATTACKS[name].options.get("reports", [name]))
    for verdict in found.values():
        assert (
            verdict.scores.shape == verdict.member.shape == (60,)
            and np.isfinite(verdict.scores).all()
        )
        assert np.shape(verdict.threshold) in {(), (60,)} and np.isfinite(verdict.threshold).all()
        assert (verdict.member == (verdict.scores >= verdict.threshold)).all()


@pytest.mark.parametrize(
    "name, kind",
    [
        (name, kind)
        for name in ATTACKS
        if name not in ("samia", "lira_online")
        for kind in (np.int32, np.uint8)
    ],
)
def test_labels_may_be_integers_of_any_kind(name, kind, short_training):
    wide, narrow = (
        attack(name, as_seen_by(name, Evidence.from_posteriors(**arrays(False, labels=labels))))
        for labels in (np.int64, kind)
    )
    for verdict in wide:
        assert wide[verdict].scores == pytest.approx(narrow[verdict].scores)


@pytest.mark.parametrize("name", ["nn", "qmia", "loss_trajectory", "seqmia"])
def test_an_attack_that_trains_is_the_seeds(name, short_training):
    evidence = Evidence.from_posteriors(**arrays(False))
    one, again, other = (attack(name, evidence, seed=seed)[name] for seed in (0, 0, 1))
    assert same_verdict(one, again) and not same_verdict(one, other)


@pytest.mark.parametrize(
    "what, wrong",
    [
        ("victim", np.log(FITTING["victim"] + 1e-9)),
        ("shadows", FITTING["shadows"] * 9),
        ("victim", np.where(np.arange(N)[:, None] == 3, np.nan, FITTING["victim"])),
        ("member", np.zeros((S, N), bool)),
    ],
)
def test_what_is_no_posterior_of_a_shadow_model_is_refused(what, wrong):
    with pytest.raises(ValueError, match="posteriors|no shadow model was trained"):
        Evidence.from_posteriors(**FITTING | {what: wrong})


def test_an_option_that_an_attack_does_not_have_is_refused():
    evidence = Evidence.from_posteriors(**arrays(True))
    for name, wrong in (("lira", "fix_varianc"), ("loss", "fix_variance"), ("rmia", "gamma")):
        with pytest.raises(TypeError, match=f"{name} has no option {wrong}"):
            attack(name, evidence, **{wrong: 1})


def test_verdicts_under_other_names_than_registered_are_refused(monkeypatch):
    monkeypatch.setattr("attackers.loss.gap", lambda evidence, **_: {"gap2": None})
    with pytest.raises(ValueError, match=r"gap returned verdicts \['gap2'\], but is registered"):
        attack("gap", fixed_evidence(online=False))
