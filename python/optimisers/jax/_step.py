"""One step as one custom call of XLA."""

from __future__ import annotations

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np

from .._core import InvalidValueError
from ._call import Operands, called, parts_of
from ._rule import Plan
from ._state import TransformState, bits_of
from ._trees import Leaves, compute_dtype, real_dtype


def run(
    plan: Plan, leaves: Leaves, grads: list[Any], state: TransformState, given: dict[str, Any], subtracts: bool
) -> tuple[list[Any], TransformState]:
    """New parameters, or what is to be subtracted from them, and the new state; `given` are hyperparameters."""
    numbers, places, stand_ins = _hyperparameters(plan, state, given)
    columns = _columns(plan, leaves, state)
    later = {i for tie in state.ties for i in tie[1:]}
    sums = {i: _gradient(leaves, grads, i, state.ties) for i in leaves.trained if i not in later}
    new: list[Any] = list(leaves.arrays) if subtracts else list(grads)
    clock: Any = None
    for swept in parts_of(plan, {i: (leaves.arrays[i], g) for i, g in sums.items()}):
        operands = Operands()
        operands.add(jnp.asarray(state.clock), kept=True)
        for value in (numbers, *stand_ins):
            operands.add(value)
        for i in swept:
            operands.add(jnp.asarray(leaves.arrays[i]), kept=subtracts, returned=True)
            operands.add(sums[i])
            for column in columns:
                if column[i] is not None:
                    operands.add(jnp.asarray(column[i]), kept=True)
        attributes = {
            "rule": plan.text,
            "names": "\n".join(leaves.paths[i].replace("\n", " ") for i in swept),
            "stand_in": np.array(places, np.int64),
            "subtracts": np.array([subtracts], np.int64),
        }
        own_clock, *results = called(plan, leaves.call, operands, attributes)
        clock = own_clock if clock is None else clock
        for i in swept:
            new[i] = results.pop(0)
            for column in columns:
                if column[i] is not None:
                    column[i] = results.pop(0)
    for first, *others in state.ties:
        for i in others:
            new[i] = new[first]
    trees = iter([leaves.structure.unflatten(column) for column in columns])
    slots = tuple({slot.name: next(trees) for slot in stage.slots} for stage in plan.stages)
    return new, TransformState(
        state.count + 1, clock, state.hyperparameters, slots, next(trees) if plan.master else None, state.ties
    )


def _gradient(leaves: Leaves, grads: list[Any], i: int, ties: tuple[tuple[int, ...], ...]) -> Any:
    """The leaf's gradient; of a tied array the sum over its places, in the type it is computed in."""
    tie = next((tie for tie in ties if tie[0] == i), (i,))
    arrays = [jnp.asarray(grads[k]) for k in tie]
    if len(arrays) > 1:
        compute = compute_dtype(leaves.arrays[i].dtype, None)
        arrays = [functools.reduce(jnp.add, [a.astype(compute) for a in arrays])]
    (g,) = arrays
    return g if jnp.issubdtype(g.dtype, jnp.inexact) else g.astype(compute_dtype(leaves.arrays[i].dtype, None))


def _columns(plan: Plan, leaves: Leaves, state: TransformState) -> list[list[Any]]:
    """For each slot of each stage, and the master copies, what stands at each leaf."""
    if [set(slots) for slots in state.slots] != [{slot.name for slot in stage.slots} for stage in plan.stages]:
        raise InvalidValueError(
            f"{leaves.call}: the state is of another rule: it has the slots {[sorted(s) for s in state.slots]}, and "
            f"{plan.rule!r} has {[[slot.name for slot in stage.slots] for stage in plan.stages]}"
        )
    columns = []
    for slots, stage in zip(state.slots, plan.stages, strict=True):
        for slot in stage.slots:
            column = leaves.of(slots[slot.name], f"the slot {slot.name}")
            _check_column(plan, leaves, column, slot.name, slot.real, state.ties)
            columns.append(column)
    if plan.master is not None:
        column = leaves.of(state.master, "the master copy")
        _check_column(plan, leaves, column, "master", False, state.ties)
        columns.append(column)
    return columns


def _check_column(
    plan: Plan, leaves: Leaves, column: list[Any], name: str, real: bool, ties: tuple[tuple[int, ...], ...]
) -> None:
    later = {i for tie in ties for i in tie[1:]}
    for i in leaves.trained:
        x, path = leaves.arrays[i], leaves.paths[i]
        dtype = compute_dtype(x.dtype, plan.master)
        none = i in later or (name == "master" and dtype == str(x.dtype))
        expected = None if none else (tuple(x.shape), real_dtype(dtype) if real else dtype)
        found = None if column[i] is None else (tuple(column[i].shape), str(column[i].dtype))
        if found != expected:
            raise InvalidValueError(
                f'{leaves.call}: the slot {name} at "{path}" is {_described(found)}, expected {_described(expected)} '
                f"for a parameter of {x.dtype} and {tuple(x.shape)}; call init for these parameters"
            )


def _described(kind: tuple[tuple[int, ...], str] | None) -> str:
    return "None" if kind is None else f"of {kind[1]} and shape {kind[0]}"


def _hyperparameters(plan: Plan, state: TransformState, given: dict[str, Any]) -> tuple[Any, list[int], list[Any]]:
    """The state's, and those that stand in for some of them: places and values."""
    places: list[int] = []
    values: list[Any] = []
    for name, value in given.items():
        at, pair = plan.places[name]
        wanted = (2,) if pair else ()
        array = jnp.asarray(value, float)
        if array.shape != wanted:
            raise InvalidValueError(f"apply: {name} must have shape {wanted}, got {array.shape}")
        for place in at:
            places.append(place)
            values.append(array)
    own = bits_of(plan.numbers()) if state.hyperparameters is None else jnp.asarray(state.hyperparameters)
    return own, places, values
