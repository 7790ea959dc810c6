"""The trained arrays of a model, as a list and together with other trees of its shape; norm and lerp_."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeVar, overload

from . import _core
from ._core import InvalidTypeError, InvalidValueError
from ._paths import KeyPath, listed
from ._state import State, children_of, handle
from ._untrained import check_arrays, check_model

M = TypeVar("M")
A = TypeVar("A")
Tied = Literal["sum", "first"]


def _model(model: Any, call: str) -> _core.Model:
    native = _core.Model(model, call)
    if native.leaf_count() == 0:
        check_model(model, call)
    return native


def _state_at(state: State, model: _core.Model, call: str) -> list[Any]:
    """The handles of a state tree at the model's places."""
    found = []
    for _, path, *_ in model.places():
        node = state._node
        for key in path:
            child = state._core.child(node, key)
            if child == 0:
                raise InvalidValueError(
                    f'{call}: the state tree has nothing at "{KeyPath(*path)}", of another model; '
                    f'at "{state._core.path_text(node)}" it has {listed(children_of(state._core, node))}'
                )
            node = child
        found.append(handle(state._core, node))
    return found


def _companions(model: _core.Model, trees: tuple[Any, ...], call: str, tied: Tied) -> list[list[Any]]:
    """For each tree what it has at each leaf: at tied places the sum, or what comes first. None: nothing."""
    if tied not in ("sum", "first"):
        raise InvalidValueError(f'{call}: tied must be "sum" or "first", got {tied!r}')
    places = model.places()
    out = []
    for tree in trees:
        is_state = isinstance(tree, State)
        found = _state_at(tree, model, call) if is_state else model.companion(tree, call, "tree")
        values: list[Any] = [None] * model.leaf_count()
        for place, value in zip(places, found, strict=True):
            leaf = place[0]
            if values[leaf] is None:
                values[leaf] = _on_leaf_axes(value, place[3])
            elif value is not None and tied == "sum" and not is_state:
                values[leaf] = _sum(values[leaf], _on_leaf_axes(value, place[3]))
        out.append(values)
    return out


def _on_leaf_axes(value: Any, axes: tuple[int, ...]) -> Any:
    return _core.with_axes(value, axes) if axes and hasattr(value, "transpose") else value


def _sum(a: Any, b: Any) -> Any:
    try:
        return a + b
    except TypeError:
        raise InvalidTypeError(
            f"at tied places the tree has values that cannot be added ({type(a).__name__}, {type(b).__name__}); "
            'pass tied="first" to take the first'
        ) from None


def _visits(model: _core.Model, trees: tuple[Any, ...], call: str, tied: Tied) -> Iterator[tuple[int, list[Any]]]:
    """(leaf, arguments of f), leaving out where a tree has None."""
    companions = _companions(model, trees, call, tied)
    for leaf, (_, x) in enumerate(model.leaves()):
        others = [values[leaf] for values in companions]
        if not any(other is None for other in others):
            yield leaf, [x, *others]


@overload
def trainables(model: Any, path: Literal[False] = ...) -> list[Any]: ...
@overload
def trainables(model: Any, path: Literal[True]) -> list[tuple[KeyPath, Any]]: ...
def trainables(model: Any, path: bool = False) -> Any:
    """Return the trained arrays of a model in walk order, tied ones once.

    Args:
        model: a tree of arrays.
        path: return `(KeyPath, array)` pairs.

    Returns:
        A list of the arrays themselves, not copies.

    Example:
        >>> import numpy as np, optimisers as opt
        >>> opt.trainables({"w": np.zeros(2), "name": "layer"})
        [array([0., 0.])]
    """
    leaves = _core.Model(model, "trainables").leaves()
    if not leaves:
        check_model(model, "trainables")
    return [(KeyPath(*p), array) for p, array in leaves] if path else [array for _, array in leaves]


def map_trainables(f: Callable[..., Any], model: M, *trees: Any, tied: Tied = "sum") -> M:
    """Return the model with `f(x, *others)` in place of each trained array `x`.

    Which arrays are trained is decided by the model alone. Where one of the trees has `None`, or
    nothing, f is not called and the model's own value stays. An array that stands at several places
    is visited once, and the result stands at all of them.

    Args:
        f: called with the array and what the trees have in its place; returns what is to stand there.
        model: any model.
        *trees: trees of the model's shape, such as gradients, other models, or its state tree (f
            then gets `Leaf`s). Where the model has a value that is not trained they may have one as well, but no
            array of floats: that would be dropped.
        tied: what a tree contributes where an array of the model stands at several places: "sum", as
            gradients do, or "first" for trees that hold no gradients, such as another model.

    Returns:
        A new model; what is not trained is shared.

    Raises:
        ValueError: a tree has not the model's shape.

    Example:
        >>> import numpy as np, optimisers as opt
        >>> model = {"w": np.ones(2), "name": "layer"}
        >>> opt.map_trainables(lambda x, dx: x - 0.5 * dx, model, {"w": np.ones(2)})
        {'w': array([0.5, 0.5]), 'name': 'layer'}
    """
    native = _model(model, "map_trainables")
    new = [array for _, array in native.leaves()]
    for leaf, arguments in _visits(native, trees, "map_trainables", tied):
        new[leaf] = f(*arguments)
    return native.rebuilt(new)  # type: ignore[no-any-return]


def reduce_trainables(
    f: Callable[..., Any], op: Callable[[A, Any], A], init: A, model: Any, *trees: Any, tied: Tied = "sum"
) -> A:
    """Combine `f(x, *others)` over the trained arrays of a model, in walk order, from `init` on.

    Args:
        f: called as by `map_trainables`, and left out where it is.
        op: `op(so_far, f(...))` returns the combination.
        init: what to start from.
        model: any model.
        *trees: trees of the model's shape.
        tied: as for `map_trainables`.

    Returns:
        `op(... op(op(init, f(first)), f(second)) ...)`.

    Raises:
        ValueError: a tree has not the model's shape.

    Example:
        >>> import operator, numpy as np, optimisers as opt
        >>> model = [np.ones(2), np.ones(3), "tanh"]
        >>> opt.reduce_trainables(np.size, operator.add, 0, model)
        5
    """
    so_far = init
    for _, arguments in _visits(_model(model, "reduce_trainables"), trees, "reduce_trainables", tied):
        so_far = op(so_far, f(*arguments))
    return so_far


def select_trainables(model: Any, tree: A) -> A:
    """Return a tree of the model's shape, such as its gradient, with `None` where the model is not trained.

    Args:
        model: any model; it alone decides what is trained.
        tree: a tree of its shape. Keys that it lacks stay missing.

    Returns:
        A new tree of the tree's own containers, its arrays shared. What stands at several places of
        the model stays as it is at each.

    Raises:
        ValueError: the tree has not the model's shape.

    Example:
        >>> import numpy as np, optimisers as opt
        >>> opt.select_trainables({"w": np.ones(2), "steps": 3}, {"w": np.zeros(2), "steps": 0.0})
        {'w': array([0., 0.]), 'steps': None}
    """
    return _model(model, "select_trainables").selected(tree)  # type: ignore[no-any-return]


def norm(tree: Any, p: float = 2, *, stream: Any = None) -> float:
    """Return the p-norm of all trained arrays of a tree together, as of one vector.

    ‖a‖ₚ = (Σ |aᵢ|ᵖ)^(1/p), summed in double precision in a fixed order and without overflow.

    Args:
        tree: a model, or gradients, or anything of their kind. An array that stands at several places
            counts once; for gradients of a model with ties, `norm(re.flatten(grads))` adds them first.
        p: any real number but 0; `inf` is the largest magnitude, `-inf` the smallest.
        stream: for arrays on CUDA devices, as for `update_`; the result is waited for.

    Returns:
        The norm; 0 without any element.

    Raises:
        ValueError: p is 0 or NaN.

    Example:
        >>> import numpy as np, optimisers as opt
        >>> opt.norm({"w": np.array([3.0]), "b": np.array([4.0])})
        5.0
    """
    result = _core.norm(tree, p, stream)
    if result == 0 and tree is not None:
        check_model(tree, "norm")
        if not _core.Model(tree, "norm").leaf_count():
            check_arrays(tree, "norm")
    return result


def lerp_(target: M, source: Any, w: float, *, stream: Any = None) -> M:
    """Move a model towards another, in place: a moving average, or a target network.

    target ← (1−w)·target + w·source

    One sweep over all arrays, in each target's compute type. Which arrays are trained is decided by
    the target; arrays that stand at several places are written once, and have to be one array in the
    source as well. Of a Module only the parameters that require a gradient are trained: for a target
    network that needs none, pass `dict(module.named_parameters())` of both.

    Args:
        target: a model of writable arrays.
        source: a tree of the same structure and shapes; other dtypes are converted.
        w: how far to go, in [0, 1].
        stream: for arrays on CUDA devices, as for `update_`.

    Returns:
        The target.

    Raises:
        ValueError: structure or shapes differ, a target is read-only or shares memory with another
            array, or w is out of range. Nothing has been written then.
        TypeError: something in the source that should be an array is none.

    Example:
        >>> import numpy as np, optimisers as opt
        >>> opt.lerp_({"w": np.zeros(2)}, {"w": np.array([1.0, 2.0])}, 0.5)
        {'w': array([0.5, 1. ])}
    """
    if _core.lerp_(target, source, w, stream) == 0:
        check_model(target, "lerp_")
        warnings.warn(
            "lerp_: the target has no trained array, so that nothing moves; of a Module only the parameters that "
            "require a gradient are trained: pass dict(module.named_parameters()) of both",
            stacklevel=2,
        )
    return target
