"""What minimize returns: SciPy's fields, by name and by key."""

from __future__ import annotations

from typing import Any

_FIRST = ("message", "success", "status", "fun", "x", "jac", "nit", "nfev", "njev")


class OptimizeResult(dict[str, Any]):
    """A dict whose keys are attributes too, as `scipy.optimize.OptimizeResult` is."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the result has no {name!r}; it has {', '.join(self.shown())}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        try:
            del self[name]
        except KeyError:
            raise AttributeError(name) from None

    def shown(self) -> dict[str, Any]:
        """The fields in SciPy's order."""
        names = [*(name for name in _FIRST if name in self), *(name for name in self if name not in _FIRST)]
        return {name: self[name] for name in names}

    def __repr__(self) -> str:
        fields = self.shown()
        width = max(map(len, fields), default=0)
        indent = "\n" + " " * (width + 4)
        lines = (f"  {name:>{width}}: {repr(value).replace(chr(10), indent)}" for name, value in fields.items())
        return "\n".join(lines) or "OptimizeResult()"

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.shown()]
