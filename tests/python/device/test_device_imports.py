"""How arrays of other libraries come in from (emulated) devices: protocols, streams, lifetimes, and what is refused."""

import gc
import sys
import threading
import weakref

import numpy as np
import pytest
import torch
from device_arrays import CudaArray, DLPackArray, host, managed_of, needs_emulation, tensor_of
from support import bits, sized

import optimisers as opt

pytestmark = needs_emulation

X = sized((5, 3), "float32", 1)
G = sized((5, 3), "float32", 2)


def stepped() -> np.ndarray:
    """What one step with the gradient G makes of X."""
    x = X.copy()
    opt.update_(opt.setup(opt.Adam(), x), x, G)
    return x


def test_both_protocols_are_read_without_a_copy():
    for x in (CudaArray(X.copy()), DLPackArray(X), DLPackArray(X, versioned=False), DLPackArray(X, kind=13)):
        for g in (CudaArray(G), DLPackArray(G), DLPackArray(G, versioned=False)):
            y = x.copy()
            opt.update_(opt.setup(opt.Adam(), y), y, g)
            assert bits(y.host) == bits(stepped())


def test_what_is_trained_and_writable_is_told_of_device_arrays():
    assert opt.isnumeric(CudaArray(X)) and opt.isnumeric(DLPackArray(X))
    assert not opt.isnumeric(CudaArray(np.arange(3))) and not opt.isnumeric(DLPackArray(np.arange(3)))
    assert opt.maywrite(CudaArray(X)) and not opt.maywrite(CudaArray(X, read_only=True))
    model = {"w": CudaArray(X), "steps": CudaArray(np.arange(3)), "w2": DLPackArray(G)}
    assert opt.trainables(model) == [model["w"], model["w2"]]


def test_read_only_arrays_are_refused_as_parameters_and_fine_as_gradients():
    x = CudaArray(X.copy(), read_only=True)
    state = opt.setup(opt.Adam(), x)
    with pytest.raises(ValueError, match='"the model" is read-only'):
        opt.update_(state, x, CudaArray(G))
    y = CudaArray(X.copy())
    opt.update_(opt.setup(opt.Adam(), y), y, CudaArray(G, read_only=True))
    assert bits(y.host) == bits(stepped())


def test_the_read_only_mark_of_dlpack_is_heeded():
    class Marked(DLPackArray):
        def __dlpack__(self, **keywords):
            capsule = super().__dlpack__(**keywords)
            managed_of(capsule).flags |= 1
            return capsule

    assert opt.maywrite(DLPackArray(X)) and not opt.maywrite(Marked(X))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (DLPackArray(X, kind=10), r'array at "w" is on an accelerator, expected the CPU or a CUDA device'),
        (DLPackArray(X, kind=8), r"expected the CPU or a CUDA device"),
        (CudaArray(X, mask=X), r'"w" is a CudaArray without memory of its own'),
        (CudaArray(X, typestr="<V4"), r'"w" has dtype float32, expected'),
        (CudaArray(X, typestr=">f4"), r"foreign byte order"),
    ],
    ids=["ROCm", "Metal", "mask", "dtype", "byte order"],
)
def test_what_cannot_be_read_is_refused_with_its_path(x, message):
    with pytest.raises((TypeError, ValueError), match=message):
        opt.setup(opt.Adam(), {"w": x})


def test_other_accelerators_are_a_wrong_kind_of_object():
    with pytest.raises(TypeError, match="CUDA device"):
        opt.setup(opt.Adam(), DLPackArray(X, kind=10))
    x = CudaArray(X.copy())
    with pytest.raises(TypeError, match=r'gradient at "the model" is .* CUDA device'):
        opt.update_(opt.setup(opt.Adam(), x), x, DLPackArray(G, kind=10))


@pytest.mark.parametrize("at", ["host", "device 0", "device 1"])
def test_a_gradient_on_another_device_is_an_error_that_changes_nothing(at):
    model = {"a": CudaArray(X.copy()), "b": {"c": DLPackArray(X, device=1)}}
    state = opt.setup(opt.Momentum(), model)
    wrong = {"host": G, "device 0": CudaArray(G), "device 1": DLPackArray(G, device=1)}[at]
    place = "a" if at == "device 1" else "b"
    gradients = {"a": CudaArray(G), "b": {"c": DLPackArray(G, device=1)}}
    gradients[place] = wrong if place == "a" else {"c": wrong}
    path = "a" if place == "a" else r"b\.c"
    where = "on the host" if at == "host" else f"on {at}"
    with pytest.raises(ValueError, match=f'gradient at "{path}" is {where}, its parameter is on device'):
        opt.update_(state, model, gradients)
    assert bits(host(model)) == bits({"a": X, "b": {"c": X}}) and not host(state["a"].state.v).any()


def test_a_host_parameter_takes_no_device_gradient_and_no_device_state():
    x = X.copy()
    with pytest.raises(ValueError, match='gradient at "the model" is on device 0, its parameter is on the host'):
        opt.update_(opt.setup(opt.Adam(), x), x, CudaArray(G))
    state = opt.setup(opt.Adam(), CudaArray(x))
    with pytest.raises(
        ValueError, match='parameter at "the model" is on the host, but its state was set up on device 0'
    ):
        opt.update_(state, x, G)
    assert bits(x) == bits(X)


# ------------------------------------------------------------------------------------------------ streams


class Stream:
    def __init__(self, **fields):
        self.__dict__.update(fields)


class StreamProtocol:
    def __cuda_stream__(self):
        return 0, 0x70


STREAMS = {
    "a handle": (0x10, 0x10),
    "torch's": (Stream(cuda_stream=0x20), 0x20),
    "CuPy's": (Stream(ptr=0x30), 0x30),
    "the protocol": (StreamProtocol(), 0x70),
    "the default": (0, 1),
    "the default by its handle": (1, 1),
}


@pytest.mark.parametrize("stream", STREAMS)
def test_work_goes_to_the_stream_given(stream):
    given, handle = STREAMS[stream]
    x, g = DLPackArray(X), DLPackArray(G)
    opt.update_(opt.setup(opt.Adam(), x), x, g, stream=given)
    assert g.streams == [handle]  # what its library is told to finish writing it for


def test_without_a_stream_work_goes_to_the_default_one():
    x, g = DLPackArray(X), DLPackArray(G)
    state = opt.setup(opt.Adam(), x)
    opt.update_(state, x, g)
    assert g.streams == [1]


def test_arrays_that_name_their_stream_are_updated_on_it():
    x, g = CudaArray(X.copy(), stream=0x40), DLPackArray(G)
    state = opt.setup(opt.Adam(), x)
    opt.update_(state, x, g)
    opt.update_(state, x, g, stream=0x50)
    assert g.streams == [0x40, 0x50]
    assert state.state.m.__cuda_array_interface__["stream"] == 1  # which is there as long as anybody asks


@pytest.mark.parametrize("stream", ["cuda:0", 1.5, True, object()], ids=repr)
def test_what_is_no_stream_is_refused(stream):
    x = CudaArray(X.copy())
    with pytest.raises(TypeError, match="stream: expected a CUDA stream"):
        opt.update_(opt.setup(opt.Adam(), x), x, CudaArray(G), stream=stream)
    for call in (lambda: opt.norm(x, stream=stream), lambda: opt.lerp_(x, CudaArray(G), 0.5, stream=stream)):
        with pytest.raises(TypeError, match="stream: expected a CUDA stream"):
            call()
    assert bits(x.host) == bits(X)


def test_host_arrays_ignore_streams():
    x = X.copy()
    opt.update_(opt.setup(opt.Adam(), x), x, G, stream=0x10)
    assert bits(x) == bits(stepped())


# ----------------------------------------------------------------------------------------------- lifetimes


def test_imported_arrays_are_let_go_after_the_call():
    x, g = CudaArray(X.copy()), DLPackArray(G)
    state = opt.setup(opt.Adam(), x)
    opt.update_(state, x, g)
    seen, counts = weakref.ref(x), sys.getrefcount(g.tensor)
    opt.update_(state, x, g)
    after = sys.getrefcount(g.tensor)
    assert after == counts
    del x
    gc.collect()
    assert seen() is None


def test_slots_keep_the_state_alive():
    x = CudaArray(X.copy())
    state = opt.setup(opt.Momentum(0.5), x)
    opt.update_(state, x, CudaArray(G))
    v = state.state.v
    capsule = v.__dlpack__()
    del state
    gc.collect()
    want = np.float32(0.5) * G
    assert bits(host(v)) == bits(want)
    del v
    gc.collect()
    tensor = tensor_of(capsule)
    assert bits(np.ctypeslib.as_array((np.ctypeslib.ctypes.c_float * 15).from_address(tensor.data))) == bits(
        want.ravel()
    )


def test_handed_over_arrays_say_what_they_are():
    x = CudaArray(sized((4, 3, 2), "complex64", 1))
    state = opt.setup(opt.OptimiserChain(opt.Momentum(), opt.RMSProp()), x)
    v, q = state.state[0].v, state.state[1].q
    assert (v.shape, v.ndim, v.size, v.dtype, v.device) == ((4, 3, 2), 3, 24, np.complex64, "cuda:0")
    assert q.dtype == np.float32 and v.__dlpack_device__() == (2, 0)
    assert repr(v) == "DeviceArray(shape=(4, 3, 2), dtype=complex64, device=cuda:0)"
    interface = v.__cuda_array_interface__
    assert interface["shape"] == (4, 3, 2) and interface["typestr"] == "<c8" and interface["strides"] is None
    for version, kind in ((None, "DLPack before 1.0"), ((1, 0), "DLPack 1.0")):
        capsule = v.__dlpack__(max_version=version)
        tensor = tensor_of(capsule)
        assert (tensor.data, tensor.ndim) == (interface["data"][0], 3), kind
        assert (tensor.code, tensor.bits, tensor.lanes) == (5, 64, 1), kind
        assert (tensor.device_type, tensor.device_id) == (2, 0) and tensor.byte_offset == 0, kind
        assert tensor.shape[:3] == [4, 3, 2] and tensor.strides[:3] == [6, 2, 1], kind
    copy, same = v.__dlpack__(copy=True), v.__dlpack__(dl_device=(2, 0), stream=-1)
    assert tensor_of(copy).data != interface["data"][0] == tensor_of(same).data
    with pytest.raises(BufferError, match="another device"):
        v.__dlpack__(dl_device=(1, 0))


def test_a_consumer_may_free_what_it_took_on_any_thread():
    v = opt.setup(opt.Momentum(), CudaArray(X.copy())).state.v

    class Host:  # the memory is the host's, so torch may take it for what it is
        def __init__(self, array):
            self.array = array

        def __dlpack_device__(self):
            return 1, 0

        def __dlpack__(self, **keywords):
            keywords.pop("dl_device", None)
            capsule = self.array.__dlpack__(**keywords)
            tensor_of(capsule).device_type = 1
            return capsule

    tensor = torch.from_dlpack(Host(v))
    count = sys.getrefcount(v)
    assert tensor.shape == (5, 3) and not tensor.any()
    tensor += 2
    assert (host(v) == 2).all()
    thread = threading.Thread(target=tensor.__class__.set_, args=(tensor,))  # drops its memory
    thread.start()
    thread.join()
    assert sys.getrefcount(v) == count - 1


def test_a_stream_is_forgotten_after_the_call():
    x, other = CudaArray(X.copy()), DLPackArray(X)
    state = opt.setup(opt.Adam(), x)
    opt.update_(state, x, CudaArray(G), stream=0x50)
    opt.norm(x, stream=0x60)
    opt.to_device(other, "cpu")  # the streams above may be gone by now
    assert other.streams and set(other.streams) == {1}
