"""The distance to the nearest other class, held against closed forms and gradients."""

import math

import pytest
import torch

from attackers.hop_skip_jump import boundary_distances
from base_model import BaseModel, TrainConfig, TrainSet
from core.devices import generator
from datasets import Records
from models import build


def gen(seed=1):
    return torch.Generator().manual_seed(seed)


def linear(d, seed=1):
    """A plane through the middle of the cube: unit normal, classes of points, points near the plane."""
    w = torch.nn.functional.normalize(
        torch.randn(d, generator=gen(seed), dtype=torch.float64), dim=0
    )
    x = 0.5 + 0.05 * torch.randn(30, d, generator=gen(seed + 1), dtype=torch.float64)
    return w, lambda points: ((points - 0.5) @ w > 0).long(), x


@pytest.mark.parametrize(
    "d, budget, within", [(1, 2500, 0.01), (2, 2500, 0.01), (20, 2500, 0.03), (100, 6000, 0.05)]
)
def test_the_distance_to_a_plane_is_found_and_never_undercut(d, budget, within):
    w, classes, x = linear(d)
    true = ((x - 0.5) @ w).abs()
    starts = torch.rand(50, d, generator=gen(), dtype=torch.float64)
    found = boundary_distances(
        classes, x, classes(x), starts=starts, generator=gen(), budget=budget
    )
    assert (found >= true * (1 - 1e-12)).all()
    assert (found <= true * (1 + within)).all()


def test_more_queries_come_closer():
    w, classes, x = linear(100)
    true, starts = (
        ((x - 0.5) @ w).abs(),
        torch.stack([0.5 + 0.3 * linear(100)[0] * s for s in (1, -1)]),
    )
    excess = [
        float(
            (
                boundary_distances(
                    classes, x, classes(x), starts=starts, generator=gen(), budget=budget
                )
                / true
            ).mean()
        )
        for budget in (200, 1000, 5000)
    ]
    assert excess[0] > excess[1] > excess[2] > 1


def test_the_nearest_of_several_classes_counts():
    """Three slabs: of a point in the middle one the nearer plane."""

    def classes(points):
        return (points[:, 0] > 0.3).long() + (points[:, 0] > 0.8).long()

    x = torch.full((4, 5), 0.5)
    x[:, 0] = torch.tensor([0.35, 0.5, 0.7, 0.1])
    starts = torch.rand(60, 5, generator=gen())
    found = boundary_distances(classes, x, classes(x), starts=starts, generator=gen(), budget=3000)
    assert found.tolist() == pytest.approx([0.05, 0.2, 0.1, 0.2], rel=0.03)


def test_what_the_cube_cuts_off_is_no_way_out():
    """A corner beyond the cube's edge: the nearest point of the other class within the cube is farther."""

    def classes(points):
        return (points.sum(dim=1) > 1.5).long()

    x = torch.tensor([[0.9, 0.1], [0.5, 0.5]], dtype=torch.float64)
    expected = [math.hypot(0.1, 0.4), 0.5 / math.sqrt(2)]  # at (1, .5), at (.75, .75)
    starts = torch.ones(1, 2, dtype=torch.float64)
    found = boundary_distances(classes, x, classes(x), starts=starts, generator=gen(), budget=5000)
    assert found.tolist() == pytest.approx(expected, rel=0.05)  # slow along the edge
    assert all(one >= least - 1e-12 for one, least in zip(found.tolist(), expected))


def test_records_of_a_wrong_class_are_at_no_distance_and_a_lone_class_has_no_boundary():
    x, labels = torch.rand(5, 4, generator=gen()), torch.tensor([0, 1, 0, 0, 1])
    found = boundary_distances(
        lambda points: torch.zeros(len(points), dtype=torch.int64),
        x,
        labels,
        starts=x,
        generator=gen(),
        budget=500,
    )
    assert found.tolist() == [2, 0, 2, 2, 0]


def test_the_budget_is_kept_and_only_classes_are_asked_for():
    w, classes, x = linear(20)
    asked = []

    def counted(points):
        assert points.shape[1:] == (20,) and points.min() >= 0 and points.max() <= 1
        asked.append(len(points))
        return classes(points)

    x = x.clamp(0, 1)
    starts = torch.rand(8, 20, generator=gen(), dtype=torch.float64)
    for budget in (1, 300, 1000, 2500):
        asked.clear()
        boundary_distances(counted, x, classes(x), starts=starts, generator=gen(), budget=budget)
        assert sum(asked) <= len(starts) + len(x) * max(budget, 11)  # one pull is always made
        assert budget < 1000 or sum(asked) > 0.7 * budget * len(x)


def test_many_records_are_searched_in_parts(monkeypatch):
    w, classes, x = linear(20)
    true = ((x - 0.5) @ w).abs()
    monkeypatch.setattr("attackers.hop_skip_jump.AT_ONCE", 7 * 20 * 300)
    starts = torch.rand(50, 20, generator=gen(), dtype=torch.float64)
    found = boundary_distances(classes, x, classes(x), starts=starts, generator=gen(), budget=2500)
    assert ((found / true - 1).abs() < 0.02).all()


def test_a_trained_network_is_held_against_a_search_that_knows_its_gradient():
    """Steps along the gradient of the margin (DeepFool) find points of another class too; neither search is
    exact, and of most records they agree."""
    draw = gen(5)
    centres = torch.rand(4, 10, generator=draw)
    y = torch.randint(4, (400,), generator=draw)
    x = (centres[y] + 0.2 * torch.randn(400, 10, generator=draw)).clamp(0, 1)
    records = Records(x, y, 4)
    model = BaseModel(
        build("columnfc", shape=(10,), num_cls=4, generator=draw), device="cpu", generator=draw
    )
    model.train(
        TrainSet(records, torch.arange(400)), TrainConfig(epochs=15), generator=generator(1)
    )
    right = (model.classes(x, records) == y).nonzero()[:60, 0]
    x, y = x[right], y[right]
    found = boundary_distances(
        lambda points: model.classes(points, records),
        x,
        y,
        starts=records.x,
        generator=draw,
        budget=5000,
    )
    white = torch.stack([deepfool(model.network, one, label) for one, label in zip(x, y)])
    ratio = (found / white).sort().values  # a search may end where another boundary is nearer
    assert (ratio[5] > 0.7, ratio[30] < 1.02, ratio[-5] < 1.2) == (True, True, True), ratio


def deepfool(network, x, label, steps=60):
    """The distance of a point of another class within the cube, by steps to the nearest linearised boundary."""
    point = x.clone()
    for _ in range(steps):
        jacobian = torch.func.jacrev(lambda one: network(one[None])[0])(point)
        z = network(point[None])[0].detach()
        if z.argmax() != label:
            break
        slopes, gaps = jacobian - jacobian[label], z[label] - z
        reach = gaps / slopes.norm(dim=1).clamp(min=1e-9)
        reach[label] = torch.inf
        nearest = reach.argmin()
        slope = slopes[nearest].detach()
        point = (point + 1.01 * (reach[nearest] + 1e-4) * slope / slope.norm()).clamp(0, 1).detach()
    assert network(point[None])[0].argmax() != label
    low, high = 0.0, 1.0  # pulled back along the segment
    for _ in range(20):
        middle = (low + high) / 2
        if network(torch.lerp(x, point, middle)[None])[0].argmax() != label:
            high = middle
        else:
            low = middle
    return (torch.lerp(x, point, high) - x).norm()
