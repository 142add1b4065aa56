"""A second device for machines that have none: tensors that say "cuda:0" and lie in main memory.

    with second_device() as events:
        x = torch.ones(3, device="cuda") + 1
        x + torch.ones(3)  # raises OtherDevice, as a GPU does
        x.sum().item()
    assert events == ["aten._local_scalar_dense"]

To torch's own code the tensors are of device "meta", as those of its FakeTensor: autograd works on them without a GPU,
and whatever it makes beside them (zeros, indices) is known by that device. Stricter than a GPU in one thing: tensors of
the CPU may not index those of the device, since that would make the host wait. No arithmetic of a GPU is imitated, and
autocast leaves these tensors in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from types import SimpleNamespace
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

CUDA, META, CPU = torch.device("cuda", 0), torch.device("meta"), torch.device("cpu")
aten = torch.ops.aten
_INDEXED = aten.index.Tensor, aten.index_put.default, aten.index_put_.default
_TorchGenerator = torch.Generator


class OtherDevice(AssertionError):
    """Tensors or generators of two devices met."""


class OnSecond(torch.Tensor):
    """A tensor on the device; `inner` is the CPU's tensor with its values."""

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> OnSecond:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=META,
        )
        made.inner = inner
        return made

    device = property(lambda self: CUDA)
    is_cuda, is_cpu, is_meta = (
        property(lambda self, value=value: value) for value in (True, False, False)
    )
    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})

    def __repr__(self, **_) -> str:
        return f"OnSecond({self.inner})"

    def __reduce_ex__(
        self, protocol
    ):  # stored as a tensor of the CPU, where checkpoints are read to
        _events.append("torch.save")
        return self.inner.detach().__reduce_ex__(protocol)


class SecondGenerator(_TorchGenerator):
    """What torch.Generator makes: the CPU's streams, under the name of the device that was asked for."""

    def __new__(cls, device="cpu"):
        made = super().__new__(cls, CPU)
        _second_generators.discard(made._cdata)
        if torch.device(device).type == "cuda":
            _second_generators.add(made._cdata)
        return made

    device = property(lambda self: _device_of(self))


def _device_of(generator: _TorchGenerator) -> torch.device:
    """By its address, as operations are given another object for the same generator."""
    return CUDA if generator._cdata in _second_generators else CPU


_second_generators: set[int] = set()
_events: list[str] = []
_plain_meta = False  # while the caller asked for device "meta" by that name


def _run(func, args, kwargs):
    """One operation, on the inner tensors."""
    leaves = tree_leaves((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    ours = [tensor for tensor in tensors if isinstance(tensor, OnSecond)]
    where = kwargs.get("device")
    makes = where == META and not _plain_meta
    crosses = func in (aten._to_copy.default, aten.copy_.default)
    if ours and not crosses:
        # a number of the CPU goes along to a kernel, where it reads element by element
        strangers = [
            tensor
            for tensor in tensors
            if not isinstance(tensor, OnSecond)
            and not (tensor.dim() == 0 and torch.Tag.pointwise in func.tags)
        ]
        if strangers:
            raise OtherDevice(
                f"{func}: a tensor {tuple(strangers[0].shape)} of {strangers[0].device} beside "
                f"{tuple(ours[0].shape)} of {CUDA}"
            )
    here = (
        isinstance(args[0], OnSecond)
        if func is aten.copy_.default
        else bool(ours)
        if where is None
        else makes
    )
    for draw in (leaf for leaf in leaves if isinstance(leaf, _TorchGenerator)):
        if (_device_of(draw) == CUDA) != here:
            raise OtherDevice(
                f"{func}: a generator of {_device_of(draw)} for a tensor of {CUDA if here else CPU}"
            )
    if not (ours or here):
        return func(*args, **kwargs)
    _note(func, args, tensors, here, crosses)
    if where is not None:
        kwargs = kwargs | {"device": CPU}
    inner_args, inner_kwargs = tree_map(
        lambda leaf: leaf.inner if isinstance(leaf, OnSecond) else leaf, (args, kwargs)
    )
    found = func(*inner_args, **inner_kwargs)
    if here:
        found = tree_map(
            lambda leaf: OnSecond(leaf) if isinstance(leaf, torch.Tensor) else leaf, found
        )
    return return_and_correct_aliasing(
        func, args, kwargs, found
    )  # what was written in place is what was given


def _note(func, args, tensors, here: bool, crosses: bool) -> None:
    """Write down what makes the host wait for the device, or copies from one to the other."""
    name = str(func).rsplit(".", 1)[0]
    if crosses and len({isinstance(tensor, OnSecond) for tensor in tensors} | {here}) == 2:
        _events.append(f"{name} to {CUDA if here else CPU}")
    elif func in _INDEXED:  # by a mask: how many are chosen?
        if any(pick is not None and pick.dtype in (torch.bool, torch.uint8) for pick in args[1]):
            _events.append(name)
    elif {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(func.tags):
        _events.append(name)


class _Operations(TorchDispatchMode):
    """Sees also the operations that have no tensor of the device among their arguments."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class _Names(TorchFunctionMode):
    """Says "meta" to torch wherever the caller says "cuda", which it would look for a driver at."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        global _plain_meta
        kwargs = kwargs or {}
        if func in (torch.device, torch._C._nn._parse_to):  # names without tensors
            return func(*args, **kwargs)
        if func is torch.Tensor.cuda:
            return args[0].to(META)
        if func is torch.Tensor.tolist:
            return torch.Tensor.tolist(args[0].cpu())
        if func in (torch.tensor, torch.as_tensor) and _is_cuda(kwargs.get("device")):
            return func(*args, **kwargs | {"device": CPU}).to(META)
        before = _plain_meta
        _plain_meta = before or any(
            isinstance(leaf, torch.device) and leaf == META for leaf in (*args, *kwargs.values())
        )
        try:
            return func(
                *map(_renamed, args), **{name: _renamed(value) for name, value in kwargs.items()}
            )
        finally:
            _plain_meta = before


def _is_cuda(value) -> bool:
    return (
        isinstance(value, torch.device)
        and value.type == "cuda"
        or isinstance(value, str)
        and value[:4] == "cuda"
    )


def _renamed(value):
    return META if _is_cuda(value) else value


@contextmanager
def second_device() -> Iterator[list[str]]:
    """Torch with one GPU, as it seems; what the host waited for is written down in the list."""
    _events.clear()
    _second_generators.clear()
    answers = {
        "is_available": True,
        "device_count": 1,
        "is_bf16_supported": True,
        "is_current_stream_capturing": False,
        "synchronize": None,
        "empty_cache": None,
        "reset_peak_memory_stats": None,
        "memory_allocated": 0,
        "max_memory_allocated": 2**24,
        "get_device_properties": SimpleNamespace(total_memory=2**34, name="second"),
        "device": nullcontext(),
    }
    future = (
        torch.__future__
    )  # else Module.to would move a parameter's form to the device, and not its values
    overwrites = future.get_overwrite_module_params_on_conversion()
    tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    with ExitStack() as patches:
        for name, answer in answers.items():
            patches.enter_context(
                mock.patch.object(torch.cuda, name, lambda *_, answer=answer, **__: answer)
            )
        stream = SimpleNamespace(is_capturing=lambda: False)  # asked for by optimisers
        patches.enter_context(
            mock.patch.object(torch.accelerator, "current_stream", lambda *_: stream)
        )
        patches.enter_context(mock.patch.object(torch, "Generator", SecondGenerator))
        patches.enter_context(_Names())
        patches.enter_context(_Operations())
        future.set_overwrite_module_params_on_conversion(True)
        try:
            yield _events
        finally:
            future.set_overwrite_module_params_on_conversion(overwrites)
            torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = tf32
