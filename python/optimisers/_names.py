"""What other libraries call things, and what they are called here: for messages only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_LEARNING_RATE = "the learning rate is called eta"
_DECAY = (
    "decay is a rule: OptimiserChain(WeightDecay(lambda_), Adam()) adds λx to the gradient, as torch's weight_decay "
    "of all but AdamW does, and AdamW(lambda_=...) is the decoupled one"
)
_GRADIENTS = "rules have no such switch"

# Arguments of optimisers in torch, optax, Keras and Flux.
ARGUMENTS = {
    "lr": _LEARNING_RATE,
    "learning_rate": _LEARNING_RATE,
    "step_size": _LEARNING_RATE,
    "lr_decay": "a learning rate that changes is a schedule: schedules.inverse",
    "init_lr": _LEARNING_RATE,
    "betas": "the pair is called beta",
    "b1": "the pair of both is called beta, beta=(b1, b2)",
    "b2": "the pair of both is called beta, beta=(b1, b2)",
    "beta1": "the pair of both is called beta, beta=(beta1, beta2)",
    "beta2": "the pair of both is called beta, beta=(beta1, beta2)",
    "beta_1": "the pair of both is called beta, beta=(beta_1, beta_2)",
    "beta_2": "the pair of both is called beta, beta=(beta_1, beta_2)",
    "eps": "it is called epsilon",
    "eps_root": "there is only epsilon, added outside the root",
    "weight_decay": _DECAY,
    "decoupled_weight_decay": "AdamW is Adam with decoupled decay",
    "wd": _DECAY,
    "l2": _DECAY,
    "momentum": "it is called rho, and is a rule of its own: Momentum(eta, rho), also as the last one of a chain",
    "mu": "it is called rho, of Momentum(eta, rho)",
    "dampening": "Momentum(eta, rho) has none",
    "alpha": "the decay of a moving average is called rho",
    "decay": "the decay of a moving average is called rho; of weights it is a rule, WeightDecay(lambda_)",
    "decay_rate": "the decay of a moving average is called rho",
    "initial_accumulator_value": "AdaGrad starts at epsilon",
    "amsgrad": "it is a rule of its own, AMSGrad()",
    "nesterov": "it is a rule of its own, Nesterov(eta, rho)",
    "maximize": "what is left of the gradient is subtracted; negate the loss, or the gradients",
    "etas": "the factors are called ell",
    "step_sizes": "the bounds are called gamma",
    "max_norm": "it is called omega",
    "norm_type": "the order of the norm is called p",
    "error_if_nonfinite": "it is called throw",
    "clip_value": "it is called delta",
    "max_delta": "it is called delta",
    "every": "it is called n",
    "every_k_schedule": "it is called n",
    "every_k": "it is called n",
    "foreach": _GRADIENTS + ": all arrays are updated in one sweep",
    "fused": _GRADIENTS + ": a chain is one sweep over memory",
    "capturable": _GRADIENTS + ": updates on a device can be captured",
    "differentiable": _GRADIENTS,
    "params": "rules hold no parameters; write setup(rule, model)",
    "parameters": "rules hold no parameters; write setup(rule, model)",
    "model": "rules hold no parameters; write setup(rule, model)",
    "clipnorm": "clipping is a rule: OptimiserChain(ClipNorm(omega), rule)",
    "global_clipnorm": 'clipping is a rule: OptimiserChain(ClipNorm(omega, scope="global"), rule)',
    "clipvalue": "clipping is a rule: OptimiserChain(ClipGrad(delta), rule)",
    "lambda": "it is called lambda_, since lambda is a keyword of Python",
}

_SGD = "Descent(eta), or with momentum Momentum(eta, rho) or Nesterov(eta, rho)"
_BY_PART = "rules by part are given to setup: {'enc': rule, ...: other}"
_LOSS_SCALE = "scale the loss, and divide the gradients; update_(..., non_finite='skip') leaves out what overflowed"

# Names in torch, optax, Keras, Flux and Optimisers.jl that differ from ours by more than their spelling.
NAMES = {
    "sgd": _SGD,
    "gd": _SGD,
    "gradientdescent": _SGD,
    "asgd": "OptimiserChain(Descent(eta), Ema(rho))",
    "noisysgd": "a rule of one's own, class MyRule(opt.Rule)",
    "optimizer": "setup(rule, model), which returns the state",
    "optimiser": "setup(rule, model), which returns the state",
    "optimizerchain": "OptimiserChain",
    "chain": "OptimiserChain",
    "clipgradnorm": 'ClipNorm(omega, scope="global"), a rule in front of others in OptimiserChain',
    "clipbyglobalnorm": 'ClipNorm(omega, scope="global"), a rule in front of others in OptimiserChain',
    "clipbynorm": "ClipNorm(omega), a rule in front of others in OptimiserChain",
    "clipbyblockrms": "ClipNorm(omega), a rule in front of others in OptimiserChain",
    "clipgradvalue": "ClipGrad(delta), a rule in front of others in OptimiserChain",
    "clip": "ClipGrad(delta), or ClipNorm(omega)",
    "clipvalue": "ClipGrad(delta)",
    "adddecayedweights": "WeightDecay(lambda_)",
    "applyupdates": "update_, which subtracts what the rule made of the gradient",
    "applygradients": "update_(state, model, grads)",
    "step": "update_(state, model, grads)",
    "zerograd": "update_(state, module, zero_grad=True)",
    "globalnorm": "norm",
    "multisteps": "AccumGrad(n), the first rule of a chain",
    "gradientaccumulation": "AccumGrad(n), the first rule of a chain",
    "masked": _BY_PART,
    "multitransform": _BY_PART,
    "partition": _BY_PART,
    "paramgroups": _BY_PART,
    "addparamgroup": "extend_(state, model, rule)",
    "injecthyperparams": "adjust_(state, ...), which changes hyperparameters at any time",
    "scheduler": "the functions in optimisers.schedules",
    "lrscheduler": "the functions in optimisers.schedules",
    "polyaksgd": "a rule of one's own, class MyRule(opt.Rule)",
    "incrementalupdate": "lerp_(target, source, w)",
    "swautils": "lerp_(target, source, w)",
    "treemap": "map_trainables",
    "fmap": "map_trainables",
    "treeleaves": "trainables",
    "parameters": "trainables",
    "params": "trainables",
    "raveltree": "destructure",
    "ravelpytree": "destructure",
    "parameterstovector": "destructure",
    "gradscaler": _LOSS_SCALE,
    "loadstatedict": "load; states also pickle and copy",
    "statedict": "save; states also pickle and copy",
    "lbfgs": "scipy.optimize.minimize on the vector that destructure returns (examples/flat_lbfgs.py)",
    "sparseadam": "Adam; gradients are dense",
    "adamweightdecay": "AdamW",
    "schedulefreesgd": "OptimiserChain(Descent(eta), ScheduleFree(rho))",
    "sgdschedulefree": "OptimiserChain(Descent(eta), ScheduleFree(rho))",
    "adamwschedulefree": "OptimiserChain(Adam(eta, (0, 0.999)), ScheduleFree(rho))",
    "averagedmodel": "Ema(rho), the last rule of a chain, or lerp_(target, source, w)",
    "signsgd": "Signum(eta, rho=0)",
    "zeronans": "ZeroNonFinite()",
    "projectionbox": "Box(bounds), the last rule of a chain",
    "projectionnonnegative": "NonNegative(), the last rule of a chain",
    "keepparamsnonnegative": "NonNegative(), the last rule of a chain",
    "l1": "SignDecay(lambda_)",
    "l2": "WeightDecay(lambda_)",
    "l2regularization": "WeightDecay(lambda_)",
    "optimistadam": "OAdam",
    "optimisticadam": "OAdam",
    "earlystopping": "EarlyStop",
}

# Of torch.optim.lr_scheduler and optax, for `schedules`.
SCHEDULES = {
    "steplr": "exponential(start, decay, every, staircase=True)",
    "multisteplr": "stepwise(start, values)",
    "constantlr": "stepwise(start, values)",
    "constantschedule": "constant(value)",
    "linearlr": "linear(start, end, steps)",
    "linearschedule": "linear(start, end, steps)",
    "exponentiallr": "exponential(start, decay)",
    "exponentialdecay": "exponential(start, decay, every)",
    "polynomiallr": "polynomial(start, end, steps, power)",
    "polynomialschedule": "polynomial(start, end, steps, power)",
    "cosineannealinglr": "cosine(start, end, steps)",
    "cosinedecayschedule": "cosine(start, end, steps)",
    "cosineannealingwarmrestarts": "restarts(cosine(start, end, steps), steps, factor)",
    "sgdrschedule": "restarts, or join",
    "onecyclelr": "one_cycle(peak, steps)",
    "cosineonecycleschedule": "one_cycle(peak, steps)",
    "cycliclr": "restarts(piecewise(points), steps)",
    "sequentiallr": "join(schedules, boundaries)",
    "joinschedules": "join(schedules, boundaries)",
    "warmupcosinedecayschedule": "warmup(cosine(peak, end, steps), warmup)",
    "piecewiseconstantschedule": "stepwise(start, values)",
    "piecewiseinterpolateschedule": "piecewise(points)",
    "reducelronplateau": "reduce_on_plateau(factor, patience)",
    "lambdalr": "any function of the number of steps",
    "chainedscheduler": "a function of the number of steps that multiplies two",
    "inversesqrt": "inverse(start, gamma, power=0.5)",
    "inversesquareroot": "inverse(start, gamma, power=0.5)",
    "rsqrt": "inverse(start, gamma, power=0.5)",
    "noam": "warmup(inverse(peak, 1/steps, power=0.5), steps)",
    "warmupstabledecay": "wsd",
}


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def argument_hint(name: str) -> str:
    """What an argument of other libraries is called here; empty if nothing is known."""
    return ARGUMENTS.get(name, ARGUMENTS.get(name.lower(), ""))


def attribute_message(module: str, name: str, table: dict[str, str], ours: Iterable[str]) -> str:
    """For an attribute a module does not have."""
    message = f"module {module!r} has no attribute {name!r}"
    if name.startswith("_"):
        return message
    ours = [*ours]
    if known := table.get(_plain(name)):
        return f"{message}; use {known}"
    plain = {_plain(own): own for own in ours}
    if same := plain.get(_plain(name)):
        return f"{message}; it is {same}"
    import difflib

    close = [plain[found] for found in difflib.get_close_matches(_plain(name), plain, n=3, cutoff=0.7)]
    return f"{message}; did you mean {' or '.join(close)}?" if close else message


_OF_STATES = {"step", "zerograd", "statedict", "loadstatedict", "paramgroups", "addparamgroup"}


def on_a_state(name: Any) -> str:
    """What a method that optimisers of torch have is here; empty for other names."""
    plain = _plain(name) if isinstance(name, str) else ""
    return f"; {name}: use {NAMES[plain]}" if plain in _OF_STATES else ""


def foreign_rule(rule: Any) -> str:
    """Why something of another library, or a list of rules, is no rule; empty if nothing is known."""
    cls = rule if isinstance(rule, type) else type(rule)
    if any(base.__module__.startswith("torch.optim") for base in cls.__mro__):
        what = "a class" if isinstance(rule, type) else "an optimizer"
        near = attribute_message("", cls.__name__, NAMES, _rule_names()).partition("; ")[2]
        return f"{what} of torch.optim; rules are values of this package, opt.Adam(eta=1e-3)" + (
            f"; for {cls.__name__}: {near}" if near else ""
        )
    if callable(getattr(rule, "init", None)) and callable(getattr(rule, "update", None)):
        return (
            "an optax transformation, which has its own state; rules are values of this package: opt.Adam(eta=1e-3), "
            "OptimiserChain for optax.chain"
        )
    if callable(getattr(rule, "apply_gradients", None)):
        return "an optimizer of another library; rules are values of this package, opt.Adam(eta=1e-3)"
    if isinstance(rule, str):
        near = attribute_message("", rule, NAMES, _rule_names()).partition("; ")[2]
        return f"the string {rule!r}; rules are values, opt.Adam(eta=1e-3)" + (f"; {near}" if near else "")
    return ""


def _rule_names() -> list[str]:
    from ._rules import RULES

    return [cls.__name__ for cls in RULES] + ["OptimiserChain", "MixedPrecision"]
