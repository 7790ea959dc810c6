"""The rule classes as Python values: signature, repr, equality, pickling, documentation, adjust."""

import copy
import doctest
import inspect
import pickle

import numpy as np
import pytest

import optimisers as opt

EVERY_RULE = pytest.mark.parametrize("cls", opt.RULES, ids=lambda cls: cls.__name__)


def made(cls, **values):
    """The rule with these values, and some value where one is required."""
    return cls(**({f.name: 2 for f in cls.fields if f.default is None} | values))


# ------------------------------------------------------------------------------------------------- values


@EVERY_RULE
def test_signature_has_the_fields_and_their_defaults(cls):
    parameters = list(inspect.signature(cls).parameters.values())
    own = [p for p in parameters if p.name != "centered"]
    assert [p.name for p in own] == [f.name for f in cls.fields]
    defaults = [None if p.default is p.empty else p.default for p in own]
    assert defaults == [f.default for f in cls.fields]
    assert all(p.kind is p.POSITIONAL_OR_KEYWORD for p in own)


@EVERY_RULE
def test_rule_prints_as_the_call_that_makes_it(cls):
    rule = made(cls)
    names = {"inf": float("inf"), **{c.__name__: c for c in opt.RULES}}
    assert eval(repr(rule), names) == rule
    assert repr(rule) == f"{cls.__name__}({', '.join(f'{f.name}={getattr(rule, f.name)!r}' for f in cls.fields)})"


def test_the_look_of_a_rule():
    assert repr(opt.Adam()) == "Adam(eta=0.001, beta=(0.9, 0.999), epsilon=1e-08)"
    chain = opt.OptimiserChain(opt.ClipGrad(1), opt.OptimiserChain(opt.Descent(0.5)))
    assert repr(chain) == "OptimiserChain(ClipGrad(delta=1.0), OptimiserChain(Descent(eta=0.5)))"
    assert repr(opt.MixedPrecision(opt.Descent())) == "MixedPrecision(Descent(eta=0.1), dtype='float32')"


@EVERY_RULE
def test_rules_compare_by_value_and_are_hashable(cls):
    assert made(cls) == made(cls) and hash(made(cls)) == hash(made(cls))
    assert made(cls) != opt.OptimiserChain(made(cls)) and made(cls) != 3
    number = next((f for f in cls.fields if f.kind == "double"), None)
    if number is not None:
        assert made(cls, **{number.name: 0.25}) != made(cls)
    assert len({made(cls), made(cls), opt.OptimiserChain(made(cls))}) == 2


@EVERY_RULE
@pytest.mark.parametrize("wrap", [lambda r: r, opt.OptimiserChain, lambda r: opt.MixedPrecision(r, "float64")])
def test_rules_can_be_copied_and_pickled(cls, wrap):
    rule = wrap(made(cls))
    for twin in (pickle.loads(pickle.dumps(rule)), copy.copy(rule), copy.deepcopy(rule)):
        assert twin == rule and type(twin) is type(rule)


@EVERY_RULE
def test_rules_are_immutable(cls):
    rule = made(cls)
    for name in (*[f.name for f in cls.fields][:1], "something"):
        with pytest.raises(AttributeError, match="immutable"):
            setattr(rule, name, 0.5)
    with pytest.raises(AttributeError):
        delattr(rule, cls.fields[0].name if cls.fields else "something")


@EVERY_RULE
def test_values_are_plain_python_ones(cls):
    kinds = {"double": float, "pair": tuple, "int": int, "bool": bool, "word": str}
    for f in cls.fields:
        assert type(getattr(made(cls), f.name)) is kinds[f.kind]


def test_numbers_of_other_kinds_are_accepted():
    rule = opt.AdamW(np.float32(0.5), [0, np.float64(0.5)], 1, np.array(0.25), np.True_)
    assert rule == opt.AdamW(0.5, (0.0, 0.5), 1.0, 0.25, True)
    assert opt.AccumGrad(np.int64(3)).n == 3 and opt.AccumGrad(3.0) == opt.AccumGrad(n=3)


def test_british_and_american_spelling():
    assert opt.RMSProp(centered=True) == opt.RMSProp(centred=True)
    assert opt.RMSProp(centred=True, centered=False) == opt.RMSProp()


@EVERY_RULE
def test_class_describes_itself(cls):
    assert cls.__module__ == "optimisers" and getattr(opt, cls.__name__) is cls
    assert cls.summary.endswith(".") and cls.update and cls.notes and cls.reference
    assert all(f.doc and isinstance(f.structural, bool) for f in cls.fields)
    assert issubclass(cls, opt.Rule)


def test_the_registry_is_what_the_package_exports():
    assert len({cls.__name__ for cls in opt.RULES}) == len(opt.RULES) == 44
    assert set(opt.__all__) >= {cls.__name__ for cls in opt.RULES}
    assert all(hasattr(opt, name) for name in opt.__all__)


# --------------------------------------------------------------------------------------------- combinations


def test_chains_are_sequences_of_rules():
    chain = opt.OptimiserChain(opt.ClipGrad(), opt.Adam())
    assert chain[0] == opt.ClipGrad() and len(chain) == 2 and list(chain) == list(chain.rules)
    assert opt.OptimiserChain() != chain and hash(chain) == hash(opt.OptimiserChain(*chain))


@pytest.mark.parametrize("wrong", [opt.Adam, 0.1, None, "Adam"])
def test_only_rules_go_into_chains(wrong):
    for make in (opt.OptimiserChain, opt.MixedPrecision):
        with pytest.raises(TypeError, match="expected a rule"):
            make(wrong)


@pytest.mark.parametrize("dtype", ["float64", np.float64, np.dtype("float64"), "torch.float64"])
def test_mixed_precision_takes_dtypes_in_several_forms(dtype):
    assert opt.MixedPrecision(opt.Adam(), dtype).dtype == "float64"


# --------------------------------------------------------------------------------------------------- adjust


def test_adjusting_a_rule_returns_another():
    rule = opt.OptimiserChain(opt.ClipNorm(), opt.OptimiserChain(opt.Adam(), opt.AdamW()))
    new = opt.adjust(rule, 0.5, omega=2, lambda_=0.25)
    want = opt.OptimiserChain(opt.ClipNorm(2), opt.OptimiserChain(opt.Adam(0.5), opt.AdamW(0.5, lambda_=0.25)))
    assert new == want and rule[0] == opt.ClipNorm()
    assert opt.adjust(opt.MixedPrecision(opt.Adam(), "float64"), 0.5) == opt.MixedPrecision(opt.Adam(0.5), "float64")
    assert opt.adjust(opt.AdamW(), **{"lambda": 0.5}) == opt.AdamW(lambda_=0.5)


def test_adjusting_a_rule_refuses_unknown_names_and_bad_values():
    with pytest.raises(ValueError, match=r'"betta".*beta, epsilon, eta'):
        opt.adjust(opt.Adam(), betta=0.5)
    with pytest.raises(ValueError, match="centred"):
        opt.adjust(opt.RMSProp(), centered=True)
    with pytest.raises(ValueError, match=r"Adam.*eta"):
        opt.adjust(opt.Adam(), -1)
    for nothing in (lambda: opt.adjust(opt.Adam()), lambda: opt.adjust(opt.Adam(), 0.5, eta=0.5)):
        with pytest.raises(TypeError, match="eta"):
            nothing()
    with pytest.raises(TypeError, match="immutable"):
        opt.adjust_(opt.Adam(), 0.5)


# ------------------------------------------------------------------------------------- one-array functions


def test_apply_follows_the_rule_it_is_given():
    x = np.ones(2)
    state = opt.init(opt.Momentum(1.0, 0.5), x)
    state, dx = opt.apply_(opt.Momentum(1.0, 0.5), state, x, np.ones(2))
    same, dx = opt.apply_(opt.Momentum(2.0, 0.5), state, x, np.ones(2))
    assert dx.tolist() == [2.5, 2.5] and same is state and (x == 1).all()
    assert state.rule == opt.Momentum(2.0, 0.5)


def test_apply_with_a_chain_whose_stages_changed_apart():
    x, chain = np.ones(2), opt.OptimiserChain(opt.Momentum(1.0, 0.5), opt.Momentum(1.0, 0.5))
    state, _ = opt.apply_(chain, opt.init(chain, x), x, np.ones(2))
    other = opt.OptimiserChain(opt.Momentum(1.0, 0.5), opt.Momentum(3.0, 0.5))
    same, dx = opt.apply_(other, state, x, np.ones(2))
    assert dx.tolist() == [5.0, 5.0] and state.rule == other and same is state


def test_apply_refuses_what_does_not_belong_together():
    x = np.ones(2)
    state = opt.init(opt.Adam(), x)
    with pytest.raises(ValueError, match="Momentum"):
        opt.apply_(opt.Momentum(), state, x, x)
    with pytest.raises(ValueError, match="shape"):
        opt.apply_(opt.Adam(), state, x, np.ones(3))
    with pytest.raises(TypeError, match="init"):
        opt.init(opt.Adam(), {"w": x})
    with pytest.raises(ValueError, match="one array"):
        opt.apply_(opt.Adam(), opt.setup(opt.Adam(), {"w": x}), x, x)


def test_apply_gives_none_while_accumulating_and_reads_read_only_arrays():
    x = np.ones(2)
    x.setflags(write=False)
    rule = opt.OptimiserChain(opt.AccumGrad(2), opt.Descent(1.0))
    state, dx = opt.apply_(rule, opt.init(rule, x), x, np.ones(2))
    assert dx is None
    state, dx = opt.apply_(rule, state, x, 3 * np.ones(2))
    assert dx.tolist() == [2.0, 2.0]


# ---------------------------------------------------------------------------------------------- documentation


@EVERY_RULE
def test_docstring_says_everything(cls):
    text = inspect.getdoc(cls)
    parts = ("Args:", "State:", "Raises:", "Notes:", "Reference:", "Example:")
    assert all(part in text for part in parts) and text.startswith(cls.summary)
    for f in cls.fields:
        assert f"{f.name}: {f.doc}" in text and ("required" if f.default is None else repr(f.default)) in text


def documented():
    public = [getattr(opt, name) for name in opt.__all__ if not name.startswith("_")]
    public += [getattr(opt.schedules, name) for name in opt.schedules.__all__]
    return [x for x in public if callable(x)]


@pytest.mark.parametrize("thing", documented(), ids=lambda x: x.__name__)
def test_examples_in_docstrings_run(thing):
    assert thing.__doc__
    examples = doctest.DocTestFinder(recurse=False).find(thing, thing.__name__, module=False, globs={})
    for example in examples:
        runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
        runner.run(example, out=lambda s: pytest.fail(s))
