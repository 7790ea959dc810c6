"""setup: from a rule and a model to a state tree."""

from __future__ import annotations

import re
import warnings
from typing import Any

from . import _core
from ._destructure import Restructure
from ._resolve import resolve
from ._rule import Rule
from ._state import State, handle
from ._untrained import check_arrays, check_groups, check_model, is_state_dict
from ._user_rules import initialise

_STATE_DICT = (
    "setup: the model is the state_dict() of a Module: its buffers (running means and the like) are trained as if they "
    "were parameters, backward() leaves no gradient in it, and of one that was loaded or copied no update reaches a "
    "Module; pass the Module itself, or dict(module.named_parameters())"
)


def setup(rule: Any, model: Any, *, layout: Restructure[Any] | None = None) -> State:
    """Return the state of a rule for every trained array of a model.

    Args:
        rule: a rule; or rules by part, see below.
        model: nested dicts, lists, tuples, named tuples, dataclasses and `torch.nn.Module`s of NumPy
            arrays, torch tensors and JAX arrays, or one array; or `Duplicated(model, grads)`. Every other
            `Mapping` or `Sequence` that is no text, classes of attrs and pydantic, and those in JAX's pytree
            registry are containers too; for classes of your own see `register_container`. Of a Module the
            parameters that require a gradient now are trained; others get a state later by `extend_`, or now and
            rest by `freeze_`. With `layout`, the flat vector.
        layout: the second result of `destructure`. The leaves are then segments of the vector, and
            the state has the shape of the model.

    Rules by part, each of which may be `None` to leave an array alone, without any state:

    - a function `(path, leaf) -> rule`, with a `KeyPath` and the array;
    - a tree of rules: the model's own containers and keys, down to where one rule covers all below;
    - a dict from patterns to rules or to such dicts. A pattern is the beginning of dotted paths,
      component by component: `"enc"`, `"layers.*.bias"` with any one component, `"**.norm"` with
      any number of them. The first entry that matches wins; below a pattern, patterns go on where
      it ended;
    - a dict from `Marker`s to rules or such dicts, also mixed with patterns;
    - the key `...` of a dict has what covers the rest.

    A dict from the model's own keys is the same whether read as a tree or as patterns. Where a key
    of the model has `*` or a dot in it and would catch more as a pattern, that is an error.

    Returns:
        A `StateTree` of the model's shape; for one array a `Leaf`.

    Raises:
        ValueError: arrays overlap, the model contains itself, or has no trained array (one with nothing in it is
            a warning), an array has no rule, a pattern or marker catches nothing, the vector has the wrong length,
            or a hyperparameter is more than the type holds an array is computed in (float32 for 16-bit arrays).
        TypeError: `rule` is no rule, or the model holds what could be trained and is not read: a plain object with
            arrays, an iterator, arrays of other kinds.

    Example:
        >>> import numpy as np, optimisers as opt
        >>> state = opt.setup(opt.Momentum(), {"w": np.zeros((2, 3)), "b": np.zeros(3)})
        >>> state["w"].state.v.shape
        (2, 3)
        >>> model = {"enc": {"w": np.zeros(2), "b": np.zeros(1)}, "head": np.zeros(3)}
        >>> opt.setup({"**.b": opt.Descent(0.1), "enc": None, ...: opt.Adam()}, model)
        StateTree with 2 leaves, 48 B of state
          enc.b  (1,)  float64  0 B   Descent(eta=0.1)
          head   (3,)  float64  48 B  Adam(eta=0.001, beta=(0.9, 0.999), epsilon=1e-08)
    """
    if isinstance(model, _core.Duplicated):
        model = model.model
    if layout is not None:
        if not isinstance(layout, Restructure):
            raise _core.InvalidTypeError(
                f"setup: layout must be the second result of destructure, got {type(layout).__name__}"
            )
        native = layout._native
        rules, marks = resolve(rule, native)
        core = native.segmented_state(rules, model, marks)
        core.setup_rule = rule
        initialise(core, native, model)
        return handle(core, 0)  # type: ignore[no-any-return]
    if isinstance(model, (Rule, _core.Handle)):
        check_model(model, "setup")
    check_groups(model)
    native = _core.Model(model, "setup")
    if native.leaf_count() == 0 and not check_arrays(model, "setup"):
        warnings.warn("setup: the model has no trained array", stacklevel=2)
    if is_state_dict(model):
        warnings.warn(_STATE_DICT, stacklevel=2)
    rules, marks = resolve(rule, native)
    core = native.state(rules, marks)
    core.setup_rule = rule
    initialise(core, native)
    _warn_of_embeddings(core, [known for known in rules if known is not None])
    return handle(core, 0)  # type: ignore[no-any-return]


_NO_HIDDEN_MATRIX = re.compile(r".*embed.*|wte|wpe|(lm_|cls_)?head")


def _warn_of_embeddings(core: _core.State, rules: list[Rule]) -> None:
    """Of matrix rules at what is a matrix, and goes wrong without an error."""
    at_matrices = {id(known): known for known in rules}
    at_matrices = {key: r for key, r in at_matrices.items() if any(getattr(s, "_matrix", False) for s in r._stages())}
    for leaf, known in enumerate(rules) if at_matrices else ():
        path = core.path_text(core.leaf_node(leaf))
        if id(known) in at_matrices and any(map(_NO_HIDDEN_MATRIX.fullmatch, path.lower().split("."))):
            name = next(type(s).__name__ for s in known._stages() if getattr(s, "_matrix", False))
            warnings.warn(
                f'setup: {name} at "{path}" looks like an embedding or a head, which it is not for; give those '
                "another rule, such as AdamW",
                stacklevel=3,
            )
