"""The tests' second device is one: it holds values, refuses the CPU's tensors, sees who waits."""

import copy

import pytest
import torch
from second_device import CUDA, OnSecond, OtherDevice, second_device
from torch import nn

BEFORE = {
    name: getattr(torch.cuda, name) for name in ("is_available", "device_count", "memory_allocated")
}
GENERATOR = torch.Generator


def a_tensor():
    return torch.arange(6.0).view(2, 3).to("cuda:0")


def test_tensors_hold_values_and_say_where_they_are():
    with second_device():
        x = a_tensor()
        assert (x.device, x.is_cuda, x.is_cpu, x.device.type) == (CUDA, True, False, "cuda")
        assert torch.equal((2 * x[:, 1:] + 1).cpu(), torch.tensor([[3.0, 5.0], [9.0, 11.0]]))
        assert [
            made.device
            for made in (
                torch.zeros(2, device="cuda"),
                torch.zeros_like(x),
                x.new_ones(2),
                x.sum(),
                torch.tensor([1, 2], device=x.device),
                copy.deepcopy(x),
            )
        ] == [CUDA] * 6
        assert (
            torch.zeros_like(x, device="cpu").device == torch.zeros(2).device == torch.device("cpu")
        )
        with torch.device("meta"):
            assert type(torch.zeros(2)) is torch.Tensor


def test_operations_in_place_and_views_reach_the_same_memory():
    with second_device():
        x = a_tensor()
        view = x.T[1]
        assert x.mul_(2) is x and torch.add(x, 1, out=x) is x
        view[:1] = 7
        x[1, 2] += 1
        assert x.tolist() == [[1.0, 7.0, 5.0], [7.0, 9.0, 12.0]] and view.tolist() == [7.0, 9.0]
        torch._foreach_add_([x], 1)
        assert view.tolist() == [8.0, 10.0]
        assert x.t_().shape == (3, 2) and x.inner.shape == (3, 2)


def test_modules_move_with_their_parameters_and_buffers_and_learn():
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    with second_device():
        network.to("cuda")
        assert all(
            isinstance(parameter, nn.Parameter)
            and isinstance(parameter, OnSecond)
            and parameter.is_leaf
            for parameter in network.parameters()
        )
        assert all(tensor.device == CUDA for tensor in network.state_dict().values())
        before = network[0].weight.cpu()
        optimizer = torch.optim.Adam(network.parameters(), fused=True)
        nn.functional.cross_entropy(
            network(a_tensor()), torch.tensor([0, 1], device="cuda")
        ).backward()
        optimizer.step()
        assert network[0].weight.grad.device == CUDA and not torch.equal(
            before, network[0].weight.cpu()
        )


@pytest.mark.parametrize(
    "mix",
    [
        lambda x: x + torch.ones(3),
        lambda x: x @ torch.ones(3),
        lambda x: x[torch.tensor([0])],
        lambda x: torch.ones(2, 3)[x > 1],
        lambda x: torch.cat([x, torch.ones(1, 3)]),
        lambda x: x.mul_(torch.ones(3)),
        lambda x: torch.stack([x.sum(), torch.zeros(())]),
        lambda x: x.index_select(0, torch.tensor([0])),
        lambda x: nn.functional.linear(x, torch.ones(3, 3)),
        lambda x: nn.Linear(3, 2)(x),
        lambda x: nn.functional.cross_entropy(x, torch.tensor([0, 1])),
        lambda x: torch._foreach_add_([torch.ones(2, 3)], [x]),
        lambda x: x.normal_(generator=torch.Generator()),
        lambda x: torch.ones(2).normal_(generator=torch.Generator("cuda")),
        lambda x: torch.randperm(3, generator=torch.Generator("cuda")),
        lambda x: torch.randperm(3, generator=torch.Generator(), device="cuda"),
    ],
)
def test_the_cpus_tensors_and_generators_are_refused(mix):
    with second_device(), pytest.raises(OtherDevice):
        mix(a_tensor())


@pytest.mark.parametrize(
    "mix",
    [
        lambda x: x + torch.tensor(1.0),
        lambda x: torch.where(x > 1, x, torch.tensor(0.0)),
        lambda x: x.copy_(torch.ones(3)),
        lambda x: torch.randperm(3, generator=torch.Generator("cuda"), device="cuda"),
    ],
)
def test_what_a_gpu_takes_from_the_cpu_is_taken(mix):
    with second_device():
        assert mix(a_tensor()).device == CUDA


def test_numpy_cannot_look_into_the_device():
    with second_device(), pytest.raises((TypeError, RuntimeError)):
        a_tensor().numpy()


@pytest.mark.parametrize(
    "wait, expected",
    [
        (lambda x: x.sum().item(), "aten._local_scalar_dense"),
        (lambda x: bool((x > 1).any()), "aten._local_scalar_dense"),
        (lambda x: x.tolist(), "aten._to_copy to cpu"),
        (lambda x: x.cpu(), "aten._to_copy to cpu"),
        (lambda x: torch.ones(3).to(x.device), "aten._to_copy to cuda:0"),
        (lambda x: torch.tensor([1.0], device=CUDA), "aten._to_copy to cuda:0"),
        (lambda x: torch.ones(2, 3).copy_(x), "aten.copy_ to cpu"),
        (lambda x: x.copy_(torch.ones(3)), "aten.copy_ to cuda:0"),
        (lambda x: x.index_put_((x > 1,), torch.ones(4, device=CUDA)), "aten.index_put_"),
        (lambda x: x[x > 1], "aten.index"),
        (lambda x: x.nonzero(), "aten.nonzero"),
        (lambda x: torch.equal(x, x), "aten.equal"),
        (lambda x: x.long().flatten().bincount(), "aten.bincount"),
    ],
)
def test_waiting_for_the_device_is_written_down(wait, expected):
    with second_device() as events:
        x = a_tensor()
        del events[:]
        wait(x)
        assert events == [expected]


def test_work_on_the_device_is_no_waiting():
    with second_device() as events:
        x, draw = a_tensor(), torch.Generator("cuda").manual_seed(1)
        rows = torch.randperm(2, generator=draw, device=CUDA)
        del events[:]
        (x[rows].softmax(1).sort(descending=True).values.half().float() + x.new_zeros(3)).to(
            "cuda"
        ).sum()
        nn.functional.one_hot(rows, 3)
        assert events == []


def test_torch_is_as_before_afterwards():
    tf32 = torch.backends.cudnn.allow_tf32
    with pytest.raises(ZeroDivisionError), second_device():
        torch.backends.cudnn.allow_tf32 = not tf32
        1 / 0
    assert torch.Generator is GENERATOR and torch.backends.cudnn.allow_tf32 == tf32
    assert all(getattr(torch.cuda, name) is value for name, value in BEFORE.items())
    assert not torch.__future__.get_overwrite_module_params_on_conversion()
    assert type(torch.zeros(2)) is torch.Tensor
