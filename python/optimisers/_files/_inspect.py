"""What is in a file, without its arrays: for programs, and as tables for the eye."""

from __future__ import annotations

from typing import Any, NamedTuple

from .._core import InvalidValueError
from ._loading import StateFile, rule_of_manifest, rules_of
from ._rules_data import text_of
from ._series import Pathlike


class SavedLeaf(NamedTuple):
    """A leaf in a file."""

    path: str
    shape: tuple[int, ...]
    dtype: str
    rule: str  # with its hyperparameters as they were
    frozen: bool
    clock: tuple[float, ...]  # of all stages
    names: tuple[str, ...]  # of the clock's scalars


class Inspected(NamedTuple):
    """What `inspect` returns; prints as a table."""

    path: str
    version: str  # of the library that wrote it
    leaves: tuple[SavedLeaf, ...]
    arrays: dict[str, tuple[str, tuple[int, ...]]]  # dtype and shape of every array by its name
    skipped: int
    norm: float | None
    ties: tuple[tuple[str, ...], ...]  # leaves with several places in the model
    extra: dict[str, Any]  # as JSON, arrays by their names

    def __str__(self) -> str:
        return "\n".join(lines_of(self))


def inspect(path: Pathlike) -> Inspected:
    """Return what a file holds: names, shapes, dtypes, rules and clocks. No array is read.

    Args:
        path: of a file that `save` wrote.

    Returns:
        `Inspected`, which prints as a table; `python -m optimisers show FILE` prints it too.

    Raises:
        OSError: the file cannot be read.
        ValueError: its header is damaged, or it is another kind of file.

    Example:
        >>> import numpy as np, optimisers as opt, os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "state.safetensors")
        >>> opt.save(path, opt.setup(opt.Momentum(), {"w": np.zeros((2, 3))}))
        >>> opt.inspect(path).leaves[0].shape, list(opt.inspect(path).arrays)
        ((2, 3), ['state/w/0/v'])
    """
    file = StateFile(path, "inspect")
    manifest = file.manifest
    norm = manifest["norm"]
    rules = rules_of(file)
    leaves: list[SavedLeaf] = []
    for leaf in manifest["leaves"]:
        if "/before/" in leaf["path"]:
            continue
        saved = manifest["rules"][leaf["rule"]]
        rule = text_of(rules[leaf["path"]] if leaf["path"] in rules else rule_of_manifest(saved))
        leaves.append(
            SavedLeaf(
                leaf["path"],
                tuple(leaf["shape"]),
                leaf["dtype"],
                rule,
                leaf["frozen"],
                tuple(map(float.fromhex, leaf["clock"])),
                tuple(name for stage in saved["stages"] for name in stage["clock"]),
            )
        )
    return Inspected(
        str(path),
        manifest["library"],
        tuple(leaves),
        dict(file.tensors),
        manifest["skipped"],
        None if norm is None else float.fromhex(norm),
        tuple(map(tuple, file.data.get("ties", []))),
        file.data.get("extra", {}),
    )


def _clock_text(leaf: SavedLeaf) -> str:
    shown = zip(leaf.names, leaf.clock, strict=True)
    return " ".join(f"{name}={value:.6g}" for name, value in shown)


def _table(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))] if rows else []
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def lines_of(found: Inspected) -> list[str]:
    """The file as a table."""
    import json

    count = len(found.leaves)
    lines = [f"{found.path}: {count} {'leaf' if count == 1 else 'leaves'}, written by optimisers {found.version}"]
    rows = [["leaf", "shape", "dtype", "clock", "rule"]]
    for leaf in found.leaves:
        rule = leaf.rule + (" frozen" if leaf.frozen else "")
        rows.append([leaf.path or "(the model)", str(leaf.shape), leaf.dtype, _clock_text(leaf), rule])
    lines += ["  " + line for line in _table(rows)]
    lines += ["arrays"]
    lines += ["  " + line for line in _table([[n, d, str(s)] for n, (d, s) in found.arrays.items()])]
    lines += [f"tied: {' = '.join(paths)}" for paths in found.ties]
    lines += [f"skipped steps: {found.skipped}"] * bool(found.skipped)
    lines += [f"extra {name}: {json.dumps(value)}" for name, value in found.extra.items()]
    return lines


def difference(a: Pathlike, b: Pathlike) -> list[str]:
    """What differs between two files, a line each: leaves, rules, clocks, arrays, extra."""
    import json

    one, other = inspect(a), inspect(b)
    left, right = ({leaf.path: leaf for leaf in found.leaves} for found in (one, other))
    lines = [f"- leaf {path}" for path in left if path not in right]
    lines += [f"+ leaf {path}" for path in right if path not in left]
    for path, leaf in left.items():
        if path not in right:
            continue
        for name in ("shape", "dtype", "rule", "frozen"):
            if (x := getattr(leaf, name)) != (y := getattr(right[path], name)):
                lines.append(f"! {path} {name}: {x} -> {y}")
        if (x := _clock_text(leaf)) != (y := _clock_text(right[path])):
            lines.append(f"! {path} clock: {x} -> {y}")
    lines += _array_differences(StateFile(a), StateFile(b))
    keys = dict.fromkeys((*one.extra, *other.extra))
    lines += [
        f"! extra {key}: {json.dumps(one.extra.get(key))} -> {json.dumps(other.extra.get(key))}"
        for key in keys
        if one.extra.get(key) != other.extra.get(key)
    ]
    return lines


def _array_differences(a: StateFile, b: StateFile) -> list[str]:
    lines = [f"- array {name}" for name in a.tensors if name not in b.tensors]
    lines += [f"+ array {name}" for name in b.tensors if name not in a.tensors]
    for name, kind in a.tensors.items():
        if name not in b.tensors:
            continue
        if kind != b.tensors[name]:
            lines.append(f"! array {name}: {kind[0]} {kind[1]} -> {b.tensors[name][0]} {b.tensors[name][1]}")
        elif (text := _values_text(a, b, name)) is not None:
            lines.append(f"! array {name}: {text}")
    return lines


def _values_text(a: StateFile, b: StateFile, name: str) -> str | None:
    import numpy as np

    x, y = a.native.read(name), b.native.read(name)
    if np.array_equal(x, y):
        return None
    dtype, _ = a.tensors[name]
    size = len(x) // max(1, _item_size(dtype))
    different = (x.reshape(size, -1) != y.reshape(size, -1)).any(axis=1)
    return f"{int(different.sum())} of {size} elements differ"


def _item_size(dtype: str) -> int:
    import numpy as np

    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


def main(arguments: list[str]) -> int:
    """`python -m optimisers show FILE ...` and `python -m optimisers diff A B`."""
    import sys

    usage = "usage: python -m optimisers show FILE ...\n       python -m optimisers diff FILE FILE"
    command, *files = arguments or [""]
    if command not in ("show", "diff") or not files or (command == "diff" and len(files) != 2):
        print(usage, file=sys.stderr)
        return 2
    try:
        if command == "show":
            for path in files:
                print(inspect(path))
            return 0
        lines = difference(*files)
    except (OSError, InvalidValueError) as error:
        print(f"optimisers: {error}", file=sys.stderr)
        return 2
    print("\n".join(lines) if lines else "no difference")
    return 1 if lines else 0
