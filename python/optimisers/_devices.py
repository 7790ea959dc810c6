"""to_device: models and states on other devices."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import numpy as np

from . import _arrays, _core
from ._core import InvalidTypeError, InvalidValueError
from ._saved import plain_data
from ._state import State, handle

X = TypeVar("X")
HOST = -1


def to_device(x: X, device: Any) -> X:
    """Return a copy of a model or of a whole state tree on another device.

    A deep copy, also of what is on that device already: nothing of the new is shared with the old, and ties are kept.
    All arrays move, trained or not; torch tensors stay torch's, NumPy arrays become CuPy's and the other way round,
    JAX arrays stay JAX's. Of a state tree the slots and clocks move, and what rules written in Python keep.

    Args:
        x: a model, or any tree of arrays such as its gradients; or a state tree as `setup` returned it.
        device: "cpu"; "cuda", which is "cuda:0"; "cuda:1"; or the number of a CUDA device.

    Returns:
        The copy.

    Raises:
        ValueError: there is no such device, CUDA is off (see `doctor`), or `x` is a part of a state tree.
        TypeError: NumPy arrays are to go to a CUDA device, and CuPy is not there to hold them.

    Example:
        >>> import numpy as np, optimisers as opt
        >>> model = {"w": np.ones(2)}
        >>> state = opt.setup(opt.Momentum(), model)
        >>> model, state = opt.to_device(model, "cpu"), opt.to_device(state, "cpu")
        >>> state["w"].state.v
        array([0., 0.])
    """
    place = _place(device)
    return _moved_state(x, place) if isinstance(x, State) else _moved_tree(x, place)  # type: ignore[return-value]


def _place(device: Any) -> int:
    """The number of a device, -1 for the host."""
    if isinstance(device, int) and not isinstance(device, bool):
        if device >= 0:
            return device
    elif isinstance(device, str) or type(device).__name__ == "device":  # torch.device
        name = str(device)
        if name == "cpu":
            return HOST
        if found := re.fullmatch(r"cuda(?::(\d+))?", name):
            return int(found[1] or 0)
    raise InvalidValueError(f'to_device: expected "cpu", "cuda", "cuda:1" or the number of a device, got {device!r}')


def _moved_state(state: State, place: int) -> State:
    if state._core.path(state._node):
        raise InvalidValueError(
            f'to_device: "{state._core.path_text(state._node)}" is a part of a state tree; convert the whole tree'
        )
    on, reason, _ = _core.cuda_status() if place != HOST else (True, "", [])
    if not on:
        raise InvalidValueError(f"to_device: CUDA is off: {reason}")
    spec, (kinds, *leaves), rules, layout, user, *memory = plain_data(state._core)
    kinds = [(dtype, _library_there(library, place), frozen, place) for dtype, library, frozen, _ in kinds]
    user = {leaf: [_moved_tree(own, place) for own in states] for leaf, states in user.items()}
    core = _core.unpickled_state((spec, (kinds, *leaves), rules, layout, user, *memory))
    core.setup_rule = state._core.setup_rule
    return handle(core, 0)  # type: ignore[no-any-return]


def _library_there(library: str, place: int) -> str:
    if place == HOST:
        return library if library in ("torch", "jax") else "numpy"
    if library == "numpy":
        return "other" if _arrays.cupy_or_none() is None else "cupy"
    return library


def _moved_tree(tree: Any, place: int) -> Any:
    """A deep copy, for which deepcopy is told what becomes of each array."""
    from copy import deepcopy

    memo: dict[int, Any] = {}
    native = _core.Model(tree, "to_device")
    leaves = [_moved_array(array, place) for _, array in native.leaves()]
    for leaf, _, array, axes in native.places():
        back = tuple(int(i) for i in np.argsort(axes))
        memo.setdefault(id(array), _core.with_axes(leaves[leaf], back) if axes else leaves[leaf])
    seen: dict[int, Any] = {}  # keeps what has been looked at, and so its id
    waiting = [tree]
    while waiting:
        x = waiting.pop()
        if id(x) in seen or id(x) in memo:
            continue
        seen[id(x)] = x
        children = _core.children(x)
        if children is not None:
            waiting += [child for _, child, _ in children]
            waiting += x.buffers(recurse=False) if hasattr(x, "buffers") else ()  # a Module's
        elif isinstance(x, State):
            memo[id(x)] = _moved_state(x, place)
        elif _is_array(x):
            memo[id(x)] = _moved_array(x, place)
    for x in reversed(seen.values()):  # inner ones first: deepcopy finds them, and recurses no further
        deepcopy(x, memo)
    return deepcopy(tree, memo)


def _is_array(x: Any) -> bool:
    """Whether x is an array of numbers; strings and objects are copied like any other value."""
    if isinstance(x, np.ndarray):
        return x.dtype.kind in "biufc" or x.dtype.name == "bfloat16"
    return any(hasattr(type(x), name) for name in ("__dlpack__", "__cuda_array_interface__"))


def _moved_array(x: Any, place: int) -> Any:
    library = _core.library_of(x)
    if library == "torch":
        return _arrays.copied_tensor(x, "cpu" if place == HOST else f"cuda:{place}")
    if library == "jax":
        return _moved_jax(x, place)
    if place == HOST:
        return x.copy() if library == "numpy" else _core.moved(x, HOST)
    cupy = _arrays.cupy_or_none()
    if library == "numpy" and cupy is None:
        raise InvalidTypeError(
            "to_device: NumPy has no arrays on CUDA devices, and CuPy, which has, is not installed; "
            "install CuPy, or use torch tensors"
        )
    if library in ("numpy", "cupy"):
        with cupy.cuda.Device(place):
            return cupy.array(x, order="K")
    return _core.moved(x, place)


def _moved_jax(x: Any, place: int) -> Any:
    import jax

    platform, number = ("cpu", 0) if place == HOST else ("cuda", place)
    return jax.device_put(x, jax.devices(platform)[number])
