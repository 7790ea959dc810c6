"""What the native update asks for when a rule has stages written in Python."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from . import _arrays, _core
from ._core import InvalidTypeError, InvalidValueError
from ._rule import BuiltinRule, Rule


def initialise(core: _core.State, model: _core.Model, flat: Any = None, but: Collection[int] = frozenset()) -> None:
    """Ask every user-defined stage for its first state, `but` of some leaves. With `flat`, leaves are its segments."""
    if not any(rule._user_stages() for rule in {id(rule): rule for rule in core.rules}.values()):
        return
    check_global_norms(core)
    check_libraries(core)
    arrays, begin = {}, 0
    for path, array in model.leaves():
        arrays[path] = array if flat is None else segment(flat, begin, tuple(array.shape))
        begin += int(np.prod(array.shape, dtype=np.int64))
    for leaf, rule in enumerate(core.rules):
        stages = rule._user_stages()
        if stages and leaf not in but:
            x = read_only(arrays[core.path(core.leaf_node(leaf))])
            master = core.master(leaf)
            if master is not None:
                x = read_only(_arrays.shown(master, core.leaf_info(leaf)[2]))
            core.set_user_states(leaf, [stage.init(x) for stage in stages])


def check_libraries(core: _core.State) -> None:
    """A rule written in Python computes with the array library of its leaf."""
    for leaf, rule in enumerate(core.rules):
        *_, library, device = core.leaf_info(leaf)
        if rule._user_stages() and device >= 0 and library not in ("torch", "cupy"):
            raise InvalidTypeError(
                f'setup: the array at "{core.path_text(core.leaf_node(leaf))}" is on a CUDA device and of neither '
                "torch nor CuPy, so a rule written in Python cannot compute with it; convert it, or use built-in rules"
            )


def check_global_norms(core: _core.State) -> None:
    """Leaves share a global norm only if the rules they meet it behind can be run together."""
    seen: dict[int, int] = {}
    for leaf, rule in enumerate(core.rules):
        for k, behind in enumerate(_user_stages_before_global_norms(rule)):
            if seen.setdefault(k, behind) != behind:
                raise InvalidValueError(
                    f'setup: the chain at "{core.path_text(core.leaf_node(leaf))}" has its global ClipNorm on '
                    "another side of a user-defined rule than other leaves have theirs, so they cannot share a norm; "
                    'put it behind the user-defined rules everywhere, or use scope="leaf"'
                )


def _user_stages_before_global_norms(rule: Rule) -> list[int]:
    """For each global ClipNorm how many user-defined stages stand before it; -1 for all of them."""
    total, before, found = len(rule._user_stages()), 0, []
    for stage in rule._stages():
        before += not isinstance(stage, BuiltinRule)
        if getattr(stage, "scope", None) == "global" and isinstance(stage, BuiltinRule):
            found.append(-1 if before == total else before)
    return found


def read_only(x: Any) -> Any:
    """The array for user code to look at. Others than NumPy's cannot be locked, so that they are copied."""
    if _arrays.is_tensor(x):
        return x.detach().clone()
    if _arrays.is_cupy(x):
        return x.copy()
    view = np.asarray(x).view()
    view.flags.writeable = False
    return view


def master_of(x: Any, master: Any) -> Any:
    """The master copy as the update will see it: where x was edited from outside, it takes x."""
    if _arrays.is_tensor(x):
        import torch

        wide = _arrays.shown(master, "torch")
        return torch.where(wide.to(x.dtype) == x, wide, x.to(wide.dtype))
    if _arrays.is_cupy(x):
        master = _arrays.shown(master, "cupy")
    xp: Any = _arrays.cupy_or_none() if _arrays.is_cupy(x) else np
    return read_only(xp.where(master.astype(x.dtype) == x, master, x.astype(master.dtype)))


def segment(flat: Any, begin: int, shape: tuple[int, ...]) -> Any:
    size = int(np.prod(shape, dtype=np.int64))
    return flat[begin : begin + size].reshape(shape)


def empty_like(x: Any) -> Any:
    """A contiguous buffer of the array's shape, dtype and library."""
    return _arrays.empty(tuple(x.shape), _arrays.dtype_name(x), _core.library_of(x), _core.device_of(x))


def summed(parts: list[Any], x: Any, call: str, path: str) -> Any:
    """One gradient of higher order in x's library and dtype, or None."""
    what = f'{call}: higher-order gradient at "{path}"'
    arrays = [converted(part, x, what, integers=True) for part in parts]
    return sum(arrays[1:], arrays[0]) if arrays else None


def run_stage(rule: Rule, call: str, path: str, state: Any, x: Any, dx: Any, higher: list[Any]) -> tuple[Any, Any]:
    """One call of the user's `apply`, with what it returned checked."""
    import copy

    result = rule.apply(copy.deepcopy(state), x, dx, *higher)
    what = f'{call}: {type(rule).__name__}.apply at "{path}"'
    if not isinstance(result, tuple) or len(result) != 2:
        raise InvalidTypeError(f"{what} must return (state, dx), got {type(result).__name__}")
    state, out = result
    return state, None if out is None else converted(out, x, f"{what}: the dx it returned")


def converted(array: Any, x: Any, what: str, integers: bool = False) -> Any:
    """An array of x's library and dtype, of another real floating point type before."""
    out: Any
    if _arrays.is_tensor(x):
        import torch

        out = array if _arrays.is_tensor(array) else torch.as_tensor(np.array(array))
        out = out.detach()
        complex_for_real = out.dtype.is_complex and not x.dtype.is_complex
        is_number = integers or out.dtype.is_floating_point or out.dtype.is_complex
    else:
        if _arrays.is_cupy(x) and not _arrays.is_cupy(array):
            raise InvalidTypeError(f"{what} is a {type(array).__name__}, expected a CuPy array like the parameter")
        out = array if _arrays.is_cupy(x) else np.asarray(array)
        complex_for_real = out.dtype.kind == "c" and x.dtype.kind != "c"
        is_number = out.dtype.kind in ("fcbiu" if integers else "fc") or out.dtype.name == "bfloat16"
    if tuple(out.shape) != tuple(x.shape):
        raise InvalidValueError(
            f"{what} has shape {tuple(out.shape)}, expected {tuple(x.shape)}, that of the parameter"
        )
    if complex_for_real or not is_number:
        raise InvalidValueError(f"{what} is {_arrays.dtype_name(out)}, expected {_arrays.dtype_name(x)}; convert it")
    return out.to(x.dtype) if _arrays.is_tensor(x) else out.astype(x.dtype, copy=False)
