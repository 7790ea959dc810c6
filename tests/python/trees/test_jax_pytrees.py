"""Classes that JAX's registry has are containers by its functions; what is static there is not trained."""

from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from containers import Node, State, ones

import optimisers as opt


def test_what_is_static_in_jax_is_not_trained():
    @jax.tree_util.register_pytree_node_class
    @dataclass
    class Scaled:
        w: Any
        scale: Any

        def tree_flatten(self) -> Any:
            return (self.w,), self.scale

        @classmethod
        def tree_unflatten(cls, scale: Any, children: Any) -> "Scaled":
            return cls(*children, scale)

    @dataclass
    class Data:
        w: Any
        scale: Any
        mask: Any = field(default=None, metadata={"trainable": False})

    jax.tree_util.register_dataclass(Data, data_fields=["w", "mask"], meta_fields=["scale"])
    for cls, path in ((Scaled, (0,)), (Data, ("w",))):
        model = [cls(ones(2), ones(3))]
        state = opt.setup(opt.Descent(1.0), model)
        assert [p for p, _ in opt.trainables(model, path=True)] == [(0, *path)]
        opt.update_(state, model, [cls(ones(2), model[0].scale)])  # as jax.grad returns it
        assert model[0].w.sum() == 0 and model[0].scale.sum() == 3
        _, new = opt.update(state, model, [cls(ones(2), None)])
        assert new[0].w.sum() == -2 and new[0].scale is model[0].scale
    assert opt.trainables(Data(ones(1), ones(1), ones(1)))[0].shape == (1,)


def test_equinox_is_trained_as_jax_sees_it():
    mlp = eqx.nn.MLP(2, 1, 3, 2, key=jax.random.key(0))
    state = opt.setup(opt.Descent(0.1), mlp)
    assert [str(path) for path, _ in opt.trainables(mlp, path=True)] == [
        f"layers.{i}.{name}" for i in range(3) for name in ("weight", "bias")
    ]
    grads = eqx.filter_grad(lambda m, x: jnp.sum(m(x)))(mlp, jnp.ones(2))
    _, new = opt.update(state, mlp, grads)
    assert type(new) is type(mlp) and new.activation is mlp.activation and new.layers[0].in_features == 2
    expected = mlp.layers[2].weight - np.float32(0.1) * grads.layers[2].weight
    assert jnp.array_equal(new.layers[2].weight, expected) and state.layers[2].weight.shape == (1, 3)


def test_grad_of_jax_matches_for_registered_classes():
    model = {"node": Node(jnp.ones(2), jnp.zeros(1), "n"), "state": State({"a": {"w": jnp.ones(3)}})}

    def loss(m: Any) -> Any:
        return 2 * m["node"].w.sum() + m["node"].b.sum() + 3 * m["state"]["a"]["w"].sum()

    _, new = opt.update(opt.setup(opt.Descent(1.0), model), model, jax.grad(loss)(model))
    assert new["node"].w.tolist() == [-1, -1] and new["node"].b.tolist() == [-1] and new["node"].note == "n"
    assert isinstance(new["state"], State) and new["state"]["a"]["w"].tolist() == [-2] * 3


def test_a_class_may_be_registered_with_jax_after_it_was_refused():
    class Late:
        def __init__(self, w: Any) -> None:
            self.w = w

    model = [Late(ones(2))]
    with pytest.raises(TypeError, match=r"Late.*register_container"):
        opt.setup(opt.Adam(), model)
    jax.tree_util.register_pytree_node(Late, lambda x: ((x.w,), None), lambda _, children: Late(*children))
    assert opt.setup(opt.Adam(), model)[0][0].shape == (2,)


def test_a_dataclass_may_be_registered_with_jax_after_it_was_used():
    @dataclass
    class Late:
        w: Any
        scale: Any

    model = Late(ones(2), ones(3))
    assert len(opt.trainables(model)) == 2
    jax.tree_util.register_dataclass(Late, data_fields=["w"], meta_fields=["scale"])
    assert [x.shape for x in opt.trainables(model)] == [(2,)]


def test_registered_here_comes_before_registered_with_jax():
    class Both(Node):
        pass

    jax.tree_util.register_pytree_node(Both, Node.tree_flatten, Both.tree_unflatten)
    opt.register_container(Both, lambda x: {"w": x.w}, lambda x, c: Both(c["w"], x.b))
    assert [p for p, _ in opt.trainables(Both(ones(1), ones(2)), path=True)] == [("w",)]
