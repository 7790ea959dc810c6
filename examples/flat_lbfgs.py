"""L-BFGS from SciPy on destructure's flat vector, next to Adam on the same vector."""

from typing import Any

import numpy as np
from scipy.optimize import minimize

import optimisers as opt

rng = np.random.default_rng(0)
x = rng.uniform(-1, 1, size=(200, 2))
y = np.sin(3 * x[:, 0]) * x[:, 1]
model = {"hidden": {"w": rng.normal(size=(2, 24)), "b": np.zeros(24)}, "out": rng.normal(size=24) / 5}
flat, re = opt.destructure(model)


def value_and_grad(flat: Any) -> tuple[float, Any]:
    m: Any = re(flat)
    hidden = np.tanh(x @ m["hidden"]["w"] + m["hidden"]["b"])
    error = hidden @ m["out"] - y
    back = (2 / len(y)) * error
    inner = np.outer(back, m["out"]) * (1 - hidden**2)
    grads = {"hidden": {"w": x.T @ inner, "b": inner.sum(0)}, "out": hidden.T @ back}
    return float(np.mean(error**2)), re.flatten(grads)


found = minimize(value_and_grad, flat, jac=True, method="L-BFGS-B", options={"maxiter": 500})
print(f"L-BFGS: loss {found.fun:.2e} after {found.nfev} gradients")

by_adam = flat.copy()
state = opt.setup(opt.Adam(0.03), by_adam, layout=re)
for _ in range(2000):
    loss, gradient = value_and_grad(by_adam)
    opt.update_(state, by_adam, gradient)
print(f"Adam:   loss {loss:.2e} after 2000 gradients")

assert found.fun < loss < 0.01
