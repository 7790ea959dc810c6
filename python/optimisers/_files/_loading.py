"""load: a state from a file, in place or anew, strict by name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from .. import _core
from .._core import InvalidTypeError, InvalidValueError, OptimisersError
from .._fields import python_name
from .._rules import RULES
from .._setup import setup
from .._state import State
from ._parameters import Parameters, dotted, listed, renamed
from ._plain import Unpacker
from ._rules_data import rule_from, text_of, user_names, user_rule_from
from ._saving import check_whole, leaf_names
from ._series import Pathlike, fspath


class Loaded:
    """What `load` returns.

    Attributes:
        state: the state, the one that was given or a new one.
        model: the model; the one that was given, unless its arrays cannot be written (JAX).
        extra: what `save` was given besides.
        fresh: names of leaves that the file has not; with `partial`.
        unused: names of leaves of the file that are not here; with `partial`.
    """

    __slots__ = ("extra", "fresh", "model", "state", "unused")

    def __init__(self, state: Any, model: Any, extra: dict[str, Any], fresh: list[str], unused: list[str]) -> None:
        self.state = state
        self.model = model
        self.extra = extra
        self.fresh = fresh
        self.unused = unused

    def __repr__(self) -> str:
        parts = [f"extra={self.extra!r}"]
        parts += [f"fresh={self.fresh!r}"] * bool(self.fresh) + [f"unused={self.unused!r}"] * bool(self.unused)
        return f"Loaded({', '.join(parts)})"


class StateFile:
    """A file with its data read."""

    def __init__(self, path: Pathlike, call: str = "load") -> None:
        import json

        self.native = _core.File(fspath(path, call))
        self.what = f'loading "{os.fspath(path)}": '
        self.tensors = {name: (dtype, tuple(shape)) for name, dtype, shape in self.native.tensors()}
        with self.reading():
            self.data: dict[str, Any] = json.loads(self.native.data)
            self.data.get("extra", {}).items()
            self.manifest: dict[str, Any] = json.loads(self.native.manifest)
        self.unpacker = Unpacker(self.read, self.what)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Where data from outside are taken apart: what they are not, is an error that says so."""
        try:
            yield
        except OptimisersError:
            raise
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise InvalidValueError(f"{self.what}its data cannot be read: {type(error).__name__}: {error}") from error

    def read(self, name: str) -> tuple[Any, str, tuple[int, ...]]:
        dtype, shape = self.tensors.get(name, ("", ()))
        return self.native.read(name), dtype, shape


def load(
    path: Pathlike,
    state: State | None = None,
    model: Any = None,
    /,
    *,
    rename: Mapping[str, str] | None = None,
    partial: bool = False,
    cast: bool = False,
) -> Loaded:
    """Take a state from a file that `save` wrote, in Python, C++ or C.

    Leaves are found by their names. Every leaf must be in the file, with the same shape, dtype, rules and kinds of
    hyperparameters, and every leaf of the file must be here; what differs is listed. All of the file is read and its
    checksums are compared before anything is written. Hyperparameters take the values of the file: `adjust_` afterwards
    for others.

    Args:
        path: of the file.
        state: the state to be loaded into; None: a new one is set up for the model with the rules of the file.
        model: the model whose parameters are to be loaded too, if the file has some; needed where there is no state.
        rename: from beginnings of names in the file to those here: `{"old": "new"}`, `{"layers.*.attn":
            "layers.*.mixer"}`, where `*` is one component of a name and `**` any number; `{"module": ""}` takes one
            away. The first that fits counts.
        partial: leaves that are not in the file stay as they are (which is fresh in a state from `setup`), leaves of
            the file that are not here are left out. `Loaded` lists both.
        cast: state and parameters are converted where leaves have another real, or another complex, dtype.

    Returns:
        `Loaded`: `state`, `model`, `extra`, `fresh`, `unused`.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged, of another format, or does not fit; nothing has changed.
        TypeError: without a state: the file has rules written in Python. No code is ever loaded from a file.

    Example:
        >>> import numpy as np, optimisers as opt, os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "state.safetensors")
        >>> state, model = opt.update_(opt.setup(opt.Adam(), np.ones(2)), np.ones(2), np.ones(2))
        >>> opt.save(path, state, model)
        >>> again = opt.load(path, None, np.zeros(2))
        >>> again.model, again.state.rule
        (array([0.999, 0.999]), Adam(eta=0.001, beta=(0.9, 0.999), epsilon=1e-08))
    """
    pairs = _rename_pairs(rename)
    if state is not None:
        check_whole(state, "load")
    elif model is None:
        raise InvalidValueError("load: without a state pass the model: load(path, None, model)")
    file = StateFile(path)
    anew = state is None
    if state is None:
        state = _set_up(file, model, pairs)
    core = state._core
    names = leaf_names(core, "load")
    with file.reading():
        _check_user_rules(file, core, names, pairs)
    restoring = _core.Restoring(file.native, core, names, pairs, partial, cast)
    with file.reading():
        user = _user_parts(file, core, restoring.sources())
        extra = file.unpacker.unpack(file.data.get("extra", {}))
    only_state = anew and not any(name.startswith("model/") for name in file.tensors)  # the model says what it is for
    values = None if model is None or only_state else Parameters(file, core, names, model, pairs, partial, cast)
    restoring.read(anew)
    file.native.read_rest()
    restoring.commit()
    for leaf, rule, states in user:
        core.replace_rules([leaf], [rule._with_values(iter(core.rule_values(leaf)))])
        core.set_user_states(leaf, states)
    if values is not None:
        model = values.write()
    return Loaded(state, model, extra, restoring.fresh, restoring.unused)


def _rename_pairs(rename: Mapping[str, str] | None) -> list[tuple[str, str]]:
    if rename is None:
        return []
    if not isinstance(rename, Mapping) or not all(isinstance(t, str) for pair in rename.items() for t in pair):
        raise InvalidTypeError("load: rename must be a dict from names in the file to names here")
    return list(rename.items())


def _set_up(file: StateFile, model: Any, pairs: list[tuple[str, str]]) -> State:
    """A state of the model with the rules of the file."""
    manifest = file.manifest
    numbers = file.data.get("leaf_rules")
    if numbers is None:  # written by C++ or C
        rules = [rule_of_manifest(rule) for rule in manifest["rules"]]
        numbers = [leaf["rule"] for leaf in manifest["leaves"]]
    else:
        rules = file.data["rules"]
    paths = [leaf["path"] for leaf in manifest["leaves"] if "/before/" not in leaf["path"]]
    if len(paths) != len(numbers) or not all(isinstance(n, int) and 0 <= n < len(rules) for n in numbers):
        raise InvalidValueError(f"{file.what}its rules are not those of its leaves")
    with file.reading():
        made = [rule_from(rule, file.what) for rule in rules]
    by_name = {renamed(path, pairs): made[number] for path, number in zip(paths, numbers, strict=True)}
    left_alone = {renamed(path, pairs) for path in manifest["left_alone"]}

    def choose(path: Any, leaf: Any) -> Any:
        name = dotted(tuple(path))
        if name not in by_name and name not in left_alone:
            raise InvalidValueError(
                f'{file.what}the file has no rule for "{name}"; use setup, and load into its state with partial=True'
            )
        return by_name.get(name)

    return setup(choose, model)


def rule_of_manifest(rule: dict[str, Any]) -> dict[str, Any]:
    """As `pack_rule` has it."""
    stages = [{"rule": stage["rule"], "fields": _fields_of_manifest(stage)} for stage in rule["stages"]]
    inner = stages[0] if len(stages) == 1 else {"chain": stages}
    return inner if rule["master"] is None else {"mixed": inner, "dtype": rule["master"]}


def _fields_of_manifest(stage: dict[str, Any]) -> dict[str, Any]:
    counts = {f.name for cls in RULES if cls.__name__ == stage["rule"] for f in cls.fields if f.kind == "int"}
    return {
        python_name(name): int(float.fromhex(value)) if python_name(name) in counts else value
        for name, value in stage["fields"].items()
    }


def rules_of(file: StateFile) -> dict[str, dict[str, Any]]:
    """The rule of each leaf as Python saved it; empty for a file of C++ or C."""
    rules, numbers = file.data.get("rules", []), file.data.get("leaf_rules", [])
    paths = [leaf["path"] for leaf in file.manifest["leaves"] if "/before/" not in leaf["path"]]
    return {path: rules[number] for path, number in zip(paths, numbers, strict=False)}


def _check_user_rules(file: StateFile, core: _core.State, names: list[str], pairs: list[tuple[str, str]]) -> None:
    """Whether leaves have the same rules written in Python: the core knows of the others only."""
    stages = {id(rule): rule._user_stages() for rule in core.rules}
    if not file.data.get("user") and not any(stages.values()):
        return
    saved = {renamed(path, pairs): rule for path, rule in rules_of(file).items()}
    different = [
        f'"{name}" has rule {text_of(saved[name])} in the file, {core.rule_object(leaf)!r} here'
        for leaf, name in enumerate(names)
        if name in saved
        and user_names(saved[name]) != [type(stage).__qualname__ for stage in stages[id(core.rule_object(leaf))]]
    ]
    if different:
        raise InvalidValueError(f"{file.what}the file does not fit this state\n  different: {listed(different)}")


def _user_parts(file: StateFile, core: _core.State, sources: list[str | None]) -> list[tuple[int, Any, list[Any]]]:
    """(leaf, rule, states) of each leaf with stages written in Python, as the file has them."""
    if not file.data.get("user"):
        return []
    rules, parts = rules_of(file), []
    for leaf, source in enumerate(sources):
        rule = core.rule_object(leaf)
        if source is None or not rule._user_stages():
            continue
        states, now = file.data["user"].get(source, ()), core.user_states(leaf)
        if len(states) != len(now):
            raise InvalidValueError(f'{file.what}"{source}" has {len(states)} states of rules written in Python')
        new = user_rule_from(rule, rules[source], file.unpacker, source)
        values = [file.unpacker.unpack(state, like) for state, like in zip(states, now, strict=True)]
        parts.append((leaf, new, values))
    return parts
