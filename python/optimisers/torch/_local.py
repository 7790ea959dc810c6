"""Parameters that are more than one array of real numbers: complex ones, and DTensors of several processes."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import torch

from .._core import InvalidValueError
from .._rule import Rule


def is_dtensor(x: Any) -> bool:
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(x, module.DTensor)


def is_shapeless(p: torch.Tensor) -> bool:
    """Of a lazy module that has not seen a batch yet."""
    return isinstance(p, (torch.nn.UninitializedParameter, torch.nn.UninitializedBuffer))


def as_native(x: torch.Tensor) -> torch.Tensor:
    """What is stepped: the local shard; complex numbers as pairs, since torch's rules see two numbers in each."""
    if is_dtensor(x):
        x = x._local_tensor  # type: ignore[attr-defined]
    return torch.view_as_real(x.detach()) if x.is_complex() else x


def as_given(view: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """A view of a slot in the form of its parameter: complex, or a DTensor of the same placements."""
    if parameter.is_complex():
        view = torch.view_as_complex(view)
    if not is_dtensor(parameter):
        return view
    dtensor = sys.modules["torch.distributed.tensor"].DTensor
    return dtensor.from_local(  # type: ignore[no-any-return]
        view,
        parameter.device_mesh,  # type: ignore[attr-defined]
        parameter.placements,  # type: ignore[attr-defined]
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    )


def needs_explicit(parameters: Iterable[torch.Tensor]) -> bool:
    """Whether gradients cannot be read from the parameters as they are."""
    return any(p.is_complex() or is_dtensor(p) for p in parameters)


def gradient_of(p: torch.Tensor, name: str) -> torch.Tensor | None:
    """The gradient in the form of `as_native`."""
    grad = p.grad
    if grad is None:
        return None
    if is_dtensor(p) and (not is_dtensor(grad) or grad.placements != p.placements):  # type: ignore[attr-defined]
        raise InvalidValueError(
            f"{name}: the gradient is {'placed as ' + str(grad.placements) if is_dtensor(grad) else 'no DTensor'}, the "  # type: ignore[attr-defined]
            f"parameter as {p.placements}; redistribute it first"  # type: ignore[attr-defined]
        )
    grad = as_native(grad)
    return grad.resolve_conj() if grad.is_conj() else grad


def sharded(p: torch.Tensor) -> bool:
    return is_dtensor(p) and any(placement.is_shard() for placement in p.placements)  # type: ignore[attr-defined]


def check_placements(rule: Rule, parameters: Iterable[torch.Tensor]) -> None:
    """Refuse rules that look at a whole array where no process has it."""
    whole = [type(s).__name__ for s in rule._stages() if getattr(s, "scope", None) == "leaf"]
    if whole and any(map(sharded, parameters)):
        raise InvalidValueError(
            f"{whole[0]} looks at a whole array, and of a sharded DTensor each process has a part; use "
            'scope="global" through clip_grad_norm, or a rule that works element by element'
        )


def norm_over_ranks(gradients: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """The 2-norm of all gradients, (parameter, local gradient) each, over the processes that share them.

    Squares are summed in double precision; each process's sums are put in the order of ranks and added in that order,
    so that every process gets the same bits.
    """
    import torch.distributed as dist

    from .._walks import norm

    total = 0.0
    meshes: dict[Any, list[torch.Tensor]] = {}
    for parameter, gradient in gradients:
        meshes.setdefault(parameter.device_mesh if sharded(parameter) else None, []).append(gradient)  # type: ignore[attr-defined]
    for mesh, local in meshes.items():
        square = norm(local) ** 2
        if mesh is None:
            total += square
            continue
        parts = torch.tensor([square], dtype=torch.float64)
        for dim in range(mesh.ndim):
            group = mesh.get_group(dim)
            gathered = [torch.zeros_like(parts) for _ in range(dist.get_world_size(group))]
            dist.all_gather(gathered, parts, group=group)
            parts = torch.stack(gathered).cumsum(0)[-1]
        total += float(parts)
    return float(total**0.5)
