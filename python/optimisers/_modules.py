"""Copies of torch Modules with other trained arrays, in which all else is the original's."""

from __future__ import annotations

import copy
import functools
import types
from collections import deque
from collections.abc import Iterable
from typing import Any

import numpy as np


def sharing_copy(module: Any, memo: dict[int, Any]) -> Any:
    """Return a copy of a Module, for which `memo` has the new trained arrays and inner Modules by the old ones' id.

    The Modules are new. Their buffers, parameters that are not trained and other attributes are the old ones'
    themselves, except for attributes that refer to something that is new, as the list of weights of an LSTM does.
    """
    seen, modules = set[int](), [module]
    while modules:
        part = modules.pop()
        if id(part) not in memo and id(part) not in seen:
            seen.add(id(part))
            modules += _share(part, memo)
    return copy.deepcopy(module, memo)


@functools.cache
def _of_every_module() -> frozenset[str]:
    """Attributes that each Module has for itself: its children, hooks and the mode it is in."""
    import torch

    return frozenset(vars(torch.nn.Module()))


def _share(module: Any, memo: dict[int, Any]) -> list[Any]:
    """Enter in `memo` what a copy of this one Module shares; return the Modules it refers to."""
    state = vars(module)
    for array in (*state.get("_parameters", {}).values(), *state.get("_buffers", {}).values()):
        memo.setdefault(id(array), array)
    modules = [child for child in state.get("_modules", {}).values() if child is not None]
    for name, value in state.items():
        if name in _of_every_module():
            continue
        inner, is_kept = _explore(value, memo)
        modules += inner
        if is_kept:
            memo.setdefault(id(value), value)
    return modules


def _explore(value: Any, memo: dict[int, Any]) -> tuple[list[Any], bool]:
    """Share the arrays an attribute refers to; return the Modules there, and whether nothing there is new."""
    import torch

    modules, seen, todo, is_kept = [], set[int](), [value], True
    while todo:
        x = todo.pop()
        if id(x) in seen:
            continue
        seen.add(id(x))
        if isinstance(x, torch.nn.Module):
            modules.append(x)
            is_kept = False
        elif memo.get(id(x), x) is not x:
            is_kept = False
        elif isinstance(x, (torch.Tensor, np.ndarray)):
            memo[id(x)] = x
        else:
            todo += _referred(x)
    return modules, is_kept


def _referred(x: Any) -> Iterable[Any]:
    """What `copy.deepcopy` would go on to."""
    if isinstance(x, (str, bytes, int, float, complex, type, types.FunctionType, types.ModuleType)):
        return ()
    if isinstance(x, types.MethodType):
        return (x.__self__,)
    if isinstance(x, functools.partial):
        return (x.func, *x.args, *x.keywords.values())
    if isinstance(x, dict):
        return (*x.keys(), *x.values(), *vars(x).values()) if hasattr(x, "__dict__") else (*x.keys(), *x.values())
    if isinstance(x, (list, tuple, set, frozenset, deque)):
        return (*x, *vars(x).values()) if hasattr(x, "__dict__") else tuple(x)
    slots = (getattr(x, name, None) for cls in type(x).__mro__ for name in _slots(cls))
    return (*getattr(x, "__dict__", {}).values(), *slots)


def _slots(cls: type) -> Iterable[str]:
    names = vars(cls).get("__slots__", ())
    return (names,) if isinstance(names, str) else names
