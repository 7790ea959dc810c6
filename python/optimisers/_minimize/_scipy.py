"""The rules as methods of scipy.optimize.minimize."""

from __future__ import annotations

import warnings
from typing import Any

from .._core import InvalidTypeError, InvalidValueError
from .._rule import Rule, check_rule
from ._run import minimize
from ._stopping import INTERRUPTED

_OPTIONS = ("maxiter", "gtol", "ftol", "xtol", "patience", "schedule", "non_finite", "state")


class scipy_method:  # noqa: N801  called as a function
    """A rule as `method` of `scipy.optimize.minimize`, and so of `basinhopping` and whatever calls it.

    `options` are those of `optimisers.minimize`: `maxiter`, `gtol`, `ftol`, `xtol`, `patience`, `schedule`,
    `non_finite`, `state`, and SciPy's `disp`; others are warned of, as SciPy does. `tol` is `gtol` where that is not
    given. `bounds` and `callback` are SciPy's. The result is SciPy's `OptimizeResult`, with the fields that
    `optimisers.minimize` adds. Methods can be pickled.

    Args:
        rule: any rule.
        **options: what holds where the call's `options` say nothing.

    Raises:
        ValueError: constraints were given; without a gradient, `jac=`; or as `optimisers.minimize`.

    Example:
        >>> import numpy as np, optimisers as opt
        >>> from scipy.optimize import minimize, rosen, rosen_der
        >>> method = opt.scipy_method(opt.Adam(0.05), maxiter=5000)
        >>> found = minimize(rosen, np.zeros(4), jac=rosen_der, method=method)
        >>> found.success, found.x.round(3)
        (True, array([1., 1., 1., 1.]))
    """

    def __init__(self, rule: Rule, **options: Any) -> None:
        check_rule(rule, "scipy_method")
        unknown = [name for name in options if name not in _OPTIONS]
        if unknown:
            raise InvalidTypeError(f"scipy_method: there is no option {unknown[0]!r}; there are {', '.join(_OPTIONS)}")
        self.rule, self.options = rule, options

    def __repr__(self) -> str:
        return f"scipy_method({', '.join([repr(self.rule), *(f'{k}={v!r}' for k, v in self.options.items())])})"

    def __call__(
        self,
        fun: Any,
        x0: Any,
        args: Any = (),
        *,
        jac: Any = None,
        hess: Any = None,
        hessp: Any = None,
        bounds: Any = None,
        constraints: Any = (),
        callback: Any = None,
        tol: float | None = None,
        disp: bool = False,
        **options: Any,
    ) -> Any:
        """What SciPy calls."""
        from scipy.optimize import OptimizeResult, OptimizeWarning  # type: ignore[import-untyped, unused-ignore]

        if jac is None:
            raise InvalidValueError(
                "scipy_method: rules need the gradient: pass jac=True where fun returns (value, gradient), or "
                'jac=function; SciPy has "2-point" and the like for its own methods only, and '
                "jac=lambda x: approx_fprime(x, fun) does the same"
            )
        if constraints:
            raise InvalidValueError(
                "scipy_method: rules keep to bounds, not to constraints; use SLSQP or trust-constr, or add a penalty "
                "to fun"
            )
        if hess is not None or hessp is not None:
            warnings.warn("scipy_method: rules use no second derivatives (hess, hessp)", RuntimeWarning, stacklevel=3)
        unknown = [name for name in options if name not in _OPTIONS]
        if unknown:
            warnings.warn(
                f"scipy_method: unknown options: {', '.join(unknown)}; there are {', '.join(_OPTIONS)}",
                OptimizeWarning,
                stacklevel=3,
            )
        chosen = {**self.options, **{name: options[name] for name in options if name in _OPTIONS}}
        if tol is not None:
            chosen.setdefault("gtol", tol)
        result = minimize(fun, x0, self.rule, jac=jac, args=args, bounds=bounds, callback=callback, **chosen)
        if result.status == INTERRUPTED:
            raise KeyboardInterrupt  # who calls SciPy wants to be left, not to go on with this result
        if disp:
            print(f"{result.message}\n  value {result.fun}, {result.nit} iterations, {result.nfev} evaluations")
        return OptimizeResult(result)
