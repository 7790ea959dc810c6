"""Keep the stub of the rule classes equal to what the C++ registry says.

python tools/make_stubs.py            print the stub
python tools/make_stubs.py --check    exit with 1 if python/optimisers/_rules.pyi is another one
python tools/make_stubs.py --write    write it
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import optimisers as opt

STUB = Path(__file__).resolve().parents[1] / "python" / "optimisers" / "_rules.pyi"
ARGUMENTS = {
    "double": "float",
    "pair": "Sequence[float]",
    "int": "int",
    "bool": "bool",
    "scope": 'Literal["leaf", "global"]',
}
ATTRIBUTES = ARGUMENTS | {"pair": "tuple[float, float]"}


def argument(field: Any) -> str:
    default = "" if field.default is None else f" = {field.default!r}".replace("'", '"')
    return f"        {field.name}: {ARGUMENTS[field.kind]}{default},"


def rule_class(rule: type[opt.Rule]) -> str:
    """Return the stub of one class."""
    fields = list(rule.fields)
    lines = [f"class {rule.__name__}(BuiltinRule):"]
    for f in fields:
        lines += ["    @property", f"    def {f.name}(self) -> {ATTRIBUTES[f.kind]}: ..."]
    lines += ["    def __init__(", "        self,", *map(argument, fields)]
    if any(f.name == "centred" for f in fields):
        lines += ["        *,", "        centered: bool | None = None,"]
    return "\n".join([*lines, "    ) -> None: ...", ""])


def stub() -> str:
    names = ["RULES", *(rule.__name__ for rule in opt.RULES)]
    head = [
        "# Written by tools/make_stubs.py from the C++ registry.",
        "from collections.abc import Sequence",
        "from typing import Literal",
        "",
        "from ._rule import BuiltinRule",
        "",
        "RULES: tuple[type[BuiltinRule], ...]",
        "__all__ = [  # noqa: RUF022  the order of the registry",
        *(f'    "{name}",' for name in names),
        "]",
        "",
    ]
    return "\n".join(head + [rule_class(rule) for rule in opt.RULES])


def main() -> int:
    parser = argparse.ArgumentParser(description="the stub of the rule classes")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="fail if the stub is out of date")
    action.add_argument("--write", action="store_true", help="bring the stub up to date")
    args = parser.parse_args()

    if args.write:
        STUB.write_text(stub(), encoding="utf-8")
    elif not args.check:
        print(stub(), end="")
    elif not STUB.exists() or STUB.read_text(encoding="utf-8") != stub():
        print(f"{STUB.name} is out of date; run python tools/make_stubs.py --write", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
