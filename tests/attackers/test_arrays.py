"""Arrays of other tools: what is exact is converted, rounding is tolerated, and all else is refused by name."""

import re
import warnings

import numpy as np
import pandas
import pytest
import torch

from attackers import Evidence, arrays, attack

N, S, C, M = 12, 3, 4, 5
DRAW = np.random.default_rng(0)


def distribution(*shape):
    return DRAW.dirichlet(np.ones(C), size=shape)


GOOD = dict(
    labels=np.arange(N) % C,
    victim=distribution(N),
    shadows=distribution(S, N),
    member=np.arange(N) % 2 == np.arange(S)[:, None] % 2,
    target=np.arange(N) < 8,
    calibration_mask=np.ones((S, N), bool),
    x=DRAW.normal(size=(N, 2)).astype(np.float32),
    sensitivity=(distribution(N), distribution(S, N)),
    generated=(distribution(M), np.arange(M) % C),
)
# every argument, those that are pairs by their halves
PARTS = [
    "labels",
    "victim",
    "shadows",
    "member",
    "target",
    "calibration_mask",
    "x",
    "sensitivity[0]",
    "sensitivity[1]",
    "generated[0]",
    "generated[1]",
]
WITH_ROWS = {"victim", "shadows", "generated[0]"}
FLAGS = {"member", "target", "calibration_mask"}


def part_of(name):
    whole, _, index = name.partition("[")
    return GOOD[whole] if not index else GOOD[whole][int(index[0])]


def with_part(name, value):
    whole, _, index = name.partition("[")
    if not index:
        return GOOD | {whole: value}
    halves = list(GOOD[whole])
    halves[int(index[0])] = value
    return GOOD | {whole: tuple(halves)}


def same(one, other):
    signals = [
        (one.victim, other.victim),
        (one.generated[0], other.generated[0]),
        *zip(one.shadows, other.shadows),
    ]
    assert all(np.array_equal(a.posteriors(), b.posteriors()) for a, b in signals)
    assert all(np.array_equal(a.logits, b.logits) for a, b in signals)
    assert np.array_equal(one.victim.sensitivity, other.victim.sensitivity)
    assert torch.equal(one.records.x, other.records.x) and np.array_equal(
        one.generated[1], other.generated[1]
    )
    for name in ("labels", "member", "calibration_mask", "target"):
        assert np.array_equal(getattr(one, name), getattr(other, name))


# ---- refused ---------------------------------------------------------------------------------------------------------


def poked(value, wrong):
    """The array with its second value replaced."""
    value = np.array(value, dtype=np.float64)
    value.flat[1] = wrong
    return value


class Stubborn:
    """Like an array of another library that cannot come to the host."""

    def __array__(self, *_, **__):
        raise TypeError("Implicit conversion to a NumPy array is not allowed.\nUse .get()")


BAD = {
    "nan": lambda v: poked(v, np.nan),
    "infinity": lambda v: poked(v, np.inf),
    "minus one": lambda v: poked(v, -1),
    "text": lambda v: v.astype(str),
    "words": lambda v: np.full(v.shape, "yes"),
    "objects": lambda v: np.full(v.shape, object()),
    "none inside": lambda v: np.where(np.arange(v.size).reshape(v.shape) == 1, None, v),
    "complex": lambda v: v.astype(complex),
    "dates": lambda v: np.full(v.shape, "2026-01-01", "datetime64[D]"),
    "a record type": lambda v: np.zeros(v.shape, [("a", "f4"), ("b", "f4")]),
    "one too many dimensions": lambda v: v[..., None],
    "one dimension too few": lambda v: v[0],
    "a row short": lambda v: v[:-1] if v.ndim == 1 or len(v) == N else v[:, :-1],
    "empty": lambda v: v[:0],
    "of no length": lambda v: np.zeros((0,) * v.ndim),
    "ragged": lambda v: [v.tolist(), [[1]]],
    "a number": lambda v: 3,
    "a dictionary": lambda v: {"values": v},
    "a set": lambda v: set(v.ravel().tolist()),
    "a word": lambda v: "values.npy",
    "of another library": lambda v: Stubborn(),
    "on no device": lambda v: torch.empty(v.shape, device="meta"),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("name", PARTS)
@pytest.mark.filterwarnings("error")
def test_what_is_bad_ends_in_one_line_that_names_the_argument(name, kind):
    if (name, kind) == ("x", "minus one"):
        pytest.skip("a table may have any numbers")
    if kind == "a row short" and name == "generated[0]":
        name, wrong = (
            "generated[1]",
            with_part("generated[0]", part_of("generated[0]")[:-1]),
        )  # labels are too many
    else:
        wrong = with_part(name, BAD[kind](part_of(name)))
    with pytest.raises(ValueError) as raised:
        Evidence.from_posteriors(**wrong)
    said = str(raised.value)
    # the victim says what N is: where it is too short, the labels are too many
    about = "labels" if (name, kind) == ("victim", "a row short") else name
    assert said.startswith(about) and "\n" not in said and len(said) < 250
    if kind in ("nan", "infinity", "minus one"):
        assert re.match(re.escape(name) + r"(\[\d+\])?\[\d+(, \d+)*\] is (nan|inf|-1)", said)


@pytest.mark.parametrize("name", PARTS)
def test_an_argument_that_is_missing_is_named(name):
    if name in ("target", "calibration_mask", "x"):
        assert Evidence.from_posteriors(**with_part(name, None))
        return
    with pytest.raises(ValueError, match="^" + re.escape(name) + " must be numbers, not None"):
        Evidence.from_posteriors(**with_part(name, None))


def sigmoid_sums(p):
    return 1 / (1 + 1 / p)


@pytest.mark.parametrize("name", sorted(WITH_ROWS))
@pytest.mark.parametrize(
    "scores",
    [
        lambda p: 0.2 * p,
        lambda p: 0.9 * p,
        sigmoid_sums,
        lambda p: np.log(p),
        lambda p: 100 * p,
        lambda p: 0 * p,
        lambda p: np.round(0.2 * p, 2),
        lambda p: np.ones(p.shape),
        lambda p: p * [1, 1, 1, 0],
    ],
)
@pytest.mark.filterwarnings("error")
def test_scores_that_are_no_distribution_are_refused_with_the_first_row(name, scores):
    p, begin = part_of(name), "^" + re.escape(name)
    with pytest.raises(
        ValueError,
        match=begin
        + r"(\[\d+\])+ sums to .* softmax|"
        + begin
        + r".* is .* from 0 to 1; of logits, take the softmax",
    ):
        Evidence.from_posteriors(**with_part(name, scores(p)))
    rows = p.reshape(-1, C).copy()
    rows[7 % len(rows)] *= 0.5
    with pytest.raises(ValueError, match=r"sums to 0\.5") as raised:
        Evidence.from_posteriors(**with_part(name, rows.reshape(p.shape)))
    row = "[2]" if name == "generated[0]" else "[0][7]" if name == "shadows" else "[7]"
    assert str(raised.value).startswith(f"{name}{row} ")


def test_the_probability_of_one_of_two_classes_is_not_taken_for_posteriors():
    p = DRAW.random((N, 1))
    with pytest.raises(
        ValueError,
        match="^victim must have a column for each of at least 2 classes: .* 1 - p and p",
    ):
        Evidence.from_posteriors(**GOOD | {"victim": p})


@pytest.mark.parametrize("name", sorted(FLAGS))
@pytest.mark.parametrize(
    "as_written, first",
    [
        (lambda v: np.where(v, 1, -1), "is -1: .* 1 or 0"),
        (lambda v: np.where(v, 2, 1), "is 2: .* 1 or 0"),
        (lambda v: np.where(v, "member", "other"), "must be numbers, not '(member|other)'"),
        (lambda v: np.where(v, "True", "False"), "must be numbers, not '(True|False)'"),
        (lambda v: np.where(v, 0.9, 0.1), r"is 0\.[19]: .* 1 or 0"),
    ],
)
def test_membership_that_is_written_otherwise_is_refused(name, as_written, first):
    values = part_of(name).copy()
    values.flat[-1] = False  # so that each has both
    with pytest.raises(ValueError, match="^" + name + r".*" + first):
        Evidence.from_posteriors(**with_part(name, as_written(values)))


@pytest.mark.parametrize(
    "labels, said",
    [
        (np.arange(N) % C + 1, r"labels\[3\] is 4: class numbers are from 0 to 3"),
        (np.arange(N) % C + 0.5, r"labels\[0\] is 0.5: class numbers are whole"),
        (
            np.eye(C)[np.arange(N) % C],
            r"labels must be class numbers of shape \(N,\) = \(12,\), not of shape \(12, 4\)",
        ),
        (["cat"] * N, "labels must be numbers, not 'cat'"),
    ],
)
def test_labels_that_are_no_classes_are_refused(labels, said):
    with pytest.raises(ValueError, match=f"^{said}"):
        Evidence.from_posteriors(**GOOD | {"labels": labels})
    if "from 0" in said:
        with pytest.raises(ValueError, match=r"^generated\[1\]\[4\] is 4"):
            Evidence.from_posteriors(**with_part("generated[1]", np.arange(M)))


@pytest.mark.parametrize("name", ["sensitivity", "generated"])
@pytest.mark.parametrize(
    "value, said",
    [
        (GOOD["victim"], "not a ndarray"),
        ([GOOD["victim"]], "not a list of 1"),
        ({"a": 1}, "not a dict"),
        ((GOOD["victim"],) * 3, "not a tuple of 3"),
        (torch.zeros(2, C), "not a Tensor"),
        (7, "not a int"),
    ],
)
def test_what_is_no_pair_is_refused(name, value, said):
    with pytest.raises(ValueError, match=f"^{name} must be a pair, .*, {said}"):
        Evidence.from_posteriors(**GOOD | {name: value})


def test_sensitivities_are_needed_of_the_records_that_are_learnt_from_and_judged():
    of_victim, of_shadows = (values.copy() for values in GOOD["sensitivity"])
    calibration_mask = GOOD["calibration_mask"].copy()
    calibration_mask[1, 3] = False
    of_victim[8:], of_shadows[1, 3] = np.nan, np.nan
    assert Evidence.from_posteriors(
        **GOOD | {"sensitivity": (of_victim, of_shadows), "calibration_mask": calibration_mask}
    )
    with pytest.raises(ValueError, match=r"^sensitivity\[1\]\[1, 3, 0\] is nan"):
        Evidence.from_posteriors(**GOOD | {"sensitivity": (of_victim, of_shadows)})
    of_victim[7, 1] = np.nan
    with pytest.raises(ValueError, match=r"^sensitivity\[0\]\[7, 1\] is nan"):
        Evidence.from_posteriors(
            **GOOD | {"sensitivity": (of_victim, of_shadows), "calibration_mask": calibration_mask}
        )


@pytest.mark.parametrize(
    "what, said",
    [
        ("target", "target: none"),
        ("calibration_mask", "calibration_mask: no shadow"),
        ("member", "member: no shadow"),
    ],
)
def test_nothing_to_judge_or_to_learn_from_is_said(what, said):
    with pytest.raises(ValueError, match=f"^{said}"):
        Evidence.from_posteriors(**GOOD | {what: np.zeros_like(GOOD[what])})


def test_images_are_bytes():
    bytes_ = DRAW.integers(256, size=(N, 3, 5, 5))
    for kind in (np.uint8, np.int64):
        found = Evidence.from_posteriors(**GOOD | {"x": bytes_.astype(kind)}).records
        assert found.x.dtype == torch.uint8 and (found.x.numpy() == bytes_).all()
    for wrong, said in (
        (bytes_ / 255, "not float64: of pixels from 0 to 1"),
        (bytes_ + 1, r"x\[.*\] is 256: pixels"),
        (bytes_ - 300, r"x\[0, 0, 0, 0\] is -"),
        (bytes_ > 9, "not bool"),
    ):
        with pytest.raises(ValueError, match=f"^x.*{said}|^{said}"):
            Evidence.from_posteriors(**GOOD | {"x": wrong})
    with pytest.raises(ValueError, match=r"^x\[1, 1\] is inf"):  # beyond float32
        Evidence.from_posteriors(
            **GOOD | {"x": np.where(np.arange(2 * N).reshape(N, 2) == 3, 1e300, 0)}
        )


# ---- tolerated and converted -----------------------------------------------------------------------------------------


def of_tensors(change):
    return {
        name: tuple(change(torch.as_tensor(half)) for half in value)
        if isinstance(value, tuple)
        else change(torch.as_tensor(value))
        for name, value in GOOD.items()
    }


def with_gradient(tensor):
    return tensor.requires_grad_() if tensor.is_floating_point() else tensor


DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "change",
    [
        lambda t: t,
        with_gradient,
        lambda t: with_gradient(t.clone()).mul(1) if t.is_floating_point() else t,
        lambda t: t.to_sparse(),
        lambda t: list(t),
    ],
    ids=["tensor", "leaf with gradient", "with gradient", "sparse", "list of tensors"],
)
@pytest.mark.filterwarnings("error")
def test_tensors_are_taken_digit_by_digit(change, device):
    given = of_tensors(lambda t: change(t.clone().to(device)))
    same(Evidence.from_posteriors(**given), Evidence.from_posteriors(**GOOD))


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.tolist(),
        list,
        lambda v: v.astype(object),
        lambda v: np.asfortranarray(v),
        lambda v: v[...],
        lambda v: pandas.DataFrame(v) if v.ndim == 2 else pandas.Series(v) if v.ndim == 1 else v,
        lambda v: v.astype(v.dtype.newbyteorder()),
    ],
    ids=[
        "lists",
        "list of arrays",
        "objects",
        "Fortran order",
        "views",
        "pandas",
        "other byte order",
    ],
)
@pytest.mark.filterwarnings("error")
def test_arrays_in_other_forms_are_taken_digit_by_digit(change):
    given = {
        name: tuple(map(change, value)) if isinstance(value, tuple) else change(value)
        for name, value in GOOD.items()
    }
    same(Evidence.from_posteriors(**given), Evidence.from_posteriors(**GOOD))


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.int8, np.uint8])
@pytest.mark.filterwarnings("error")
def test_labels_and_flags_may_be_whole_numbers_of_any_kind(kind):
    names = ("labels", "member", "target", "calibration_mask")
    same(
        Evidence.from_posteriors(**GOOD | {name: GOOD[name].astype(kind) for name in names}),
        Evidence.from_posteriors(**GOOD),
    )


@pytest.mark.parametrize("name", sorted(WITH_ROWS))
@pytest.mark.parametrize("kind", [np.float32, np.float16, torch.bfloat16])
def test_less_precise_posteriors_are_taken_as_they_are(name, kind):
    """Half precision sums to 1 within 0.001, bfloat16 within 0.01."""
    p = part_of(name)
    given = torch.tensor(p).to(kind) if kind is torch.bfloat16 else p.astype(kind)
    exact = given.double().numpy() if kind is torch.bfloat16 else given.astype(np.float64)
    warned = kind is torch.bfloat16 and bool(np.abs(exact.sum(axis=-1) - 1).max() > 1e-3)
    assert warned or kind is not torch.bfloat16 or name == "generated[0]"  # which has five rows
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        evidence = Evidence.from_posteriors(**with_part(name, given))
    begin = f"{name}: posteriors look rounded, rows sum to"
    assert [str(one.message).startswith(begin) for one in caught] == [True] * warned
    found = {
        "victim": [evidence.victim],
        "shadows": evidence.shadows,
        "generated[0]": [evidence.generated[0]],
    }[name]
    assert np.array_equal(
        [one.posteriors()[0] for one in found], exact.reshape(-1, *exact.shape[-2:])
    )


@pytest.mark.parametrize(
    "above", [np.float32(1.0000001), 1 + 1e-7, np.nextafter(np.float32(1), np.float32(2))]
)
@pytest.mark.filterwarnings("error")
def test_rounding_beyond_one_and_below_zero_is_cut_off(above):
    victim = GOOD["victim"].astype(np.float32)
    victim[2] = [above, 0, -1e-8, 0]
    evidence = Evidence.from_posteriors(**GOOD | {"victim": victim})
    assert evidence.victim.posteriors()[0][2].tolist() == [1, 0, 0, 0]
    assert np.array_equal(
        np.delete(evidence.victim.posteriors()[0], 2, 0), np.delete(victim, 2, 0).astype(float)
    )
    for name in ("loss", "threshold"):
        assert all(np.isfinite(verdict.scores).all() for verdict in attack(name, evidence).values())


@pytest.mark.parametrize(
    "beyond, taken", [(1.005, True), (1.011, False), (-0.005, True), (-0.011, False)]
)
def test_a_value_a_little_outside_is_warned_of_and_one_further_outside_refused(beyond, taken):
    victim = GOOD["victim"].copy()
    victim[2] = [beyond, 1 - beyond, 0, 0] if beyond < 0 else [beyond, 0, 0, 0]
    if taken:
        with pytest.warns(UserWarning, match="^victim: posteriors look rounded"):
            found = Evidence.from_posteriors(**GOOD | {"victim": victim}).victim.posteriors()[0]
        assert found.min() >= 0 and found.max() <= 1
    else:
        with pytest.raises(ValueError, match=r"^victim\[2, [01]\] is (1\.011|-0\.011)"):
            Evidence.from_posteriors(**GOOD | {"victim": victim})


@pytest.mark.parametrize("decimals", [2, 3, 4])
@pytest.mark.parametrize("num_cls, concentration", [(3, 1.0), (10, 0.3), (100, 0.1), (100, 1.0)])
def test_posteriors_that_are_honestly_rounded_pass_and_the_same_scaled_do_not(
    decimals, num_cls, concentration
):
    p = np.random.default_rng(1).dirichlet(np.full(num_cls, concentration), size=300)
    rounded = p.round(decimals)
    worst = np.abs(rounded.sum(axis=1) - 1).max()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = arrays.posteriors("victim", rounded, (None, None), "posteriors")
    assert found is rounded and bool(caught) == (worst > 1e-3)
    for wrong in (0.5 * p, 1.3 * p):
        with pytest.raises(ValueError, match="sums to|is "):
            arrays.posteriors("victim", wrong.round(decimals), (None, None), "posteriors")


@pytest.mark.filterwarnings("error")
def test_exact_posteriors_are_not_copied_or_changed():
    p = GOOD["victim"].copy()
    assert (
        arrays.posteriors("victim", p, (None, None), "posteriors") is p
        and (p == GOOD["victim"]).all()
    )
