"""Keep the stubs of the rule classes, and of the optimisers for torch made from them, equal to the C++ registry.

python tools/make_stubs.py            print the stubs
python tools/make_stubs.py --check    exit with 1 if one in python/optimisers is another one
python tools/make_stubs.py --write    write them
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import optimisers as opt
from optimisers._rule import type_of

PACKAGE = Path(__file__).resolve().parents[1] / "python" / "optimisers"
ARGUMENTS = {
    "double": "float",
    "pair": "Sequence[float]",
    "int": "int",
    "bool": "bool",
}
ATTRIBUTES = ARGUMENTS | {"pair": "tuple[float, float]"}


def annotation(field: Any, kinds: dict[str, str]) -> str:
    return type_of(field) if field.words else kinds[field.kind]


def argument(field: Any) -> str:
    default = "" if field.default is None else f" = {field.default!r}".replace("'", '"')
    return f"        {field.name}: {annotation(field, ARGUMENTS)}{default},"


def rule_class(rule: type[opt.Rule]) -> str:
    """Return the stub of one class."""
    fields = list(rule.fields)
    lines = [f"class {rule.__name__}(BuiltinRule):"]
    for f in fields:
        lines += ["    @property", f"    def {f.name}(self) -> {annotation(f, ATTRIBUTES)}: ..."]
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


def torch_class(spec: Any) -> str:
    """Return the stub of one optimiser class for torch."""
    hidden = spec.keywords if spec.name == "AdamW" else {}
    keywords = {k: v for k, v in spec.keywords.items() if k not in hidden}
    lines = [f"class {spec.name}(Named):", "    def __init__(", "        self,", "        params: Params,"]
    lines += [f"        {k}: {entry_type(v)} = {written(v)}," for k, v in spec.entries.items()]
    lines += ["        *,", "        clip_grad_norm: float | None = None,", "        maximize: bool = False,"]
    lines += [f"        {k}: {entry_type(v)} = {written(v)}," for k, v in keywords.items()]
    lines += ["        foreach: bool | None = None,", "        fused: bool | None = None,"]
    lines += ["        capturable: bool = False,", "        differentiable: bool = False,"]
    return "\n".join([*lines, "    ) -> None: ...", ""])


def written(default: Any) -> str:
    return f'"{default}"' if isinstance(default, str) else repr(default)


def entry_type(default: Any) -> str:
    if isinstance(default, bool):
        return "bool"
    if isinstance(default, str):
        return "str"
    return "Sequence[float]" if isinstance(default, tuple) else "float | torch.Tensor"


def torch_stub() -> str:
    from optimisers.torch._rules import specs

    names = ["CLASSES", *(spec.name for spec in specs())]
    head = [
        "# Written by tools/make_stubs.py from the C++ registry.",
        "from collections.abc import Iterable, Sequence",
        "from typing import Any",
        "",
        "import torch",
        "",
        "from ._optimizer import Optimizer",
        "",
        "Tensors = Iterable[torch.Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, torch.Tensor]]",
        "Params = torch.nn.Module | Tensors",
        "",
        "class Named(Optimizer): ...",
        "",
        "CLASSES: tuple[type[Named], ...]",
        "__all__ = [  # noqa: RUF022  torch.optim's, then the registry's",
        *(f'    "{name}",' for name in names),
        "]",
        "",
    ]
    return "\n".join(head + [torch_class(spec) for spec in specs()])


def main() -> int:
    parser = argparse.ArgumentParser(description="the stubs of the rule classes and the optimisers for torch")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="fail if a stub is out of date")
    action.add_argument("--write", action="store_true", help="bring the stubs up to date")
    args = parser.parse_args()

    outdated = False
    for name, text in (("_rules.pyi", stub()), ("torch/_classes.pyi", torch_stub())):
        path = PACKAGE / name
        if args.write:
            path.write_text(text, encoding="utf-8")
        elif not args.check:
            print(text, end="")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            print(f"{name} is out of date; run python tools/make_stubs.py --write", file=sys.stderr)
            outdated = True
    return int(outdated)


if __name__ == "__main__":
    sys.exit(main())
