"""Models without a trained array, and what is passed in place of a model: what there is, and what to do about it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np

from . import _arrays, _core
from ._core import InvalidTypeError, InvalidValueError
from ._opaque import kind_of_iterator
from ._paths import KeyPath
from ._rule import Rule

_REMEDIES = {
    "integer array": "arrays of integers are not trained: convert them, x.astype(numpy.float32)",
    "number": "numbers are not trained: make them arrays, numpy.array(x)",
    "parameter without requires_grad": "of a Module only parameters that require a gradient are trained: "
    "call module.requires_grad_() first",
    "array that is marked as not trained": "see trainable, and the metadata of fields",
}
_GROUP_OPTIONS = {
    "lr",
    "weight_decay",
    "momentum",
    "betas",
    "eps",
    "alpha",
    "nesterov",
    "amsgrad",
    "dampening",
    "foreach",
}


def check_model(model: Any, call: str) -> None:
    """Refuse what cannot be meant as a model: neither a container nor an array that could be trained."""
    if isinstance(model, Rule):
        swapped = "; the arguments look swapped: setup(rule, model)" if call == "setup" else ""
        raise InvalidTypeError(f"{call}: expected a model, got the rule {model!r}{swapped}")
    if isinstance(model, _core.Handle):
        raise InvalidTypeError(f"{call}: expected a model, got a {type(model).__name__}, which is the state of one")
    if _core.is_numeric(model) or _core.children(model) is not None:
        return
    if isinstance(model, Iterator):
        raise InvalidTypeError(f"{call}: the model is a {kind_of_iterator(model)}")
    kind = _kind(model, True)
    remedy = f"; {_REMEDIES[kind]}" if kind in _REMEDIES else "; pass an array, or a tree of arrays"
    if callable(model) and call.endswith("_trainables"):
        remedy = f"; the arguments look swapped: {call}(f, ..., model)"
    what = "None" if model is None else f"a {type(model).__name__}"
    raise InvalidTypeError(f"{call}: expected a model, got {what}{remedy}")


def check_arrays(model: Any, call: str) -> bool:
    """Refuse a model that has everything but a trained array. False: there is nothing in it at all."""
    check_model(model, call)
    found = _census(model)
    if not found:
        return False
    told = ", ".join(f'{n} {_plural(kind, n)} (the first at "{path}")' for kind, (n, path) in found.items())
    if any(isinstance(part, Rule) for part, _, _ in _walk(model)):
        remedy = "the arguments look swapped: setup(rule, model)"
    else:
        remedy = "; ".join(_REMEDIES[kind] for kind in found if kind in _REMEDIES) or "pass a tree of float arrays"
    raise InvalidValueError(f"{call}: the model has no trained array, but {told}; {remedy}")


def _plural(kind: str, n: int) -> str:
    if n == 1:
        return kind
    noun, space, rest = kind.partition(" that is ")
    if space:
        return f"{noun}s that are {rest}"
    noun, space, rest = kind.partition(" without ")
    return f"{noun}s{space}{rest}"


def check_groups(model: Any) -> None:
    """Refuse the parameter groups of torch's optimisers: their options would pass for children that are not trained."""
    groups = list(model) if isinstance(model, (list, tuple)) else [model]
    if not groups or not all(isinstance(group, dict) and "params" in group for group in groups):
        return
    if not any(_GROUP_OPTIONS.intersection(group) or isinstance(group["params"], Iterator) for group in groups):
        return
    options = sorted({name for group in groups for name in group if name != "params" and isinstance(name, str)})
    given = f" with {', '.join(options)}" if options else ""
    raise InvalidValueError(
        f"setup: the model is a list of torch's parameter groups{given}, which are options of rules here; pass the "
        'module, and rules by part: setup({"encoder": AdamW(1e-4), ...: AdamW(1e-3)}, module)'
    )


def is_state_dict(model: Any) -> bool:
    """Whether this is what Module.state_dict() returned, or a child of it is."""
    parts = [model]
    if type(model) in (dict, list, tuple):
        parts += model.values() if isinstance(model, dict) else model
    return any(isinstance(part, OrderedDict) and hasattr(part, "_metadata") for part in parts)


def _kind(x: Any, trained: bool) -> str:
    if _core.is_numeric(x):
        is_parameter = _arrays.is_tensor(x) and not x.requires_grad and not trained
        return "parameter without requires_grad" if is_parameter else "array that is marked as not trained"
    if isinstance(x, (bool, int, float, complex, np.number, np.bool_)):
        return "number"
    dtype = getattr(x, "dtype", None)
    if (
        dtype is not None
        and hasattr(x, "shape")
        and str(dtype).removeprefix("torch.").startswith(("int", "uint", "bool"))
    ):
        return "integer array"
    return {"str": "string"}.get(type(x).__name__, type(x).__name__)


def _walk(model: Any) -> Iterator[tuple[Any, KeyPath, bool]]:
    """What is no container in a model, whether trained or not."""
    open_: list[tuple[Any, KeyPath, bool]] = [(model, KeyPath(), True)]
    seen = set()
    while open_:
        node, path, trained = open_.pop()
        children = None if isinstance(node, Rule) else _core.children(node, trained)
        if children is None:
            yield node, path, trained
        elif id(node) not in seen:
            seen.add(id(node))
            open_ += [(child, KeyPath(*path, key), trained and lives) for key, child, lives in reversed(children)]


def _census(model: Any) -> dict[str, tuple[int, KeyPath]]:
    """How often there is something of each kind, and where first."""
    found: dict[str, tuple[int, KeyPath]] = {}
    for part, path, trained in _walk(model):
        if part is not None:
            n, first = found.get(kind := _kind(part, trained), (0, path))
            found[kind] = n + 1, first
    return found
