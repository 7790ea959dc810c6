"""CuPy and JAX on a real GPU."""

import copy
import pickle

import numpy as np
import pytest
import torch
from gpu_support import busy, needs_gpu
from support import bits, sized

import optimisers as opt

pytestmark = needs_gpu
RULE = opt.OptimiserChain(opt.ClipNorm(0.5), opt.AdamW(0.1, lambda_=0.1))
DTYPES = ("float16", "float32", "float64", "complex64", "complex128")


def steps(x, state, wrap, count=3):
    for step in range(count):
        opt.update_(state, x, wrap(sized(x.shape, str(x.dtype), 2 + step)))


def on_host(dtype, shape=(40, 7)):
    x = sized(shape, dtype, 1)
    state = opt.setup(RULE, x)
    steps(x, state, np.asarray)
    return x, state


class TestCuPy:
    @pytest.fixture(autouse=True)
    def cupy(self):
        self.cp = pytest.importorskip("cupy")

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_updates_give_the_bits_of_the_host(self, dtype):
        want, reference = on_host(dtype)
        x = self.cp.asarray(sized((40, 7), dtype, 1))
        state = opt.setup(RULE, x)
        steps(x, state, self.cp.asarray)
        assert bits(x.get()) == bits(want)
        assert isinstance(state.state[1].m, self.cp.ndarray)
        assert bits(state.state[1].m.get()) == bits(reference.state[1].m)

    def test_slots_are_the_memory_of_the_state(self):
        x = self.cp.ones(10, "float32")
        state = opt.setup(opt.Momentum(), x)
        state.state.v[...] = 3
        assert (state.state.v == 3).all()

    def test_views_are_updated_in_place(self):
        want = sized((40, 14), "float32", 1)
        base = self.cp.asarray(want)
        for x, wrap in ((want[:, ::2], np.asarray), (base[:, ::2], self.cp.asarray)):
            steps(x, opt.setup(RULE, x), wrap)
        assert bits(base.get()) == bits(want)

    def test_work_goes_to_the_current_stream(self):
        x = self.cp.zeros(1000, "float32")
        g = self.cp.ones(1000, "float32")
        state = opt.setup(opt.Descent(1.0), x)
        self.cp.cuda.Device().synchronize()
        stream = self.cp.cuda.Stream(non_blocking=True)
        with stream, torch.cuda.stream(torch.cuda.ExternalStream(stream.ptr)):
            busy()
            opt.update_(state, x, g)
            assert not stream.done
        stream.synchronize()
        assert (x == -1).all()
        opt.update_(state, x, g, stream=stream)
        stream.synchronize()
        assert (x == -2).all()

    def test_pure_forms_copies_and_moves(self):
        want, _ = on_host("float32")
        x = self.cp.asarray(sized((40, 7), "float32", 1))
        state = opt.setup(RULE, x)
        for step in range(3):
            old = x.copy()
            state, new = opt.update(state, x, self.cp.asarray(sized(x.shape, "float32", 2 + step)))
            assert bits(x.get()) == bits(old.get()) and isinstance(new, self.cp.ndarray)
            x = new
            state = pickle.loads(pickle.dumps(copy.deepcopy(state)))
            state = opt.to_device(opt.to_device(state, "cpu"), "cuda")
        assert bits(x.get()) == bits(want)

    def test_models_move_between_numpy_and_cupy(self):
        w = sized((3, 4), "float32", 1)
        model = {"w": w, "turned": w.T, "steps": np.arange(3), "name": "net"}
        there = opt.to_device(model, "cuda")
        assert isinstance(there["w"], self.cp.ndarray) and isinstance(there["steps"], self.cp.ndarray)
        assert there["turned"].data.ptr == there["w"].data.ptr and there["name"] == "net"
        back = opt.to_device(there, "cpu")
        assert bits(back["w"], back["turned"]) == bits(w, w.T) and np.shares_memory(back["w"], back["turned"])

    def test_vectors_walks_and_zeroing(self):
        here = {"a": sized((3, 4), "float32", 1), "b": sized((5,), "float64", 2)}
        there = opt.to_device(here, "cuda")
        (flat, re), (device_flat, device_re) = opt.destructure(here), opt.destructure(there)
        assert bits(device_flat.get()) == bits(flat)
        assert bits(*(a.get() for a in device_re(device_flat).values())) == bits(*re(flat).values())
        assert device_re(device_flat)["b"].base is not None
        assert bits(device_re.flatten(there).get()) == bits(re.flatten(here))
        assert opt.norm(there) == opt.norm(here)
        opt.lerp_(there, opt.to_device(here, "cuda"), 0.5)
        gradients = opt.to_device(here, "cuda")
        opt.update_(opt.setup(opt.Adam(), there), opt.Duplicated(there, gradients), zero_grad=True)
        assert not any(g.any() for g in gradients.values())

    def test_rules_written_in_python_compute_with_cupy(self):
        cp = self.cp

        class Halved(opt.Rule):
            def init(self, x):
                return cp.zeros_like(x)

            def apply(self, state, x, dx):
                return state + dx, dx / 2

        x = cp.zeros(4, "float32")
        state = opt.setup(opt.OptimiserChain(opt.Momentum(1.0), Halved(), opt.ClipGrad(0.2)), x)
        opt.update_(state, x, cp.full(4, 0.1, "float32"))
        assert cp.array_equal(x, cp.full(4, -0.05, "float32")) and isinstance(state.state[1], cp.ndarray)

    def test_torch_parameters_take_cupy_gradients(self):
        x = torch.zeros(100, device="cuda")
        opt.update_(opt.setup(opt.Descent(1.0), x), x, self.cp.ones(100, "float32"))
        assert (x == -1).all()


class TestJax:
    @pytest.fixture(autouse=True)
    def jax(self):
        self.jax = pytest.importorskip("jax")
        try:
            self.device = self.jax.devices("cuda")[0]
        except RuntimeError as error:
            pytest.skip(f"JAX has no CUDA device: {error}")

    def put(self, x):
        return self.jax.device_put(x, self.device)

    @pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
    def test_gradients_of_torch_parameters(self, dtype):
        here = sized((1000,), "float32", 1)
        there = torch.from_numpy(here.copy()).cuda()
        states = opt.setup(RULE, here), opt.setup(RULE, there)
        for step in range(5):
            g = sized((1000,), dtype, 2 + step)
            opt.update_(states[0], here, g)
            opt.update_(states[1], there, self.put(g) * 1)  # freed as soon as it can be
            self.put(np.full(1000, 9.0, "float32"))
        assert bits(there.cpu().numpy()) == bits(here)

    @pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
    def test_pure_updates_give_the_bits_of_the_host(self, dtype):
        want = {"w": sized((50, 3), dtype, 1), "b": sized((3,), dtype, 2)}
        model = {key: self.put(x) for key, x in want.items()}
        states = [opt.setup(RULE, want), opt.setup(RULE, model)]
        for step in range(4):
            g = {key: sized(x.shape, dtype, 10 * step + i) for i, (key, x) in enumerate(want.items())}
            opt.update_(states[0], want, g)
            old = model
            states[1], model = opt.update(states[1], model, {key: self.put(x) for key, x in g.items()})
            assert all(x.devices() == {self.device} for x in model.values())
            assert not any(np.array_equal(old[key], model[key]) for key in model)
        assert bits({key: np.asarray(x) for key, x in model.items()}) == bits(want)

    def test_what_writes_in_place_is_refused(self):
        x = self.put(sized((5,), "float32", 1))
        with pytest.raises(ValueError, match="a JAX array, which cannot be written; use update"):
            opt.update_(opt.setup(opt.Adam(), x), x, x)

    def test_models_move_to_the_host_and_back(self):
        model = {"w": self.put(sized((5,), "float32", 1))}
        here = opt.to_device(model, "cpu")
        there = opt.to_device(here, "cuda")
        assert {d.platform for d in here["w"].devices()} == {"cpu"} and there["w"].devices() == {self.device}
        assert bits(np.asarray(here["w"]), np.asarray(there["w"])) == bits(*[sized((5,), "float32", 1)] * 2)
