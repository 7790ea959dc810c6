"""An independent float64/complex128 reference of every rule, written only from the formulas of the contract.

This is the one deliberate second writing of the arithmetic: slow, plain NumPy, one short function a rule.
A rule is `f(h, c, x, dx, s) -> dx`: hyperparameters h, clock c (already advanced; c.g is the gradient as it came to the
chain, or out of the last AccumGrad; c.together holds (x, dx, slots) of all leaves that are at the same global stage, of
this one alone otherwise), parameter x, gradient dx, slots s (a dict it writes to).
What it returns is subtracted from x; None stops the chain for this leaf.

A spec names what to run: ("Adam", {"eta": 0.1}); a list of specs is a chain; MixedPrecision is
("MixedPrecision", {"rule": spec, "dtype": "float32"}).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

Array = np.ndarray
Slots = dict[str, Array]


@dataclass(frozen=True)
class Reference:
    """A rule as the contract has it: name, starting slots, arithmetic and default hyperparameters."""

    name: str
    init: Callable[[SimpleNamespace, Array], Slots]
    apply: Callable[[SimpleNamespace, SimpleNamespace, Array, Array, Slots], Array | None]
    defaults: dict[str, Any]


REFERENCE: dict[str, Reference] = {}
REQUIRED = object()  # stands for a hyperparameter without a default


def rule(name: str, init: Callable[[SimpleNamespace, Array], Slots], **defaults: Any):
    def register(apply):
        REFERENCE[name] = Reference(name, init, apply, defaults)
        return apply

    return register


def nothing(h: SimpleNamespace, x: Array) -> Slots:
    return {}


def zeros(*like_x: str, real: tuple[str, ...] = (), then: tuple[str, ...] = ()):
    """Slots that start at zero, in this order; those in `real` are real for a complex leaf too."""

    def init(h: SimpleNamespace, x: Array) -> Slots:
        return {n: np.zeros_like(x.real if n in real else x) for n in like_x + real + then}

    return init


def abs2(z: Array) -> Array:
    return z.real**2 + z.imag**2


def sign(z: Array) -> Array:
    """z/abs(z), 0 at 0; NaN stays NaN."""
    if not np.iscomplexobj(z):
        return np.sign(z)
    size = np.abs(z)
    return np.where(size == 0, 0, z / np.where(size == 0, 1, size))


def moments(h: SimpleNamespace, dx: Array, s: Slots) -> None:
    s["m"] = h.beta[0] * s["m"] + (1 - h.beta[0]) * dx
    s["v"] = h.beta[1] * s["v"] + (1 - h.beta[1]) * abs2(dx)


# ---------------------------------------------------------------------------------------------- rules


@rule("Descent", nothing, eta=0.1)
def descent(h, c, x, dx, s):
    return h.eta * dx


@rule("Momentum", zeros("v"), eta=0.01, rho=0.9)
def momentum(h, c, x, dx, s):
    s["v"] = h.rho * s["v"] + h.eta * dx
    return s["v"]


@rule("Nesterov", zeros("v"), eta=0.001, rho=0.9)
def nesterov(h, c, x, dx, s):
    """v has the sign of Optimisers.jl: it points where x goes, not along the gradient."""
    v = s["v"]
    s["v"] = h.rho * v - h.eta * dx
    return -(h.rho**2) * v + (1 + h.rho) * h.eta * dx


def rprop_start(h: SimpleNamespace, x: Array) -> Slots:
    return {"g": np.zeros_like(x), "eta": np.full_like(x, h.eta)}


@rule("Rprop", rprop_start, eta=1e-3, ell=(0.5, 1.2), gamma=(1e-6, 50.0))
def rprop(h, c, x, dx, s):
    """Variant without backtracking (iRprop-): after a change of sign the stored gradient, hence the step, is 0."""
    product = s["g"] * dx
    grown = np.minimum(s["eta"] * h.ell[1], h.gamma[1])
    shrunk = np.maximum(s["eta"] * h.ell[0], h.gamma[0])
    s["eta"] = np.where(product > 0, grown, np.where(product < 0, shrunk, s["eta"]))
    s["g"] = np.where(product < 0, 0, dx)
    return s["eta"] * sign(s["g"])


def rmsprop_start(h: SimpleNamespace, x: Array) -> Slots:
    q = {"q": np.zeros_like(x.real)}
    return q | {"l": np.zeros_like(x)} if h.centred else q


@rule("RMSProp", rmsprop_start, eta=1e-3, rho=0.9, epsilon=1e-8, centred=False)
def rmsprop(h, c, x, dx, s):
    """Deviates from the lecture and Graves (2013): epsilon outside the root, the variance clamped at 0."""
    s["q"] = h.rho * s["q"] + (1 - h.rho) * abs2(dx)
    variance = s["q"]
    if h.centred:
        s["l"] = h.rho * s["l"] + (1 - h.rho) * dx
        variance = np.maximum(s["q"] - abs2(s["l"]), 0)
    return h.eta * dx / (np.sqrt(variance) + h.epsilon)


ADAM = {"eta": 1e-3, "beta": (0.9, 0.999), "epsilon": 1e-8}


@rule("Adam", zeros("m", real=("v",)), **ADAM)
def adam(h, c, x, dx, s):
    moments(h, dx, s)
    m_hat = s["m"] / (1 - c.beta1_t)
    v_hat = s["v"] / (1 - c.beta2_t)
    return h.eta * m_hat / (np.sqrt(v_hat) + h.epsilon)


@rule("AdamW", zeros("m", real=("v",)), eta=1e-3, beta=(0.9, 0.999), lambda_=0.0, epsilon=1e-8, couple=True)
def adamw(h, c, x, dx, s):
    """couple=True is PyTorch's form (eta scales the decay too); couple=False is the paper's."""
    u = adam(SimpleNamespace(eta=1.0, beta=h.beta, epsilon=h.epsilon), c, x, dx, s)
    return h.eta * (u + h.lambda_ * x) if h.couple else h.eta * u + h.lambda_ * x


@rule("RAdam", zeros("m", real=("v",)), **ADAM, pytorch=False)
def radam(h, c, x, dx, s):
    """Rectifies for rho > 4 as the paper, which has no epsilon; PyTorch for > 5, with epsilon beside sqrt(v)."""
    moments(h, dx, s)
    m_hat = s["m"] / (1 - c.beta1_t)
    rho_inf = 2 / (1 - h.beta[1]) - 1
    rho = rho_inf - 2 * c.t * c.beta2_t / (1 - c.beta2_t)
    if not rho > (5 if h.pytorch else 4):
        return h.eta * m_hat
    r = np.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
    if h.pytorch:
        return h.eta * r * m_hat * np.sqrt(1 - c.beta2_t) / (np.sqrt(s["v"]) + h.epsilon)
    return h.eta * r * m_hat / (np.sqrt(s["v"] / (1 - c.beta2_t)) + h.epsilon)


@rule("NAdam", zeros("m", real=("v",)), **ADAM, pytorch=False, momentum_decay=4e-3)
def nadam(h, c, x, dx, s):
    """Deviates from Dozat (2016): no momentum schedule, and the second moment is multiplied by beta2 once more."""
    moments(h, dx, s)
    mu = next_mu = h.beta[0]
    if h.pytorch:  # Dozat's schedule
        mu, next_mu = (h.beta[0] * (1 - 0.5 * 0.96 ** (t * h.momentum_decay)) for t in (c.t, c.t + 1))
    c.product = getattr(c, "product", 1.0) * mu
    m_bar = next_mu * s["m"] / (1 - c.product * next_mu) + (1 - mu) * dx / (1 - c.product)
    factor = 1 if h.pytorch else h.beta[1]
    return h.eta * m_bar / (np.sqrt(factor * s["v"] / (1 - c.beta2_t)) + h.epsilon)


@rule("AdaMax", zeros("m", real=("u",)), **ADAM, pytorch=False)
def adamax(h, c, x, dx, s):
    """The paper has no epsilon; PyTorch adds it inside the maximum."""
    s["m"] = h.beta[0] * s["m"] + (1 - h.beta[0]) * dx
    if h.pytorch:
        s["u"] = np.maximum(h.beta[1] * s["u"], np.abs(dx) + h.epsilon)
        return h.eta / (1 - c.beta1_t) * s["m"] / s["u"]
    s["u"] = np.maximum(h.beta[1] * s["u"], np.abs(dx))
    return h.eta / (1 - c.beta1_t) * s["m"] / (s["u"] + h.epsilon)


def amsgrad_start(h: SimpleNamespace, x: Array) -> Slots:
    start = 0 if h.pytorch else h.epsilon
    return {"m": np.full_like(x, start), "v": np.full_like(x.real, start), "w": np.full_like(x.real, start)}


@rule("AMSGrad", amsgrad_start, **ADAM, pytorch=False)
def amsgrad(h, c, x, dx, s):
    """No bias correction, as the paper; deviates from it in starting m, v and w at epsilon and adding epsilon."""
    moments(h, dx, s)
    s["w"] = np.maximum(s["w"], s["v"])
    if h.pytorch:
        return h.eta * (s["m"] / (1 - c.beta1_t)) / (np.sqrt(s["w"] / (1 - c.beta2_t)) + h.epsilon)
    return h.eta * s["m"] / (np.sqrt(s["w"]) + h.epsilon)


@rule("OAdam", zeros("m", real=("v",), then=("o",)), **(ADAM | {"beta": (0.5, 0.9)}))
def oadam(h, c, x, dx, s):
    step = adam(h, c, x, dx, s)
    previous, s["o"] = s["o"], step
    return 2 * step - previous


@rule("AdaBelief", zeros("m", real=("s",)), **(ADAM | {"epsilon": 1e-16}))
def adabelief(h, c, x, dx, s):
    """As the paper, epsilon is added to the second moment in every step (and so accumulates) and to the root."""
    s["m"] = h.beta[0] * s["m"] + (1 - h.beta[0]) * dx
    s["s"] = h.beta[1] * s["s"] + (1 - h.beta[1]) * abs2(dx - s["m"]) + h.epsilon
    m_hat = s["m"] / (1 - c.beta1_t)
    return h.eta * m_hat / (np.sqrt(s["s"] / (1 - c.beta2_t)) + h.epsilon)


@rule("AdaGrad", lambda h, x: {"a": np.full_like(x.real, h.epsilon)}, eta=0.1, epsilon=1e-8)
def adagrad(h, c, x, dx, s):
    """Deviates from the paper: the sum starts at epsilon, which is also added to the root."""
    s["a"] = s["a"] + abs2(dx)
    return h.eta * dx / (np.sqrt(s["a"]) + h.epsilon)


@rule("AdaDelta", zeros(real=("a", "delta")), rho=0.9, epsilon=1e-8)
def adadelta(h, c, x, dx, s):
    s["a"] = h.rho * s["a"] + (1 - h.rho) * abs2(dx)
    dx = dx * np.sqrt(s["delta"] + h.epsilon) / np.sqrt(s["a"] + h.epsilon)
    s["delta"] = h.rho * s["delta"] + (1 - h.rho) * abs2(dx)
    return dx


@rule("Lion", zeros("m"), eta=1e-3, beta=(0.9, 0.999))
def lion(h, c, x, dx, s):
    """The paper's weights (Optimisers.jl up to 0.4.8 has them the other way round); its default beta2 is 0.99."""
    direction = sign(h.beta[0] * s["m"] + (1 - h.beta[0]) * dx)
    s["m"] = h.beta[1] * s["m"] + (1 - h.beta[1]) * dx
    return h.eta * direction


@rule("Adan", zeros("m", "e", real=("n",), then=("g",)), eta=1e-3, beta=(0.98, 0.99), beta_difference=0.92,
      lambda_=0.0, epsilon=1e-8, prox=True)  # fmt: skip
def adan(h, c, x, dx, s):
    """As the authors' code, whose betas are (beta[0], beta_difference, beta[1]): one minus the paper's."""
    d = dx - s["g"] if hasattr(c, "product") else np.zeros_like(dx)
    c.product = getattr(c, "product", 1.0) * h.beta_difference
    s["g"] = dx
    s["m"] = h.beta[0] * s["m"] + (1 - h.beta[0]) * dx
    s["e"] = h.beta_difference * s["e"] + (1 - h.beta_difference) * d
    s["n"] = h.beta[1] * s["n"] + (1 - h.beta[1]) * abs2(dx + h.beta_difference * d)
    nesterov = s["m"] / (1 - c.beta1_t) + h.beta_difference * s["e"] / (1 - c.product)
    u = h.eta * nesterov / (np.sqrt(s["n"] / (1 - c.beta2_t)) + h.epsilon)
    decay = h.eta * h.lambda_
    return (u + decay * x) / (1 + decay) if h.prox else u + decay * x


@rule("AdEMAMix", zeros("m", "s", real=("v",)), eta=1e-3, beta=(0.9, 0.999), lambda_=0.0, epsilon=1e-8,
      beta_slow=0.9999, weight=2.0, warmup=0.0)  # fmt: skip
def ademamix(h, c, x, dx, s):
    """The authors' schedulers of alpha and beta3, with one number of steps for both."""
    moments(h, dx, s)
    slow, weight = h.beta_slow, h.weight
    if c.t < h.warmup:
        at = c.t / h.warmup
        steps = [np.log(0.5) / np.log(beta + 1e-8) - 1 for beta in (h.beta[0], h.beta_slow)]
        slow = 0.5 ** (1 / ((1 - at) * steps[0] + at * steps[1] + 1))
        weight = at * h.weight
    s["s"] = slow * s["s"] + (1 - slow) * dx
    mixed = s["m"] / (1 - c.beta1_t) + weight * s["s"]
    return h.eta * (mixed / (np.sqrt(s["v"] / (1 - c.beta2_t)) + h.epsilon) + h.lambda_ * x)


@rule("ADOPT", zeros("m", real=("v",)), eta=1e-3, beta=(0.9, 0.9999), lambda_=0.0, epsilon=1e-6)
def adopt(h, c, x, dx, s):
    """The authors' code: the first gradient only sets v, and the normalised gradient is clipped to t^(1/4)."""
    if c.t == 1:
        s["v"] = abs2(dx)
        return np.zeros_like(dx)
    normalised = dx / np.maximum(np.sqrt(s["v"]), h.epsilon)
    clipped = clip_grad(SimpleNamespace(delta=(c.t - 1) ** 0.25), c, x, normalised, s)
    s["m"] = h.beta[0] * s["m"] + (1 - h.beta[0]) * clipped
    s["v"] = h.beta[1] * s["v"] + (1 - h.beta[1]) * abs2(dx)
    return h.eta * (s["m"] + h.lambda_ * x)


@rule("StableAdamW", zeros("m", real=("v",)), eta=1e-3, beta=(0.9, 0.99), lambda_=1e-2, epsilon=1e-6)
def stable_adamw(h, c, x, dx, s):
    """Betas without their bias instead of bias corrections; the mean is of v as this step leaves it."""
    first, second = ((beta - power) / (1 - power) for beta, power in zip(h.beta, (c.beta1_t, c.beta2_t), strict=True))
    s["m"] = first * s["m"] + (1 - first) * dx
    s["v"] = second * s["v"] + (1 - second) * abs2(dx)
    ratios = abs2(dx) / np.maximum(s["v"], h.epsilon**2)
    rate = h.eta / max(1.0, np.sqrt(ratios.mean()) if ratios.size else 0.0)
    return rate * (s["m"] / (np.sqrt(s["v"]) + h.epsilon) + h.lambda_ * x)


@rule("MARS", zeros("m", real=("v",), then=("g",)), eta=3e-3, beta=(0.95, 0.99), lambda_=0.0, epsilon=1e-8,
      correction=0.025)  # fmt: skip
def mars(h, c, x, dx, s):
    change = dx - s["g"] if c.t > 1 else np.zeros_like(dx)
    s["g"] = dx
    corrected = dx + h.correction * h.beta[0] / (1 - h.beta[0]) * change
    corrected = corrected / max(1.0, norm([corrected], 2))
    return adam(h, c, x, corrected, s) + h.eta * h.lambda_ * x


@rule("NovoGrad", zeros("m"), eta=1e-3, beta=(0.95, 0.98), lambda_=0.0, epsilon=1e-8)
def novograd(h, c, x, dx, s):
    size = float(abs2(dx).sum())
    c.v = size if c.t == 1 else h.beta[1] * c.v + (1 - h.beta[1]) * size
    s["m"] = h.beta[0] * s["m"] + dx / (np.sqrt(c.v) + h.epsilon) + h.lambda_ * x
    return h.eta * s["m"]


@rule("Prodigy", lambda h, x: {"m": x * 0, "v": x * 0, "s": x * 0, "x0": x.copy()}, eta=1.0, beta=(0.9, 0.999),
      lambda_=0.0, epsilon=1e-8, d0=1e-6, coefficient=1.0, bias_correction=False, safeguard=False)  # fmt: skip
def prodigy(h, c, x, dx, s):
    """The authors' code; d, numerator and count are of all leaves, which all come to the same ones."""
    d, steps, decay = getattr(c, "d", h.d0), getattr(c, "steps", 0) + 1, np.sqrt(h.beta[1])
    correction = np.sqrt(1 - h.beta[1] ** steps) / (1 - h.beta[0] ** steps) if h.bias_correction else 1.0
    rate = d * h.eta * correction

    def after(dx: Array, slot: Array) -> Array:
        return decay * slot + d / h.d0 * (d if h.safeguard else rate) * dx

    sizes = sum(float(np.abs(after(g, slots["s"])).sum()) for _, g, slots in c.together)
    back = sum(float((g * (slots["x0"] - value)).sum()) for value, g, slots in c.together)
    s["m"] = h.beta[0] * s["m"] + d * (1 - h.beta[0]) * dx
    s["v"] = h.beta[1] * s["v"] + d**2 * (1 - h.beta[1]) * dx**2
    s["s"] = after(dx, s["s"])
    if sizes == 0:
        return np.zeros_like(dx)
    c.numerator, c.steps = decay * getattr(c, "numerator", 0.0) + d / h.d0 * rate * back, steps
    c.d = max(d, h.coefficient * c.numerator / sizes)
    return rate * (s["m"] / (np.sqrt(s["v"]) + c.d * h.epsilon) + h.lambda_ * x)


KELLER = ((3.4445, -4.7750, 2.0315),) * 5
POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)


def orthogonalised(u: Array, steps: int, polar_express: bool) -> Array:
    """A polynomial in the singular values, seen as such: no product of matrices."""
    table, margin, floor = (POLAR_EXPRESS, 1.02, 1e-6) if polar_express else (KELLER, 1.0, 1e-7)
    left, sizes, right = np.linalg.svd(u / (margin * np.sqrt((u**2).sum()) + floor), full_matrices=False)
    for step in range(steps):
        a, b, c = table[min(step, 4)]
        sizes = sizes * (a + b * sizes**2 + c * sizes**4)
    return left @ (sizes[:, None] * right)


@rule("Muon", zeros("m"), eta=0.02, rho=0.95, lambda_=0.0, nesterov=True, scaling="original", layout="out_in",
      batched=False, coefficients="keller", steps=5)  # fmt: skip
def muon(h, c, x, dx, s):
    s["m"] = h.rho * s["m"] + (1 - h.rho) * dx
    u = (1 - h.rho) * dx + h.rho * s["m"] if h.nesterov else s["m"]
    o = np.zeros_like(u)
    for at in range(len(u)) if h.batched else [slice(None)]:
        one = u[at]
        matrix = (
            one.reshape(len(one), int(np.prod(one.shape[1:])))
            if h.layout == "out_in"
            else one.reshape(int(np.prod(one.shape[:-1])), one.shape[-1])
        )
        out, into = matrix.shape if h.layout == "out_in" else matrix.shape[::-1]
        o[at] = orthogonalised(matrix, h.steps, h.coefficients == "polar_express").reshape(one.shape)
    into = max(into, 1)  # of a leaf without elements
    scale = {"original": np.sqrt(max(1, out / into)), "match_rms": 0.2 * np.sqrt(max(out, into)),
             "spectral": np.sqrt(out / into)}[h.scaling]  # fmt: skip
    return h.eta * (scale * o + h.lambda_ * x)


@rule("LaProp", zeros("m", real=("v",)), eta=4e-4, beta=(0.9, 0.999), epsilon=1e-15)
def laprop(h, c, x, dx, s):
    """The authors' code: the bias of m is that of a mean of the learning rates."""
    s["v"] = h.beta[1] * s["v"] + (1 - h.beta[1]) * abs2(dx)
    normalised = dx / (np.sqrt(s["v"] / (1 - c.beta2_t)) + h.epsilon)
    s["m"] = h.beta[0] * s["m"] + (1 - h.beta[0]) * h.eta * normalised
    c.rate = h.beta[0] * getattr(c, "rate", 0.0) + (1 - h.beta[0]) * h.eta
    return s["m"] * (h.eta / c.rate if c.rate else 0.0)


@rule("NAdamW", zeros("m", real=("v",)), eta=1e-3, beta=(0.9, 0.999), lambda_=0.0, epsilon=1e-8)
def nadamw(h, c, x, dx, s):
    """Dozat's two bias corrections with a constant beta, as optax; no factor beside the second moment."""
    moments(h, dx, s)
    m_bar = h.beta[0] * s["m"] / (1 - c.beta1_t * h.beta[0]) + (1 - h.beta[0]) * dx / (1 - c.beta1_t)
    return h.eta * (m_bar / (np.sqrt(s["v"] / (1 - c.beta2_t)) + h.epsilon) + h.lambda_ * x)


@rule("Yogi", lambda h, x: {"m": np.full_like(x, h.initial), "v": np.full_like(x.real, h.initial)},
      eta=1e-2, beta=(0.9, 0.999), epsilon=1e-3, initial=1e-6)  # fmt: skip
def yogi(h, c, x, dx, s):
    """Deviates from the paper's algorithm as its authors' code does: bias corrections."""
    s["m"] = h.beta[0] * s["m"] + (1 - h.beta[0]) * dx
    s["v"] = s["v"] - (1 - h.beta[1]) * sign(s["v"] - abs2(dx)) * abs2(dx)
    return h.eta * (s["m"] / (1 - c.beta1_t)) / (np.sqrt(s["v"] / (1 - c.beta2_t)) + h.epsilon)


@rule("Signum", zeros("m"), eta=1e-3, rho=0.9)
def signum(h, c, x, dx, s):
    s["m"] = h.rho * s["m"] + (1 - h.rho) * dx
    return h.eta * sign(s["m"])


@rule("ZeroNonFinite", nothing)
def zero_non_finite(h, c, x, dx, s):
    return np.where(np.isfinite(dx), dx, 0)


@rule("Box", nothing, bounds=(-1.0, 1.0))
def box(h, c, x, dx, s):
    return x - np.clip(x - dx, *h.bounds)


@rule("NonNegative", nothing)
def non_negative(h, c, x, dx, s):
    return np.where(x - dx < 0, x, dx)


@rule("Grams", nothing)
def grams(h, c, x, dx, s):
    return sign(c.g) * np.abs(dx)


@rule("CautiousDecay", nothing, lambda_=5e-4)
def cautious_decay(h, c, x, dx, s):
    return np.where((dx * x.conj()).real >= 0, dx + h.lambda_ * x, dx)


@rule("Ema", lambda h, x: {"a": x.copy()}, rho=0.999)
def ema(h, c, x, dx, s):
    s["a"] = h.rho * s["a"] + (1 - h.rho) * (x - dx)
    return dx


@rule("Lookahead", lambda h, x: {"a": x.copy()}, n=5, weight=0.5)
def lookahead(h, c, x, dx, s):
    c.steps = getattr(c, "steps", 0) + 1
    if c.steps < h.n:
        return dx
    c.steps = 0
    s["a"] = s["a"] + h.weight * (x - dx - s["a"])
    return x - s["a"]


@rule("ScheduleFree", lambda h, x: {"z": x.copy()}, rho=0.9, warmup=0.0, power=0.0)
def schedule_free(h, c, x, dx, s):
    """The authors' code, where x is y: y ← (1−c) y + c z + (ρ (1−c) − 1) dx;  z ← z − dx."""
    scale = min(c.t / h.warmup, 1) if h.warmup else 1
    weight = c.t**h.power * scale**2
    c.weights = getattr(c, "weights", 0.0) + weight
    ck = weight / c.weights
    dx, z = scale * dx, s["z"]
    s["z"] = z - dx
    return ck * (x - z) + (1 - h.rho * (1 - ck)) * dx


@rule("WeightDecay", nothing, lambda_=5e-4)
def weight_decay(h, c, x, dx, s):
    return dx + h.lambda_ * x


@rule("SignDecay", nothing, lambda_=1e-3)
def sign_decay(h, c, x, dx, s):
    return dx + h.lambda_ * sign(x)


@rule("ClipGrad", nothing, delta=10.0)
def clip_grad(h, c, x, dx, s):
    if np.iscomplexobj(dx):
        return np.clip(dx.real, -h.delta, h.delta) + 1j * np.clip(dx.imag, -h.delta, h.delta)
    return np.clip(dx, -h.delta, h.delta)


def norm(arrays: list[Array], p: float) -> float:
    """The p-norm of all elements together, 0 for none; scaled by the dominant element so that no power overflows."""
    sizes = np.concatenate([np.abs(a).ravel() for a in arrays] or [np.zeros(0)])
    if sizes.size == 0 or np.isnan(sizes).any():
        return float(sizes.sum())
    dominant = float(sizes.max() if p > 0 else sizes.min())
    if np.isinf(p) or dominant == 0 or np.isinf(dominant):
        return dominant
    return float(dominant * np.sum((sizes / dominant) ** p) ** (1 / p))


def clip(h: SimpleNamespace, dx: Array, size: float) -> Array:
    if not np.isfinite(size) and h.throw:
        raise FloatingPointError("non-finite norm")
    return dx if size <= h.omega else dx * (h.omega / size)


@rule("ClipNorm", nothing, omega=10.0, p=2.0, throw=True, scope="leaf")
def clip_norm(h, c, x, dx, s):
    return clip(h, dx, norm([each for _, each, _ in c.together], h.p))


def mean_square(arrays: list[Array]) -> float:
    size = sum(a.size for a in arrays)
    return sum(float(abs2(a).sum()) for a in arrays) / size if size else 0.0


@rule("ClipRMS", nothing, omega=1.0, scope="leaf")
def clip_rms(h, c, x, dx, s):
    return dx / max(1.0, np.sqrt(mean_square([each for _, each, _ in c.together])) / h.omega)


@rule("TrustRatio", nothing, coefficient=1.0, lambda_=0.0, epsilon=0.0, largest=0.0)
def trust_ratio(h, c, x, dx, s):
    sizes = norm([x], 2), norm([dx], 2)
    ratio = h.coefficient * sizes[0] / (sizes[1] + h.lambda_ * sizes[0] + h.epsilon) if all(sizes) else 1.0
    return (min(ratio, h.largest) if h.largest else ratio) * (dx + h.lambda_ * x)


@rule("Cautious", nothing, least=1e-3)
def cautious(h, c, x, dx, s):
    agrees = (c.g.conj() * dx).real > 0
    return dx * agrees / max(agrees.mean() if agrees.size else 1.0, h.least)


@rule("AccumGrad", zeros("a"), n=REQUIRED)
def accum_grad(h, c, x, dx, s):
    """Mean of n calls; dx None is a missing gradient, which counts as zero unless all n are missing."""
    c.calls = getattr(c, "calls", 0) + 1
    if dx is not None:
        s["a"] = s["a"] + dx / h.n if getattr(c, "seen", False) else dx / h.n
        c.seen = True
    if c.calls < h.n:
        return None
    fired, c.calls, c.seen = getattr(c, "seen", False), 0, False
    return s["a"] if fired else None


# --------------------------------------------------------------------------------- chains and leaves


@dataclass
class Stage:
    """One rule of a leaf's chain with its hyperparameters (change h to adjust), slots and clock."""

    rule: Reference
    h: SimpleNamespace
    s: Slots
    c: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(t=0, beta1_t=1.0, beta2_t=1.0))

    @property
    def is_global(self) -> bool:
        return self.rule.name == "Prodigy" or getattr(self.h, "scope", "leaf") == "global"

    @property
    def kind(self) -> tuple[str, Any]:
        """What of others is measured together with it."""
        return self.rule.name, getattr(self.h, "p", None)

    def apply(self, x: Array, dx: Array | None, g: Array | None, together: list | None = None) -> Array | None:
        self.c.t, self.c.g = self.c.t + 1, g
        self.c.together = [(x, dx, self.s)] if together is None else together
        if hasattr(self.h, "beta"):  # running products: beta may be adjusted on the way
            self.c.beta1_t *= self.h.beta[0]
            self.c.beta2_t *= self.h.beta[1]
        return self.rule.apply(self.h, self.c, x, dx, self.s)


def flatten(spec: Any) -> list[tuple[str, dict[str, Any]]]:
    """A chain's stages in order, nested chains opened."""
    return [stage for part in spec for stage in flatten(part)] if isinstance(spec, list) else [spec]


def rounded(x: Array, dtype: Any) -> Array:
    """x as an array of this dtype would hold it, again in double precision."""
    return x if dtype is None else x.astype(dtype).astype(x.dtype)


class Leaf:
    """One parameter x with the stages of its chain; `dtype` rounds x after every step as storage would."""

    def __init__(self, spec: Any, x: Array, dtype: Any = None) -> None:
        wide = np.complex128 if np.iscomplexobj(x) else np.float64
        self.x = np.asarray(x).astype(wide)
        self.dtype, self.master_dtype, self.master = dtype, None, None
        self.dx = np.zeros_like(self.x)  # what the last update subtracted
        if isinstance(spec, tuple) and spec[0] == "MixedPrecision":
            self.master_dtype = spec[1].get("dtype", "float32")
            if np.iscomplexobj(x):
                self.master_dtype = {"float32": "complex64", "float64": "complex128"}[self.master_dtype]
            spec, self.master = spec[1]["rule"], self.x
        self.stages = []
        for name, given in flatten(spec):
            h = SimpleNamespace(**(REFERENCE[name].defaults | given))
            self.stages.append(Stage(REFERENCE[name], h, REFERENCE[name].init(h, self.x)))

    def begin(self) -> Array:
        """The value the rules see: x, or the master copy unless x was edited since."""
        if self.master is None:
            return self.x
        if not np.array_equal(rounded(self.master, self.dtype), self.x, equal_nan=True):
            self.master = self.x
        return self.master

    def commit(self, dx: Array) -> None:
        self.dx = dx
        if self.master is None:
            self.x = rounded(self.x - dx, self.dtype)
        else:
            self.master = rounded(self.master - dx, self.master_dtype)
            self.x = rounded(self.master, self.dtype)

    def first_stage(self, grad: Array | None) -> int:
        """0; without a gradient the first AccumGrad, which alone takes notice of that, or the end."""
        if grad is not None:
            return 0
        at = [i for i, stage in enumerate(self.stages) if stage.rule.name == "AccumGrad"]
        return at[0] if at else len(self.stages)


def update(leaves: list[Leaf], grads: list[Array | None]) -> None:
    """One update of several leaves, which meet only in their global stages: the k-th of each that is of one kind."""
    dxs = [None if g is None else np.asarray(g).astype(leaf.x.dtype) for leaf, g in zip(leaves, grads, strict=True)]
    at = [leaf.first_stage(g) for leaf, g in zip(leaves, grads, strict=True)]
    seen = list(dxs)
    for leaf in leaves:
        leaf.dx = np.zeros_like(leaf.x)
    waiting = True
    while waiting:
        waiting = {}  # leaf at a global stage -> which of its chain's that is, and its kind
        for i, leaf in enumerate(leaves):
            value = leaf.begin()
            while at[i] < len(leaf.stages) and not leaf.stages[at[i]].is_global:
                dxs[i] = leaf.stages[at[i]].apply(value, dxs[i], seen[i])
                seen[i] = dxs[i] if leaf.stages[at[i]].rule.name == "AccumGrad" else seen[i]
                at[i] = len(leaf.stages) if dxs[i] is None else at[i] + 1
            if at[i] < len(leaf.stages):
                waiting[i] = sum(stage.is_global for stage in leaf.stages[: at[i]]), leaf.stages[at[i]].kind
        first = min((k for k, _ in waiting.values()), default=0)  # the others wait for who is still before theirs
        for kind in {kind for k, kind in waiting.values() if k == first}:
            group = [i for i in waiting if waiting[i] == (first, kind)]
            together = [(leaves[i].begin(), dxs[i], dict(leaves[i].stages[at[i]].s)) for i in group]
            for i in group:
                dxs[i] = leaves[i].stages[at[i]].apply(leaves[i].begin(), dxs[i], seen[i], together)
                at[i] += 1
    for leaf, dx in zip(leaves, dxs, strict=True):
        if dx is not None:
            leaf.commit(dx)


def run(spec: Any, x0: Array, grads: list[Array | None], dtype: Any = None) -> list[Array]:
    """The trajectory of one leaf: x after every update."""
    leaf = Leaf(spec, x0, dtype)
    trajectory = []
    for g in grads:
        update([leaf], [g])
        trajectory.append(leaf.x)
    return trajectory
