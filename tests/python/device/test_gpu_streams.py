"""Streams, lifetimes and CUDA graphs on a real GPU: no call waits, and what is enqueued runs in order."""

import threading

import pytest
import torch
from gpu_support import busy, cpu, cuda, needs_gpu, same_bits
from support import layers, mapped, sized
from support import to_torch as tensor

import optimisers as opt

pytestmark = needs_gpu
RULE = opt.OptimiserChain(opt.ClipNorm(0.5, scope="global"), opt.Adam(0.1))


def model_of(seed=0):
    return mapped(tensor, layers(4, seed=seed))


def reference(steps, rule=RULE, between=lambda step, state: None):
    """The model on the host after steps with gradients of seeds 100, 101, ..."""
    model = model_of()
    state = opt.setup(rule, model)
    for step in range(steps):
        between(step, state)
        opt.update_(state, model, model_of(100 + step))
    return model, state


def test_update_does_not_wait_and_runs_in_order():
    model = cuda(model_of())
    gradients = [cuda(model_of(100 + step)) for step in range(3)]
    state = opt.setup(RULE, model)
    opt.update_(state, model, gradients[0])
    opt.wait(state)
    late = mapped(torch.zeros_like, gradients[1])
    done = torch.cuda.Event()
    busy()
    mapped_copy(late, gradients[1])  # behind what keeps the stream busy
    opt.update_(state, model, late)
    opt.adjust_(state, beta=(0.9, 0.999))
    opt.update_(state, model, gradients[2])
    done.record()
    assert not done.query()
    assert same_bits(model, reference(3)[0])


def mapped_copy(to, of):
    for a, b in zip(to["layers"], of["layers"], strict=True):
        for key in a:
            a[key].copy_(b[key])


def test_work_goes_to_torchs_current_stream():
    model, g = cuda(model_of()), cuda(model_of(100))
    state = opt.setup(RULE, model)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    before = cpu(model)
    with torch.cuda.stream(side):
        busy()
        opt.update_(state, model, g)
        assert not side.query()
    assert same_bits(model, before)  # torch's default stream has not waited for the other
    side.synchronize()
    assert same_bits(model, reference(1)[0])


@pytest.mark.parametrize("as_given", [lambda s: s, lambda s: s.cuda_stream], ids=["object", "handle"])
def test_work_goes_to_the_stream_given(as_given):
    model, g = cuda(model_of()), cuda(model_of(100))
    state = opt.setup(RULE, model)
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    busy()  # on the current stream, which the update does not wait for
    opt.update_(state, model, g, stream=as_given(side))
    side.synchronize()
    assert not torch.cuda.current_stream().query()
    with torch.cuda.stream(side):
        assert same_bits(model, reference(1)[0])


def test_changing_streams_keeps_the_order_of_the_steps():
    model = cuda(model_of())
    gradients = [cuda(model_of(100 + step)) for step in range(8)]
    state = opt.setup(RULE, model)
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in range(3)]
    for step, g in enumerate(gradients):
        with torch.cuda.stream(streams[step % 3]):
            busy(5)
            opt.update_(state, model, g)
    torch.cuda.synchronize()
    assert same_bits(model, reference(8)[0])


def test_gradients_may_be_freed_while_the_step_is_under_way():
    n = 1 << 20
    x = torch.zeros(n, device="cuda")
    state = opt.setup(opt.Descent(1.0), x)
    side = torch.cuda.Stream()
    torch.cuda.synchronize()
    for _ in range(10):
        g = torch.ones(n, device="cuda")
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            busy(20)
        opt.update_(state, x, g, stream=side)
        del g
        torch.full((n,), 7.0, device="cuda")  # would land where the gradient was
    torch.cuda.synchronize()
    assert (x == -10).all()


def test_a_late_norm_is_told_without_waiting():
    x = torch.ones(1000, device="cuda")
    state = opt.setup(opt.OptimiserChain(opt.Momentum(), opt.ClipNorm(1.0)), x)
    busy()
    opt.update_(state, x, torch.full((1000,), torch.inf, device="cuda"))
    assert not torch.cuda.current_stream().query()
    with pytest.raises(FloatingPointError, match="finite norm"):
        opt.wait(state)
    assert (x == 1).all() and not state.state[0].v.any()
    opt.update_(state, x, torch.ones(1000, device="cuda"))
    opt.wait(state)
    assert (x < 1).all()


def test_updates_take_no_memory():
    model, g = cuda(model_of()), cuda(model_of(100))
    state = opt.setup(RULE, model)
    opt.update_(state, model, g)
    opt.wait(state)
    free, _ = torch.cuda.mem_get_info()
    for _ in range(50):
        opt.update_(state, model, g)
    opt.wait(state)
    assert torch.cuda.mem_get_info()[0] == free


def test_threads_update_states_of_their_own_on_streams_of_their_own():
    results = {}

    def run(number):
        with torch.cuda.stream(torch.cuda.Stream()):
            model = cuda(model_of())
            state = opt.setup(RULE, model)
            for step in range(20):
                opt.update_(state, model, cuda(model_of(100 + step)))
            results[number] = cpu(model)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    want = reference(20)[0]
    assert len(results) == 4 and all(same_bits(model, want) for model in results.values())


# ------------------------------------------------------------------------------------------------ graphs


@pytest.mark.parametrize("rule", [RULE, opt.Adam(0.1), opt.OptimiserChain(opt.AccumGrad(2), opt.Lion(0.1))], ids=repr)
def test_a_captured_update_replays_with_adjusted_rules(rule):
    def between(step, state):
        if step == 4:
            opt.adjust_(state, 0.5)

    want, want_state = reference(7, rule, between)
    model, g = cuda(model_of()), cuda(model_of(100))
    state = opt.setup(rule, model)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # warm up, as torch asks for
        opt.update_(state, model, g)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        opt.update_(state, model, g)
    torch.cuda.synchronize()
    for step in range(1, 7):  # capturing runs nothing
        between(step, state)
        mapped_copy(g, cuda(model_of(100 + step)))
        graph.replay()
    torch.cuda.synchronize()
    assert same_bits(model, want)
    assert dict(state["layers"][0].bias.clock) == dict(want_state["layers"][0].bias.clock)


def test_a_graph_goes_on_after_eager_steps():
    model, g = cuda(model_of()), cuda(model_of(100))
    state = opt.setup(RULE, model)
    opt.update_(state, model, g)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        opt.update_(state, model, g)
    for step in (1, 2):
        opt.update_(state, model, cuda(model_of(100 + step)))
    mapped_copy(g, cuda(model_of(103)))
    graph.replay()
    opt.update_(state, model, cuda(model_of(104)))
    assert same_bits(model, reference(5)[0])


def test_a_graph_refuses_a_norm_that_is_not_finite():
    x, g = torch.ones(100, device="cuda"), torch.ones(100, device="cuda")
    state = opt.setup(opt.OptimiserChain(opt.ClipNorm(1.0), opt.Momentum()), x)
    opt.update_(state, x, g)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        opt.update_(state, x, g)
    before = cpu(x)
    g[50] = torch.nan
    graph.replay()
    with pytest.raises(FloatingPointError):
        opt.wait(state)
    assert same_bits(x, before)
    g.fill_(1.0)
    graph.replay()
    opt.wait(state)
    assert not same_bits(x, before)


def test_bare_arrays_stay_on_the_stream_of_their_last_step():
    class Bare:
        """A tensor that only the CUDA array interface shows."""

        def __init__(self, data):
            self.data = data

        __cuda_array_interface__ = property(lambda self: self.data.__cuda_array_interface__)

    x, g = tensor(sized((500,), "float32", 1)), tensor(sized((500,), "float32", 2))
    there, gradient = x.cuda(), g.cuda()
    state = opt.setup(opt.Adam(), Bare(there))
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    opt.update_(state, Bare(there), Bare(gradient), stream=side)
    opt.adjust_(state, 0.5)
    opt.update_(state, Bare(there), Bare(gradient), stream=side)
    m = torch.from_dlpack(state.state.m)
    torch.cuda.synchronize()
    host = opt.setup(opt.Adam(), x)
    opt.update_(host, x, g)
    opt.adjust_(host, 0.5)
    opt.update_(host, x, g)
    assert same_bits((x, host.state.m), (there, m))
