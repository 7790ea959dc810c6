"""The custom call itself, and what has to be said to JAX of operands that are spread over devices."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from .. import _core
from .._core import InvalidValueError
from ._rule import Plan

_TARGET = "optimisers_step"


@functools.cache
def _target() -> str:
    jax.ffi.register_ffi_target(_TARGET, _core.xla_step(), platform="cpu")
    return _TARGET


class Operands:
    """What goes into the call; which results there are, each of the kind of one operand; and which take its memory."""

    def __init__(self) -> None:
        self.arrays: list[Any] = []
        self.results: list[int] = []  # operands
        self.kept: list[bool] = []  # of each result

    def add(self, array: Any, kept: bool = False, returned: bool = False) -> None:
        if kept or returned:
            self.results.append(len(self.arrays))
            self.kept.append(kept)
        self.arrays.append(array)


def called(plan: Plan, call: str, operands: Operands, attributes: dict[str, Any]) -> list[Any]:
    """The results of a step."""
    _check_norms(plan, call, operands.arrays)
    arrays = operands.arrays
    axes = frozenset[Any]().union(*map(_varying, arrays))
    clock = _clock_alone(plan, arrays[0], arrays[1], attributes, arrays) if axes - _varying(arrays[0]) else None
    arrays = [_cast(array, axes) for array in arrays]
    specs = [_spec(array) for array in arrays]
    if not any(map(any, specs)) or any(stage.measures for stage in plan.stages):
        results = _bound(operands, arrays, attributes)
    else:  # element by element: each device what it has
        mesh = next(jax.typeof(a).sharding.mesh for a, spec in zip(arrays, specs, strict=True) if any(spec))
        call_on_each: Any = jax.shard_map(
            lambda *local: tuple(_bound(operands, list(local), attributes)),
            mesh=mesh,
            in_specs=tuple(specs),
            out_specs=tuple(specs[k] for k in operands.results),
            check_vma=False,
        )
        results = list(call_on_each(*arrays))
    return [*results] if clock is None else [clock, *results[1:]]


_MOST = 64  # leaves of a call: XLA compiles one of 64 in a second, one of 1,000 in a minute, and both run as fast

# Results of a call that takes over its operands' memory: XLA's time to compile those grows with their cube. Beyond it,
# where only leaves that share a norm come, they are copies.
_MOST_IN_PLACE = 1_600


def parts_of(plan: Plan, leaves: dict[int, tuple[Any, ...]]) -> list[list[int]]:
    """Which leaves go into one call: all that share a norm; else so many; inside shard_map only like ones together."""
    parts: dict[frozenset[Any], list[int]] = {}
    for i, arrays in leaves.items():
        parts.setdefault(frozenset[Any]().union(*map(_varying, arrays)), []).append(i)
    most = len(leaves) if plan.together else _MOST
    return [part[at : at + most] for part in parts.values() for at in range(0, len(part), most)] or [[]]


def _bound(operands: Operands, arrays: list[Any], attributes: dict[str, Any]) -> list[Any]:
    kinds = [jax.typeof(arrays[k]) for k in operands.results]
    aliases = {k: i for i, (k, kept) in enumerate(zip(operands.results, operands.kept, strict=True)) if kept}
    if len(kinds) > _MOST_IN_PLACE:
        aliases = {}
    call = jax.ffi.ffi_call(_target(), kinds, vmap_method="broadcast_all", input_output_aliases=aliases)
    return list(call(*arrays, **attributes))


def _spec(array: Any) -> PartitionSpec:
    """How an array is spread over a mesh whose axes are explicit."""
    return jax.typeof(array).sharding.spec  # type: ignore[no-any-return]


def _varying(array: Any) -> frozenset[Any]:
    """The axes of a mesh along which an array differs, inside shard_map, as far as JAX keeps account of that."""
    kind = jax.typeof(array)
    manual = getattr(kind, "mat", None)
    return getattr(kind, "vma", frozenset()) if manual is None else manual.varying


def _cast(array: Any, axes: frozenset[Any]) -> Any:
    missing = tuple(axes - _varying(array))
    return jax.lax.pcast(array, missing, to="varying") if missing else array


def _clock_alone(plan: Plan, clock: Any, numbers: Any, attributes: dict[str, Any], arrays: list[Any]) -> Any:
    """The clock, advanced without any leaf, where it is the same on all devices and the leaves are not."""
    operands = Operands()
    operands.add(clock, kept=True)
    operands.add(numbers)
    for value in arrays[2 : 2 + len(attributes["stand_in"])]:
        operands.add(value)
    empty = jnp.zeros((0,), jnp.float32)
    operands.add(empty, kept=True)
    operands.add(empty)
    for _ in range(sum(len(stage.slots) for stage in plan.stages) + (plan.master == "float64")):
        operands.add(empty if plan.master != "float64" else jnp.zeros((0,), jnp.float64), kept=True)
    return _bound(operands, operands.arrays, attributes | {"names": ""})[0]


def _check_norms(plan: Plan, call: str, arrays: list[Any]) -> None:
    """A norm inside shard_map would be that of the part of an array that one device has."""
    manual = getattr(jax.sharding.get_abstract_mesh(), "manual_axes", ())
    if not manual or not any(stage.measures for stage in plan.stages):
        return
    unknown = not _varying(jax.lax.axis_index(manual[0]))
    if unknown or any(map(_varying, arrays)):
        raise InvalidValueError(
            f"{call}: {plan.rule!r} measures norms of whole arrays, and inside shard_map there are parts of them"
            + (" (or may be: check_vma=False hides it)" if unknown else "")
            + "; apply it outside, or to parameters and gradients that are the same on all devices, with check_vma=True"
        )
