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
    """Of a lazy module that has not seen a batch yet, or on the meta device: its state is made when it has memory."""
    return p.is_meta or isinstance(p, (torch.nn.UninitializedParameter, torch.nn.UninitializedBuffer))


def as_native(x: torch.Tensor) -> torch.Tensor:
    """What is stepped: the local shard; complex numbers as pairs, since torch's rules see two numbers in each."""
    if is_dtensor(x):
        x = x._local_tensor  # type: ignore[attr-defined]
    return torch.view_as_real(x.detach()) if x.is_complex() else x


def as_given(view: torch.Tensor, parameter: torch.Tensor, is_whole: bool = False) -> torch.Tensor:
    """A view of a slot in the form of its parameter: complex, or a DTensor, of its placements unless it is whole."""
    if parameter.is_complex():
        view = torch.view_as_complex(view)
    if not is_dtensor(parameter):
        return view
    tensors = sys.modules["torch.distributed.tensor"]
    placements = parameter.placements  # type: ignore[attr-defined]
    return tensors.DTensor.from_local(  # type: ignore[no-any-return]
        view,
        parameter.device_mesh,  # type: ignore[attr-defined]
        [tensors.Replicate()] * len(placements) if is_whole else placements,
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    )


def needs_explicit(parameters: Iterable[torch.Tensor]) -> bool:
    """Whether gradients cannot be read from the parameters as they are."""
    return any(p.is_complex() or is_dtensor(p) for p in parameters)


def gradient_of(p: torch.Tensor, name: str, is_whole: bool = False) -> torch.Tensor | None:
    """The gradient in the form of the native parameter."""
    grad = p.grad
    if grad is None:
        return None
    if is_dtensor(p) and (not is_dtensor(grad) or grad.placements != p.placements):  # type: ignore[attr-defined]
        raise InvalidValueError(
            f"{name}: the gradient is {'placed as ' + str(grad.placements) if is_dtensor(grad) else 'no DTensor'}, the "  # type: ignore[attr-defined]
            f"parameter as {p.placements}; redistribute it first"  # type: ignore[attr-defined]
        )
    grad = as_native(whole(grad) if is_whole else grad)
    return grad.resolve_conj() if grad.is_conj() else grad


def sharded(p: torch.Tensor) -> bool:
    return is_dtensor(p) and any(placement.is_shard() for placement in p.placements)  # type: ignore[attr-defined]


def looks_at_whole(rule: Rule) -> str | None:
    """The name of a rule in it that looks at a whole array."""
    stages = (s for s in rule._stages() if getattr(s, "_sums", ()) or getattr(s, "scope", None) == "leaf")
    return next((type(s).__name__ for s in stages), None)


def check_placements(rule: Rule, parameters: Iterable[torch.Tensor]) -> None:
    """Refuse rules that look at a whole array where no process has it."""
    name = looks_at_whole(rule)
    if name is not None and any(map(sharded, parameters)):
        raise InvalidValueError(
            f"{name} looks at a whole array, and of a sharded DTensor each process has a part; use Optimizer(..., "
            'gather=True), scope="global" through clip_grad_norm, or a rule that works element by element'
        )


class Whole:
    """Sharded parameters as whole arrays, a copy on each process, which all step alike."""

    def __init__(self, parameters: Iterable[torch.Tensor] = ()) -> None:
        self._copies = {p: whole(p.detach()).clone() for p in parameters}

    def __contains__(self, p: torch.Tensor) -> bool:
        return p in self._copies

    def native(self, p: torch.Tensor) -> torch.Tensor | None:
        return None if p.is_meta else as_native(self._copies.get(p, p))

    def gather(self) -> None:
        """Take what the parameters are now."""
        for p, copy in self._copies.items():
            copy.copy_(whole(p.detach()))

    def scatter(self) -> None:
        """Put each process's part back."""
        from torch.distributed.tensor import distribute_tensor

        for p, copy in self._copies.items():
            mesh, placements = p.device_mesh, p.placements  # type: ignore[attr-defined]
            part = distribute_tensor(copy, mesh, placements, src_data_rank=None)
            with torch.no_grad():
                p._local_tensor.copy_(part._local_tensor)  # type: ignore[attr-defined]


def whole(x: Any) -> torch.Tensor:
    full: torch.Tensor = x.full_tensor()
    return full


def norm_over_ranks(gradients: list[tuple[Any, torch.Tensor]]) -> float:
    """The 2-norm of all gradients, (mesh of the processes that share it or None, local gradient) each.

    Squares are summed in double precision; each process's sums are put in the order of ranks and added in that order,
    so that every process gets the same bits.
    """
    import torch.distributed as dist

    from .._walks import norm

    total = 0.0
    meshes: dict[Any, list[torch.Tensor]] = {}
    for mesh, gradient in gradients:
        meshes.setdefault(mesh, []).append(gradient)
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
