"""DP-SGD (Abadi et al., "Deep Learning with Differential Privacy", CCS 2016): a step that no single
record sways."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from base_model import Batch, Objective
from core.console import UserError, say
from defenders.accounting import NO_GUARANTEE, guarantee
from defenders.noise import SecretStream, SeededStream, normals, uniforms
from pruner.mask import mask_of

# layers in which records meet while they are in training mode
MIXING = (nn.modules.batchnorm._BatchNorm,)
# layers whose gradients follow from what goes in and what comes back, and from nothing else
LAYERWISE = (nn.Linear, nn.Conv2d, nn.GroupNorm, nn.LayerNorm, *MIXING)
# what a layer's gradients of some records may take: on the CPU no more than its cache holds
CHUNK_BYTES = {"cpu": 2**22, "cuda": 2**30}


class PrivateSGD(Objective):
    """Plain SGD on gradients that are clipped record by record, summed and drowned in noise.

    A step draws each record with probability `batch_size / n`, divides the sum of clipped gradients
    by `batch_size` and adds normal noise of standard deviation strength * max_grad_norm /
    batch_size. Pruned weights have no part in it. BatchNorm keeps the running statistics that it
    came with.

    Args:
        strength: the noise multiplier.
        dp_engine: whose optimiser adds the noise, "pyvacy" or "opacus".
        dp_lr: learning rate.
        max_grad_norm: what the L2 norm of a record's gradient is clipped to.
        dp_noise: "secret", and noise and samples come from the operating system; or "seeded", and
            they follow from `key` and the train records, so that the same training gives the same
            weights and nothing is guaranteed.
        key: of seeded noise: 16 bytes or more; of secret noise nothing depends on it.

    Raises ValueError where seeded noise has too short a key.
    """

    def __init__(
        self,
        strength: float,
        *,
        dp_engine: str,
        dp_lr: float,
        max_grad_norm: float,
        dp_noise: str,
        key: bytes = b"",
    ):
        super().__init__(strength)
        self.engine, self.lr, self.max_grad_norm = dp_engine, dp_lr, max_grad_norm
        self.seeded, self.key = dp_noise == "seeded", key

    def setup(self, context):
        """Nothing follows from the context's generator."""
        data = context.data
        self.count = context.nominal_size or len(data.train)
        self.expected = min(context.batch_size, self.count)
        if not self.seeded:
            self.stream = SecretStream()
            return
        if len(self.key) < 16:
            raise ValueError(f"key must have 16 bytes or more, not {len(self.key)}")
        # neighbouring sets of records must not share noise: it would cancel where two trainings are
        # compared
        digest = hashlib.sha256(self.key)
        for array in (data.records.x[data.train], data.records.y[data.train]):
            digest.update(array.cpu().numpy().tobytes())
        self.stream = SeededStream(digest.digest())

    def build_optimizer(self, network, config):
        from defenders.engines import OpacusOptimizer, PyvacySGD

        # counted once, since a GPU makes whoever asks wait
        masks = {parameter: mask_of(parameter) for parameter in network.parameters()}
        self.weight_counts = {
            parameter: parameter.numel() if mask is None else int(mask.sum())
            for parameter, mask in masks.items()
        }
        parameters, how = (
            list(network.parameters()),
            {"lr": self.lr, "weight_decay": config.weight_decay},
        )
        if self.engine == "opacus":
            return OpacusOptimizer(
                torch.optim.SGD(parameters, **how),
                draw=self.noise,
                noise_multiplier=self.strength,
                max_grad_norm=self.max_grad_norm,
                expected_batch_size=self.expected,
            )
        # pyvacy 0.0.32 clips the gradient as a whole to l2_norm_clip, and adds noise of standard
        # deviation strength * l2_norm_clip / sqrt(batch_size). Its clip must never act, as ours has
        # been done: not even where all records are drawn, whose sum over the expected number is 2 n
        # / expected * max_grad_norm long at most, as n counts each canary half. So both are
        # multiplied by K = 2 n / expected, of which the noise keeps nothing: strength * K
        # max_grad_norm / (K expected).
        scale = 2 * self.count / self.expected
        return PyvacySGD(
            scale * self.max_grad_norm,
            self.strength,
            (scale * self.expected) ** 2,
            parameters,
            draw=self.noise,
            **how,
        )

    def noise(self, parameter: nn.Parameter, std: float) -> torch.Tensor:
        """Normal noise for a parameter, 0 on its pruned weights."""
        mask = mask_of(parameter)
        values = torch.from_numpy(std * normals(self.stream, self.weight_counts[parameter]))
        values = values.to(parameter.device, parameter.dtype)
        if mask is None:
            return values.view(parameter.shape)
        return torch.zeros_like(parameter).masked_scatter_(mask, values)

    def batches(
        self, indices: torch.Tensor, size: int, *generators: torch.Generator, epoch: int = 0
    ) -> Iterator[torch.Tensor]:
        """As many Poisson samples as an epoch has batches; some may be empty, and are steps
        nevertheless.

        `generators` are left alone: which records were drawn is as secret as the noise.
        """
        for _ in range(math.ceil(self.count / size)):
            drawn = np.flatnonzero(uniforms(self.stream, len(indices)) < self.expected / self.count)
            yield indices[torch.from_numpy(drawn).to(indices.device)]

    def step(self, network, optimizer, loss, batch: Batch):
        for module in network.modules():
            if isinstance(module, MIXING):
                module.eval()
        optimizer.zero_grad(set_to_none=True)
        value, sums = clipped_sum(network, batch.x, batch.y, max_grad_norm=self.max_grad_norm)
        for parameter, total in sums.items():
            parameter.grad = total if self.engine == "opacus" else total / self.expected
        optimizer.step()
        return value

    def privacy(self, *, n, batch_size, epochs, delta):
        bound = guarantee(
            n=n,
            batch_size=min(batch_size, n),
            noise_multiplier=self.strength,
            epochs=epochs,
            delta=delta,
        )
        noise = {"noise": "seeded", "warning": NO_GUARANTEE} if self.seeded else {"noise": "secret"}
        return noise | {"epsilon": bound.epsilon} | asdict(bound)

    def state(self) -> dict:
        return {"stream": self.stream.state()}

    def set_state(self, state: dict) -> None:
        if not self.seeded:
            say("with fresh noise: as private as uninterrupted, but another model")
        self.stream.set_state(state["stream"])


def clipped_sum(
    network: nn.Module, x: torch.Tensor, y: torch.Tensor, *, max_grad_norm: float
) -> tuple[torch.Tensor, dict[torch.Tensor, torch.Tensor]]:
    """The sum of each record's gradient, clipped to `max_grad_norm`: {parameter: tensor}; and the
    mean loss before.

    A pruned weight (see `pruner.mask.attach_masks`) has gradient 0 and no part in the norm. Where
    all parameters are those of linear layers that see a vector a record, no record's gradient is
    written out ("ghost clipping", Li et al., ICLR 2022). Where they are those of `LAYERWISE`, one
    layer's are at a time; else one record after the other is worked on.

    Raises UserError where BatchNorm is in training mode: a record's gradient would depend on all
    others.
    """
    if any(isinstance(module, MIXING) and module.training for module in network.modules()):
        raise UserError(
            "BatchNorm in training mode mixes the records of a batch: no gradient is a single record's"
        )
    parameters = list(network.parameters())
    if len(y) == 0:
        return torch.zeros((), device=x.device), {
            parameter: torch.zeros_like(parameter) for parameter in parameters
        }
    layers = [
        module
        for module in network.modules()
        if next(module.parameters(recurse=False), None) is not None
    ]
    in_layers = sum(1 for layer in layers for _ in layer.parameters(recurse=False))
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    if len(linear) == len(layers) and in_layers == len(parameters):  # none is shared
        result = ghost_clipped_sum(network, linear, x, y, max_grad_norm)
        if result is not None:
            return result
    if all(isinstance(layer, LAYERWISE) for layer in layers):
        result = layerwise_clipped_sum(network, layers, x, y, max_grad_norm)
        if result is not None:
            return result
    return clipped_sum_loop(network, parameters, x, y, max_grad_norm)


def ghost_clipped_sum(
    network: nn.Module,
    layers: list[nn.Linear],
    x: torch.Tensor,
    y: torch.Tensor,
    max_grad_norm: float,
) -> tuple[torch.Tensor, dict[torch.Tensor, torch.Tensor]] | None:
    """`clipped_sum` of a network whose parameters are those of linear layers; None where a layer is
    not called once, with one vector a record."""
    seen: dict[nn.Module, tuple] = {}
    calls = []

    def note(layer, inputs, output):
        calls.append(inputs[0].dim())
        seen[layer] = inputs[0], output

    hooks = [layer.register_forward_hook(note) for layer in layers]
    try:
        losses = F.cross_entropy(network(x), y, reduction="none")
    finally:
        for hook in hooks:
            hook.remove()
    if calls != [2] * len(layers) or len(seen) != len(layers):
        return None
    below = torch.autograd.grad(losses.sum(), [seen[layer][1] for layer in layers])
    with torch.no_grad():
        squares = torch.zeros_like(losses)
        for layer, gradient in zip(layers, below):
            # of record r, dL/dW_ij = gradient_ri input_rj: the squares of those that are not pruned
            # are summed as a product
            squares += ((gradient**2 @ _weight_mask(layer.weight)) * seen[layer][0] ** 2).sum(dim=1)
            if layer.bias is not None:
                squares += (gradient**2 * _weight_mask(layer.bias)).sum(dim=1)
        scale = max_grad_norm / squares.sqrt().clamp(min=max_grad_norm)
        sums = {}
        for layer, gradient in zip(layers, below):
            scaled = gradient * scale[:, None]
            sums[layer.weight] = scaled.T @ seen[layer][0] * _weight_mask(layer.weight)
            if layer.bias is not None:
                sums[layer.bias] = scaled.sum(dim=0) * _weight_mask(layer.bias)
    return losses.detach().mean(), sums


def layerwise_clipped_sum(
    network: nn.Module,
    layers: Sequence[nn.Module],
    x: torch.Tensor,
    y: torch.Tensor,
    max_grad_norm: float,
) -> tuple[torch.Tensor, dict[torch.Tensor, torch.Tensor]] | None:
    """`clipped_sum` of a network of such layers; None where a parameter is used more than once.

    A pass back through the batch gives the norms, a second one, with each record's loss scaled, the
    sum of clipped gradients (Lee & Kifer, PoPETs 2021, section 4). Norms are of gradients that are
    written out for one layer and some records at a time.
    """
    inputs, outputs = {}, {}

    def note(layer, args, output):
        # the edge, since an in-place ReLU behind it may become what the tensor stands for
        inputs[layer] = args[0].detach()
        outputs[layer] = torch.autograd.graph.get_gradient_edge(output)

    hooks = [layer.register_forward_hook(note) for layer in layers]
    try:
        losses = F.cross_entropy(network(x), y, reduction="none")
    finally:
        for hook in hooks:
            hook.remove()
    parameters = list(network.parameters())
    if _uses(losses) != {parameter: 1 for parameter in parameters} or len(inputs) != len(layers):
        return None
    below = torch.autograd.grad(
        losses.sum(), [outputs[layer] for layer in layers], retain_graph=True
    )
    with torch.no_grad():
        squares = torch.zeros_like(losses)
        for layer, gradient in zip(layers, below):
            squares += _layer_squares(layer, inputs[layer], gradient)
        scale = max_grad_norm / squares.sqrt().clamp(min=max_grad_norm)
    # pruned weights have gradient 0 by the hooks of their masks
    sums = torch.autograd.grad((losses * scale).sum(), parameters)
    return losses.detach().mean(), dict(zip(parameters, sums))


def _uses(losses: torch.Tensor) -> Counter:
    """How many times each parameter is used on the way to these losses."""
    uses: Counter = Counter()
    seen, ahead = set(), [losses.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        for below, _ in node.next_functions:
            parameter = getattr(below, "variable", None)  # whose gradient arrives there
            if parameter is None:
                ahead.append(below)
            else:
                uses[parameter] += 1
    return uses


def _layer_squares(layer: nn.Module, x: torch.Tensor, below: torch.Tensor) -> torch.Tensor:
    """Squared norms (n,) of records' gradients of a layer that saw x (n, ...) and whose output has
    the gradients `below`."""
    squares = torch.zeros(len(x), dtype=x.dtype, device=x.device)
    each = sum(parameter.numel() for parameter in layer.parameters(recurse=False))
    if isinstance(layer, nn.Conv2d):
        each += below[0, 0].numel() * layer.weight[0].numel()  # the patches
    size = max(1, CHUNK_BYTES[x.device.type] // (each * x.element_size()))
    for first in range(0, len(x), size):
        chunk = slice(first, first + size)
        for name, gradient in _layer_gradients(layer, x[chunk], below[chunk]).items():
            mask = mask_of(getattr(layer, name))
            kept = gradient if mask is None else gradient * mask
            squares[chunk] += torch.linalg.vector_norm(kept.flatten(1), dim=1) ** 2
    return squares


def _is_plain(layer: nn.Conv2d) -> bool:
    return layer.groups == 1 and layer.padding_mode == "zeros" and type(layer.padding) is not str


def _layer_gradients(
    layer: nn.Module, x: torch.Tensor, below: torch.Tensor
) -> dict[str, torch.Tensor]:
    """{parameter name: gradients (n, ...) of n records}, see `_layer_squares`."""
    if isinstance(layer, nn.Conv2d) and _is_plain(layer):
        # a convolution is a matrix product with the patches; so it takes half of vmap's time
        size, padding = layer.kernel_size, cast(tuple[int, ...], layer.padding)
        patches = F.unfold(x, size, layer.dilation, padding, layer.stride)
        weight = torch.bmm(below.flatten(2), patches.transpose(1, 2))
        bias = {} if layer.bias is None else {"bias": below.sum(dim=(2, 3))}
        return {"weight": weight.view(-1, *layer.weight.shape)} | bias
    parameters = dict(layer.named_parameters(recurse=False))

    def of_one(x, below):
        def output(parameters):
            return torch.func.functional_call(layer, parameters, x[None])

        return torch.func.vjp(output, parameters)[1](below[None])[0]

    return torch.func.vmap(of_one)(x, below)


def clipped_sum_loop(
    network: nn.Module,
    parameters: Sequence[torch.Tensor],
    x: torch.Tensor,
    y: torch.Tensor,
    max_grad_norm: float,
) -> tuple[torch.Tensor, dict[torch.Tensor, torch.Tensor]]:
    """`clipped_sum` of any network, one record after the other."""
    sums = [torch.zeros_like(parameter) for parameter in parameters]
    total = torch.zeros((), device=x.device)
    for number in range(len(y)):
        loss = F.cross_entropy(network(x[number : number + 1]), y[number : number + 1])
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            kept = [
                gradient * _weight_mask(parameter)
                for gradient, parameter in zip(gradients, parameters)
            ]
            norm = torch.nn.utils.get_total_norm(kept)
            scale = max_grad_norm / norm.clamp(min=max_grad_norm)
            torch._foreach_add_(sums, torch._foreach_mul(kept, scale))
            total = total + loss
    return total / len(y), dict(zip(parameters, sums))


def _weight_mask(parameter: torch.Tensor) -> torch.Tensor:
    """1 where a parameter is kept, 0 where it is pruned; of its shape and type."""
    mask = mask_of(parameter)
    return torch.ones_like(parameter) if mask is None else mask.to(parameter.dtype)
