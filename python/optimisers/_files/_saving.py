"""save: a state, its model and what a user wants to keep with them, in one file; keep=, latest."""

from __future__ import annotations

import os
from typing import Any

from .. import _arrays, _core
from .._core import InvalidValueError
from .._state import State, check_state
from ._parameters import dotted, parameters
from ._plain import Packer, as_written, checked_text
from ._rules_data import pack_rule
from ._series import Pathlike, fspath, remove_old, series_of


def leaf_names(core: _core.State, call: str) -> list[str]:
    """What the leaves are called in files: their dotted paths, of tied ones the first."""
    names: dict[int, str] = {}
    for path, leaf, _ in core.paths():
        names.setdefault(leaf, dotted(path))
    found: dict[str, int] = {}
    for leaf, name in names.items():
        checked_text(name, f"the name of the leaf {name!r}", call)
        if found.setdefault(name, leaf) != leaf:
            raise InvalidValueError(
                f'{call}: two leaves are called "{name}" (a key with a dot in it?), and files go by names; rename a key'
            )
    return [names[leaf] for leaf in range(len(names))]


def check_whole(state: object, call: str) -> _core.State:
    check_state(state, call)
    assert isinstance(state, State)
    if state._node != 0 and state._core.path(state._node):
        raise InvalidValueError(f"{call}: this is a part of a state; pass the whole")
    return state._core


def _ties(core: _core.State, names: list[str]) -> list[list[str]]:
    places: dict[int, list[str]] = {}
    for path, leaf, _ in core.paths():
        places.setdefault(leaf, []).append(dotted(path))
    return [paths for paths in places.values() if len(paths) > 1]


def _data_of(core: _core.State, names: list[str], extra: dict[str, Any], packer: Packer) -> str:
    """What is Python's own in a file: rules as they are nested, states of rules written in Python, user data."""
    import json  # where it is needed: most processes never save

    rules: list[Any] = []
    numbers: dict[str, int] = {}
    leaf_rules, user = [], {}
    for leaf, name in enumerate(names):
        rule = core.rule_object(leaf)._with_values(iter(core.rule_values(leaf)))
        data = pack_rule(rule, packer, f"rules/{name}")
        text = json.dumps(data)
        if text not in numbers:
            numbers[text] = len(rules)
            rules.append(data)
        leaf_rules.append(numbers[text])
        states = core.user_states(leaf)
        if states:
            user[name] = [packer.pack(state, f"rule/{name}/{i}") for i, state in enumerate(states)]
    return json.dumps(
        {
            "rules": rules,
            "leaf_rules": leaf_rules,
            "user": user,
            "ties": _ties(core, names),
            "flat": core.has_layout(),
            "extra": {key: packer.pack(value, f"extra/{key}") for key, value in extra.items()},
        },
        allow_nan=False,
    )


class Saving:
    """A save that goes on in the background: `wait()` for its end, or ask `done`. It ends before the process does."""

    def __init__(self, write: Any, path: str) -> None:
        import threading

        self.path = path
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(write,), name="optimisers.save")
        self._thread.start()

    def _run(self, write: Any) -> None:
        try:
            write()
        except BaseException as error:
            self._error = error

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return not self._thread.is_alive()

    def wait(self) -> str:
        """Wait for the end; the path, once the file is in its place. Raises what went wrong."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self.path

    def __repr__(self) -> str:
        how = "running" if not self.done else "done" if self._error is None else f"failed: {self._error}"
        return f"Saving({self.path!r}, {how})"


def save(
    path: Pathlike,
    state: State,
    model: Any = None,
    /,
    *,
    keep: int | None = None,
    background: bool = False,
    **extra: Any,
) -> Any:
    """Write a state to a file from which `load` goes on, bit for bit.

    The file is a safetensors file: the `safetensors` package and C++ and C programs read it too. It is written beside
    its place, brought to the disk and moved there, so that at any instant the old file or the new one stands there,
    whole. It keeps the mode of the file it replaces.

    Args:
        path: of the file. Arrays go by the dotted paths of their leaves.
        state: a whole state tree: slots, clocks, hyperparameters as they are now, what is frozen, and what rules
            written in Python keep.
        model: the model, or the flat vector, whose parameters are to be kept as well.
        keep: how many files of this series remain, the newest ones. The name must have a number in it
            (`step000100.safetensors`); files of the same name with a smaller one are removed once this one is in its
            place.
        background: copy everything now, write it in a thread, and return a handle: steps that follow do not change what
            is written. `handle.wait()` raises what went wrong.
        **extra: whatever else is to come back from `load(...).extra`: numbers, texts, arrays, lists, tuples and dicts
            of these, objects with a `state_dict()`.

    Returns:
        None; with `background` a handle with `wait()` and `done`.

    Raises:
        OSError: what the operating system refuses: no space, no permission, no such folder. The old file stands.
        ValueError: `state` is a part, the model is another one's, two leaves have the same name, or another call is
            writing to the same path.
        TypeError: data that no file holds, by its name. Nothing is pickled.

    Example:
        >>> import numpy as np, optimisers as opt, os, tempfile
        >>> model = {"w": np.ones(2)}
        >>> state = opt.setup(opt.Adam(), model)
        >>> path = os.path.join(tempfile.mkdtemp(), "state.safetensors")
        >>> opt.save(path, state, model, epoch=3)
        >>> opt.load(path, state, model).extra
        {'epoch': 3}
    """
    core = check_whole(state, "save")
    target = fspath(path, "save")
    series = None if keep is None else series_of(path, keep)
    names = leaf_names(core, "save")
    packer = Packer()
    beside = [] if model is None else [(f"model/{n}", as_written(a)) for n, a in parameters(core, names, model, "save")]
    left_alone = [dotted(p) for p in core.left_alone()]
    if not background:
        data = _data_of(core, names, extra, packer)
        _core.save_state(core, target, names, beside + packer.arrays, left_alone, data)
        remove_old(series)
        return None
    core = core.copy()
    data = _data_of(core, names, extra, packer)
    copies = [(name, _copied(array)) for name, array in beside + packer.arrays]

    def write() -> None:
        _core.save_state(core, target, names, copies, left_alone, data)
        remove_old(series)

    return Saving(write, os.fspath(path))


def _copied(array: Any) -> Any:
    if _arrays.is_tensor(array):
        return array.clone()
    return array.copy()
