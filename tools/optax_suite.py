"""optax's own tests on our transformations: the configuration that `foreign_suites.py --optax` puts beside them."""

TESTS = ("_src/alias_test.py", "contrib/_common_test.py", "_src/sharding_test.py")

# Its tests look optimisers up by name, where ours now stand, behind arguments of optax's names; what it has no rule of
# ours for is skipped.
CONFIGURATION = """
import os, re
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
import dataclasses
import jax, numpy, optax, pytest
import optimisers as opt
import optimisers.jax
from optax import contrib
from optax._src import alias, test_utils

ours = optimisers.jax.optax
chain = opt.OptimiserChain


def adam_like(rule, eps):
    def factory(learning_rate, b1=0.9, b2=0.999, eps=eps, eps_root=0.0, weight_decay=None):
        tx = ours(rule, eta=learning_rate, beta=(b1, b2), epsilon=eps)
        if weight_decay is None:
            return tx
        return ours(chain(rule, opt.WeightDecay()), eta=learning_rate, beta=(b1, b2), epsilon=eps,
                    lambda_=learning_rate * weight_decay)
    return factory


def adamw(learning_rate, b1=0.9, b2=0.999, eps=1e-8, weight_decay=1e-4):
    return ours(opt.AdamW(), eta=learning_rate, beta=(b1, b2), epsilon=eps, lambda_=weight_decay)


def nadamw(learning_rate, b1=0.9, b2=0.999, eps=1e-8, weight_decay=1e-4):
    return ours(chain(opt.NAdam(), opt.WeightDecay()), eta=learning_rate, beta=(b1, b2), epsilon=eps,
                lambda_=learning_rate * weight_decay)


def adadelta(learning_rate=None, rho=0.9, eps=1e-6):
    rule = opt.AdaDelta() if learning_rate is None else chain(opt.AdaDelta(), opt.Descent())
    return ours(rule, rho=rho, epsilon=eps, **({} if learning_rate is None else {"eta": learning_rate}))


def adagrad(learning_rate, eps=1e-7):
    return ours(opt.AdaGrad(), eta=learning_rate, epsilon=eps)


def lion(learning_rate, b1=0.9, b2=0.99, weight_decay=1e-3):
    return ours(chain(opt.Lion(), opt.WeightDecay()), eta=learning_rate, beta=(b1, b2),
                lambda_=learning_rate * weight_decay)


def sgd(learning_rate, momentum=None):
    if momentum is None:
        return ours(opt.Descent(), eta=learning_rate)
    return ours(opt.Momentum(), eta=learning_rate, rho=momentum)


def rmsprop(learning_rate, decay=0.9, eps=1e-8, momentum=None):
    tx = ours(opt.RMSProp(), eta=learning_rate, rho=decay, epsilon=eps)
    return tx if momentum is None else optax.chain(tx, optax.trace(momentum))


def rprop(learning_rate, eta_minus=0.5, eta_plus=1.2, min_step_size=1e-6, max_step_size=50.0):
    return ours(opt.Rprop(), eta=learning_rate, ell=(eta_minus, eta_plus), gamma=(min_step_size, max_step_size))


def signum(learning_rate, beta=0.9):
    return ours(opt.Signum(), eta=learning_rate, rho=beta)


def sign_sgd(learning_rate):
    return ours(opt.Signum(rho=0), eta=learning_rate)


def schedule_free(rule):
    def factory(learning_rate, warmup_steps=1):
        return ours(chain(opt.ScheduleFree(warmup=float(warmup_steps)), rule), eta=learning_rate)
    return factory


def adopt(learning_rate):
    return ours(opt.ADOPT(), eta=learning_rate)


def ademamix(learning_rate):
    return ours(opt.AdEMAMix(), eta=learning_rate)


def adan(learning_rate):
    return ours(opt.Adan(), eta=learning_rate)


IN_ALIAS = {
    "adabelief": adam_like(opt.AdaBelief(), 1e-16), "adadelta": adadelta, "adagrad": adagrad,
    "adam": adam_like(opt.Adam(), 1e-8), "adamax": adam_like(opt.AdaMax(), 1e-8), "adamw": adamw, "adan": adan,
    "amsgrad": adam_like(opt.AMSGrad(), 1e-8), "lion": lion, "nadam": adam_like(opt.NAdam(), 1e-8), "nadamw": nadamw,
    "radam": adam_like(opt.RAdam(), 1e-8), "rmsprop": rmsprop, "rprop": rprop, "sgd": sgd, "sign_sgd": sign_sgd,
    "signum": signum, "yogi": adam_like(opt.Yogi(), 1e-3),
}
IN_CONTRIB = {"ademamix": ademamix, "adopt": adopt, "schedule_free_sgd": schedule_free(opt.Descent()),
              "schedule_free_adamw": schedule_free(opt.AdamW())}
for name, factory in IN_ALIAS.items():
    setattr(alias, name, factory), setattr(optax, name, factory)
for name, factory in IN_CONTRIB.items():
    setattr(contrib, name, factory)
compared = test_utils.assert_trees_all_close


def close(a, b, **options):  # with clocks as the doubles they are, and not as halves of their bits
    def read(state):
        is_ours = isinstance(state, optimisers.jax.TransformState)
        return dataclasses.replace(state, clock=numpy.array(state.clock_values())) if is_ours else state

    ours = lambda x: isinstance(x, optimisers.jax.TransformState)
    compared(jax.tree.map(read, a, is_leaf=ours), jax.tree.map(read, b, is_leaf=ours), **options)


test_utils.assert_trees_all_close = close
SKIPS = {
    "test_explicit_dtype": "slots have the type they are computed in",
    "test_microbatch": "is about no optimiser",
    r"test_optimizers\\d+ .*schedule_free_": "reads the averaged parameters out of optax's own state",
    "'schedule_free'": "reads the averaged parameters out of optax's own state",
}


def pytest_collection_modifyitems(items):
    for item in items:
        parameters = getattr(item.cls, "_test_params_reprs", {}).get(item.name, "")
        text = item.name + " " + parameters
        named = re.search(r"opt_name='(\\w+)'", parameters)
        name = named[1] if named else re.sub(r"^test_(init_with_abstract_input|state_sharding_type_"
                                             r"(init_match_update|preserved_with_jit))_", "", item.name)
        for pattern, why in SKIPS.items():
            if re.search(pattern, text):
                item.add_marker(pytest.mark.skip(reason=why))
        if "LBFGS" in item.nodeid:
            item.add_marker(pytest.mark.skip(reason="is about a rule that is not here: lbfgs"))
        elif name not in IN_ALIAS and name not in IN_CONTRIB:
            item.add_marker(pytest.mark.skip(reason="is about a rule that is not here: " + name.split("_with")[0]))
"""
