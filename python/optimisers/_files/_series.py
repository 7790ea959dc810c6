"""Series of files, which differ in the number in their names: the newest, and which of them remain."""

from __future__ import annotations

import os
import re
import warnings
from typing import TYPE_CHECKING, Any

from .. import _core
from .._core import InvalidTypeError, InvalidValueError

if TYPE_CHECKING:
    from pathlib import Path

Pathlike = str | os.PathLike[str]
SUFFIX = ".safetensors"


def fspath(path: Any, call: str) -> bytes:
    if not isinstance(path, (str, os.PathLike)):
        raise InvalidTypeError(f"{call}: the path must be a str or os.PathLike, got {type(path).__name__}")
    encoded = os.fsencode(path)
    if b"\0" in encoded:
        raise InvalidValueError(f"{call}: the path has a null character in it: {os.fspath(path)!r}")
    return encoded


def _number(name: str) -> re.Match[str] | None:
    """The last number in a file's name."""
    return re.search(r"(\d+)(?=\D*$)", name)


def _same_series(name: str, other: str) -> int | None:
    """The number of a file, if its name differs from another's in the last number alone."""
    mine, its = _number(name), _number(other)
    if mine is None or its is None:
        return None
    if name[: mine.start()] != other[: its.start()] or name[mine.end() :] != other[its.end() :]:
        return None
    return int(its[0])


def series_of(path: Pathlike, keep: int) -> tuple[Path, int]:
    from pathlib import Path

    if isinstance(keep, bool) or not isinstance(keep, int) or keep < 1:
        raise InvalidValueError(f"save: keep must be a number of files, at least 1, got {keep!r}")
    if _number(Path(path).name) is None:
        raise InvalidValueError(
            f'save: keep={keep} removes older files of the series, which the number in the name tells: save to "step100'
            f'{SUFFIX}" and the like, got "{Path(path).name}"'
        )
    return Path(path), keep


def remove_old(series: tuple[Path, int] | None) -> None:
    """All but the newest of a series, and what a killed process has left of those. What cannot be removed stays."""
    if series is None:
        return
    path, keep = series
    mine = int(_number(path.name)[0])  # type: ignore[index]
    older = []
    for other in path.parent.iterdir():
        number = _same_series(path.name, other.name.removesuffix(".part"))
        if number is not None and number < mine:
            older.append((number, other))
    kept = sorted({number for number, other in older if not other.name.endswith(".part")})
    kept = kept[max(0, len(kept) - (keep - 1)) :]
    for number, other in older:
        if number in kept and not other.name.endswith(".part"):
            continue
        if not other.name.endswith(".part") and not _is_ours(other):
            continue
        try:
            other.unlink()
        except OSError as error:
            warnings.warn(f"save: cannot remove {other}: {error.strerror}", stacklevel=3)


def _is_ours(path: Path) -> bool:
    try:
        _core.File(os.fsencode(path))
    except (OSError, InvalidValueError):
        return False
    return True


def latest(folder: Pathlike, pattern: str = f"*{SUFFIX}") -> str | None:
    """The newest state in a folder: the file with the largest number in its name, if it is whole.

    Args:
        folder: where `save` wrote.
        pattern: of the files' names.

    Returns:
        The path; None where the folder has no such file or does not exist. Files whose headers are damaged are passed
        over with a warning; a damaged array is found by `load`.

    Raises:
        ValueError: the files are of several series, or have no numbers: say which by `pattern`.

    Example:
        >>> import numpy as np, optimisers as opt, os, tempfile
        >>> folder = tempfile.mkdtemp()
        >>> state = opt.setup(opt.Adam(), np.ones(2))
        >>> for step in range(5):
        ...     opt.save(os.path.join(folder, f"step{step}.safetensors"), state, keep=2)
        >>> os.path.basename(opt.latest(folder)), len(os.listdir(folder))
        ('step4.safetensors', 2)
    """
    from pathlib import Path

    where = Path(os.fsdecode(fspath(folder, "latest")))
    if not where.exists():
        return None
    files = [path for path in where.glob(pattern) if path.is_file()]
    if not files:
        return None
    if len(files) > 1:
        odd = [f.name for f in files if _same_series(files[0].name, f.name) is None]
        if odd:
            raise InvalidValueError(
                f'latest: "{where}" has files of several series, "{files[0].name}" and "{odd[0]}"; say which by pattern'
            )
    numbered = [(int(n[0]) if (n := _number(f.name)) else 0, f) for f in files]
    for _, path in sorted(numbered, key=lambda item: item[0], reverse=True):
        try:
            _core.File(os.fsencode(path))
        except (OSError, InvalidValueError) as error:
            warnings.warn(f"latest: passed over a file: {error}", stacklevel=2)
        else:
            return str(path)
    return None
