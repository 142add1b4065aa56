"""BlindMI: against sweeps over raw points, and its generated records against OpenCV."""

import math

import numpy as np
import pytest
import torch

from attackers import Evidence, attack, blindmi
from attackers.metrics import balanced_accuracy
from attackers.signals import Signals
from datasets import Records


def kernel_of_points(p, q):
    """The sum of Gaussian kernels of BlindMIUtil.py, point by point."""
    distance = sum((a - b) ** 2 for a, b in zip(p, q))
    sigmas = [10.0**power for power in range(-6, 7) if power != 1] + [5, 10, 15, 20, 25, 30, 35]
    assert len(sigmas) == 19
    return math.fsum(math.exp(-distance / (2 * sigma)) for sigma in sigmas)


def mmd_of_points(kernel, ins, outs):
    """Biased squared MMD of points of these numbers as a double sum over pairs, each with itself too; at least 1e-4.

    NaN where there are no points on one side.
    """
    if not ins or not outs:
        return math.nan

    def mean(one, other):
        return math.fsum(kernel[p][q] for p in one for q in other) / len(one) / len(other)

    return max(mean(ins, ins) + mean(outs, outs) - 2 * mean(ins, outs), 1e-4)


def width_of_points(points):
    pairs = [(p, q) for i, p in enumerate(points) for j, q in enumerate(points) if i != j]
    return sum((a - b) ** 2 for p, q in pairs for a, b in zip(p, q)) / len(pairs)


def members_by_brute_force(batch, outside, *, at_once=True, one_kernel=False):
    """BlindMI-Diff-w from its description, and in how many sweeps: the distance is summed anew for every trial.

    Every trial is of the sets before the sweep, and the non-members are the same in every sweep; unless `at_once` is
    False, where whoever leaves does so before the next trial, and joins the non-members.
    """
    points = [*batch, *outside]
    if one_kernel:
        width = width_of_points(points)
        kernel = [
            [math.exp(-sum((a - b) ** 2 for a, b in zip(p, q)) / width) for q in points]
            for p in points
        ]
    else:
        kernel = [[kernel_of_points(p, q) for q in points] for p in points]
    inside, outs, sweeps = list(range(len(batch))), list(range(len(batch), len(points))), 0
    while True:
        before, leave = list(inside), []
        for i in before:
            without = [j for j in inside if j != i]
            if mmd_of_points(kernel, without, outs + [i]) > mmd_of_points(kernel, inside, outs):
                leave.append(i)
                if not at_once:
                    inside, outs = without, outs + [i]
        if not leave:
            return np.isin(np.arange(len(batch)), inside), sweeps
        inside, sweeps = [i for i in before if i not in leave], sweeps + 1


def points_near_two_corners(draw, *shape):
    """Points (*shape, 3), half of them in a dense cloud, the other half scattered."""
    dense = draw.random(shape) < 0.5
    return np.where(
        dense[..., None],
        0.9 + 0.02 * draw.normal(size=(*shape, 3)),
        draw.dirichlet([1, 1, 1], size=shape),
    )


def test_the_kernel_equals_its_sum_point_by_point():
    draw = np.random.default_rng(0)
    points = draw.random((2, 5, 3)) * np.logspace(-4, 0, 5)[:, None]
    exact = [[[kernel_of_points(p, q) for q in batch] for p in batch] for batch in points]
    squares = ((points[:, :, None] - points[:, None]) ** 2).sum(axis=3)
    assert blindmi.summed(squares) == pytest.approx(np.array(exact), rel=1e-12)


def test_kernels_worked_by_hand():
    # exponents of a squared distance of 2e-3: 1000, 100, 10, 1, .1, .01, .001, then 1e-3 / sigma of 5 to 1e6
    small = sum(
        math.exp(-1e-3 / sigma) for sigma in (5, 10, 15, 20, 25, 30, 35, 100, 1e3, 1e4, 1e5, 1e6)
    )
    exact = (
        math.exp(-100)
        + math.exp(-10)
        + math.exp(-1)
        + math.exp(-0.1)
        + math.exp(-0.01)
        + math.exp(-0.001)
        + small
    )
    found = blindmi.summed(np.array([[[0, 2e-3], [2e-3, 0]]]))
    assert found[0] == pytest.approx(np.array([[19, exact], [exact, 19]]), rel=1e-12)
    # of three points, mean squared distance (1 + 2 + 6) / 3 = 3
    found = blindmi.scaled(np.array([[[0, 1, 2], [1, 0, 6], [2, 6, 0]]]))
    exact = np.exp(-np.array([[0, 1, 2], [1, 0, 6], [2, 6, 0]]) / 3)
    assert found[0] == pytest.approx(exact, rel=1e-12)
    assert (blindmi.scaled(np.zeros((1, 4, 4))) == 1).all()


@pytest.mark.parametrize("kernel", [blindmi.summed, blindmi.scaled])
@pytest.mark.parametrize("seed", range(4))
def test_members_are_those_that_sweeps_over_raw_points_leave(seed, kernel):
    draw = np.random.default_rng(seed)
    batches, outside = points_near_two_corners(draw, 12, 9), draw.dirichlet([1, 1, 1], size=6)
    found = blindmi.members_among(batches, outside, kernel)
    one_kernel = kernel is blindmi.scaled
    exact, sweeps = zip(
        *(members_by_brute_force(batch, outside, one_kernel=one_kernel) for batch in batches)
    )
    assert (found == np.array(exact)).all() and 0 < found.sum() < found.size
    assert max(sweeps) > 1  # so that what the non-members are in a later sweep matters


def test_non_members_leave_at_once_and_not_one_after_the_other():
    draw = np.random.default_rng(0)
    batches, outside = points_near_two_corners(draw, 12, 9), draw.dirichlet([1, 1, 1], size=6)
    leave_one_out = [members_by_brute_force(batch, outside, at_once=False)[0] for batch in batches]
    assert (blindmi.members_among(batches, outside) != np.array(leave_one_out)).any()


def test_two_clusters_are_told_apart_exactly():
    draw = np.random.default_rng(1)
    truth = draw.permuted(np.tile(np.arange(20) < 12, (50, 1)), axis=1)
    batches = np.where(truth[..., None], [0.98, 0.98, 0.01], [0.4, 0.5, 0.4]) + 0.01 * draw.normal(
        size=(50, 20, 3)
    )
    outside = np.array([0.4, 0.5, 0.4]) + 0.01 * draw.normal(size=(20, 3))
    assert (blindmi.members_among(batches, outside) == truth).mean() > 0.99


@pytest.mark.parametrize("point", [0.0, 1 / 3, 1.0])
@pytest.mark.parametrize("count", [1, 2, 20])
@pytest.mark.filterwarnings("error")
def test_points_that_are_all_equal_stay_members(point, count):
    """Their distance is 0 wherever they are, and rounding is below the least distance that counts."""
    found = blindmi.members_among(np.full((1, count, 3), point), np.full((20, 3), point))
    assert found.shape == (1, count) and found.dtype == bool and found.all()


@pytest.mark.filterwarnings("error")
def test_all_of_a_batch_may_leave_but_never_one_alone():
    """With two points, either would by itself leave the other farther away: both leave, and nobody is a member."""
    outside = np.zeros((20, 3))
    pair = np.array([[0.5, 0.5, 0.5], [0.5, -0.5, -0.5]])
    exact, _ = members_by_brute_force(pair, outside)
    assert (blindmi.members_among(pair[None], outside)[0] == exact).all() and not exact.any()
    assert blindmi.members_among(pair[None, :1], outside).tolist() == [[True]]


def test_features_are_the_true_classes_posterior_and_the_two_largest():
    p = np.array([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3]])
    found = blindmi.features(Signals.from_posteriors(p), np.array([0, 0]))
    assert found == pytest.approx(np.array([[0.1, 0.6, 0.3], [0.5, 0.5, 0.3]]))


def blindmi_evidence(n=93, order=None):
    """Of n targets behind 60 others, a third of them with posteriors next to 1; and who they are."""
    draw = np.random.default_rng(2)
    sure = np.arange(n + 60) % 3 == 0
    p = draw.dirichlet([2] * 4, size=n + 60)
    rest = (
        0.1 * draw.random((n + 60, 1)) ** 3
    )  # few of them are far from 1: it depends on the batch who stays
    p = np.where(sure[:, None], (1 - rest) * (p == p.max(axis=1, keepdims=True)) + rest * p, p)
    labels, order = p.argmax(axis=1), np.arange(n + 60) if order is None else order
    made = draw.dirichlet([2] * 4, size=20), np.arange(20) % 4
    target = np.arange(n + 60) >= 60
    evidence = Evidence.from_posteriors(
        labels[order],
        victim=p[order],
        shadows=p[None, order],
        member=[~target],
        target=target,
        generated=made,
    )
    return evidence, sure[order][60:]


@pytest.mark.parametrize("name", ["blindmi", "blindmi_scaled"])
def test_blindmi_deals_the_targets_to_batches_of_twenty_by_the_seed(name):
    evidence, _ = blindmi_evidence()
    verdict = attack(name, evidence, seed=5)[name]
    points = blindmi.features(evidence.victim, evidence.labels)[60:]
    order = np.random.default_rng((5, *b"blindmi")).permutation(93)
    assert (order != np.arange(93)).sum() > 60
    exact = np.zeros(93, bool)
    for at in range(0, 93, 20):
        batch = order[at : at + 20]
        exact[batch], _ = members_by_brute_force(
            points[batch],
            blindmi.features(*evidence.generated),
            one_kernel=name == "blindmi_scaled",
        )
    assert (verdict.member == exact).all() and set(verdict.scores) == {0.0, 1.0}
    again, *others = (attack(name, evidence, seed=seed)[name].scores for seed in (5, 6, 7, 8, 9))
    assert (again == verdict.scores).all() and (np.array(others) != again).any()


@pytest.mark.parametrize("batches", [1, 2, 1000])
def test_blindmi_says_the_same_however_many_batches_are_in_memory(batches, monkeypatch):
    evidence, _ = blindmi_evidence()
    whole = attack("blindmi", evidence)["blindmi"].scores
    monkeypatch.setattr(blindmi, "BATCHES", batches)
    assert (attack("blindmi", evidence)["blindmi"].scores == whole).all()


def test_blindmi_finds_the_same_where_records_are_sorted():
    """Among twenty of one kind nobody stands out; dealt by the seed, batches have both kinds, sorted or not."""
    n = 1500
    _, sure = blindmi_evidence(n)
    by_kind = 60 + np.argsort(~sure, kind="stable")
    agreement = []
    for order in (None, np.concatenate([np.arange(60), by_kind])):
        evidence, truth = blindmi_evidence(n, order)
        agreement.append(balanced_accuracy(attack("blindmi", evidence)["blindmi"].member, truth))
    assert min(agreement) > 0.85 and abs(agreement[0] - agreement[1]) < 0.03
    points, outside = (
        blindmi.features(evidence.victim, evidence.labels)[60:],
        blindmi.features(*evidence.generated),
    )
    unshuffled = blindmi.members_among(
        points.reshape(-1, 20, 3), outside
    ).ravel()  # the last order: sorted
    assert balanced_accuracy(unshuffled, truth) < agreement[1] - 0.05


@pytest.mark.parametrize("count", [1, 19, 20, 21])
def test_blindmi_judges_every_target_however_many_there_are(count):
    evidence, _ = blindmi_evidence(count)
    scores = attack("blindmi", evidence)["blindmi"].scores
    assert scores.shape == (count,) and np.isin(scores, [0, 1]).all()


def test_the_sobel_gradient_of_a_step_edge_worked_by_hand():
    # (1, 2, 1) across an edge of height 10 adds up to 40 in the two columns next to it, and nothing else: half is 20
    step = np.zeros((1, 2, 5, 6), np.uint8)
    step[0, 0, :, 3:] = 10
    step[0, 1, 2:, :] = 100  # 400, cut off at 255, half of it rounded to the even 128
    found = blindmi.sobel(step)
    assert found.dtype == np.uint8 and found.shape == step.shape
    assert found[0, 0].tolist() == [[0, 0, 20, 20, 0, 0]] * 5
    assert found[0, 1].tolist() == [[0] * 6, [128] * 6, [128] * 6, [0] * 6, [0] * 6]


def test_the_sobel_gradient_adds_both_directions():
    corner = np.zeros((1, 1, 5, 5), np.uint8)
    corner[0, 0, 2:, 2:] = 8
    # at its upper left pixel: across 8 (2 + 1) = 24, down 8 (2 + 1) = 24; half of each
    assert blindmi.sobel(corner)[0, 0, 2, 2] == 24


def test_the_sobel_gradient_equals_opencvs():
    """Sobel, convertScaleAbs and addWeighted of OpenCV 5.0.0, as the authors call them; cut off in one corner."""
    image = [[34, 4, 24, 1, 250], [21, 38, 9, 26, 25], [26, 11, 23, 17, 14], [5, 10, 16, 4, 22]]
    exact = [[0, 22, 15, 128, 0], [1, 21, 21, 227, 128], [44, 36, 21, 22, 25], [0, 8, 0, 3, 0]]
    assert blindmi.sobel(np.array([[image]], np.uint8))[0, 0].tolist() == exact


def numbered(x, mean=None):
    """Records whose label is their number, which tells of what they were made."""
    return Records(torch.from_numpy(x), torch.arange(len(x)), len(x), mean, mean)


def test_generated_rows_of_a_binary_table_have_a_tenth_of_their_entries_flipped():
    draw = np.random.default_rng(0)
    records = numbered((draw.random((200, 400)) < 0.3).astype(np.uint8))
    made = blindmi.generate(records, np.arange(100, 200), seed=0)
    assert made.x.dtype == torch.uint8 and set(made.x.unique().tolist()) == {0, 1}
    assert len(made) == 20 and made.y.min() >= 100
    flipped = (made.x != records.x[made.y]).float().mean()
    assert abs(flipped - 0.1) < 4 * math.sqrt(0.1 * 0.9 / 8000)


def test_generated_images_are_gradients_of_their_own_shape():
    x = np.random.default_rng(0).integers(256, size=(30, 3, 8, 8), dtype=np.uint8)
    records = numbered(x, (0.5,) * 3).to("cpu")  # channels last, as models like them
    made = blindmi.generate(records, np.arange(30), seed=0)
    assert (
        made.x.dtype == torch.uint8 and made.x.shape == (20, 3, 8, 8) and made.mean == records.mean
    )
    assert (made.x.numpy() == blindmi.sobel(x[made.y])).all()


def test_generated_rows_of_another_table_have_noise_of_each_columns_spread():
    draw = np.random.default_rng(0)
    scale = np.array([0.1, 1, 50, 0])
    records = numbered((draw.normal(size=(400, 4)) * scale + 3).astype(np.float32))
    noise = []
    for seed in range(30):
        made = blindmi.generate(records, np.arange(400), seed=seed)
        assert made.x.dtype == torch.float32 and made.x.isfinite().all()
        noise.append((made.x - records.x[made.y]).numpy())
    noise = np.concatenate(noise).astype(float)
    assert noise.std(axis=0) == pytest.approx(scale, rel=0.15, abs=1e-4)
    assert np.abs(noise.mean(axis=0)) == pytest.approx([0] * 4, abs=6 * 50 / math.sqrt(600))


def test_a_record_made_of_an_image_has_nothing_of_another_image():
    """Nor of another channel: what is made of one channel of one image is made of it where it is alone, too."""
    images = np.random.default_rng(0).integers(256, size=(3, 2, 8, 8), dtype=np.uint8) // 8
    alone = blindmi.sobel(images[1:2, 1:2])
    assert (blindmi.sobel(images)[1:2, 1:2] == alone).all()


@pytest.mark.parametrize(
    "x",
    [
        np.eye(30, dtype=np.uint8),
        np.random.default_rng(0).normal(size=(30, 5)).astype("f4"),
        np.arange(30 * 16, dtype=np.uint16).astype(np.uint8).reshape(30, 1, 4, 4),
    ],
)
def test_what_is_generated_is_the_seeds(x):
    records = numbered(x, (0.5,) if x.ndim == 4 else None)
    one, same_seed, other = (
        blindmi.generate(records, np.arange(30), seed=seed) for seed in (3, 3, 4)
    )
    assert torch.equal(one.x, same_seed.x) and torch.equal(one.y, same_seed.y)
    assert not torch.equal(one.y, other.y)


def test_records_are_drawn_with_replacement():
    """Of 40 records, twenty draws hit 40 (1 - (39 / 40)^20) = 15.9 different ones on average; of 7 there are twenty."""
    records = numbered(np.eye(40, dtype=np.uint8))
    different = [
        len(blindmi.generate(records, np.arange(40), seed=seed).y.unique()) for seed in range(200)
    ]
    assert np.mean(different) == pytest.approx(40 * (1 - (39 / 40) ** 20), abs=0.4)
    few = blindmi.generate(numbered(np.eye(7, dtype=np.uint8)), np.arange(7), seed=0)
    assert len(few) == 20 and set(few.y.tolist()) <= set(range(7))
