"""Fit a line through the C interface with nothing but the standard library: `python main.py LIBRARY`."""

import ctypes
import sys


class Array(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("size", ctypes.c_int64),
        ("dtype", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("name", ctypes.c_char_p),
    ]


FLOAT64 = 3
ALL = ctypes.c_int64(-1)

lib = ctypes.CDLL(sys.argv[1])
lib.optimisers_version.restype = ctypes.c_char_p
lib.optimisers_last_error.restype = ctypes.c_char_p
lib.optimisers_adjust.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_char_p, ctypes.c_double]
lib.optimisers_update.argtypes = [
    ctypes.c_void_p,
    ctypes.POINTER(Array),
    ctypes.c_size_t,
    ctypes.POINTER(Array),
    ctypes.c_size_t,
]
lib.optimisers_destroy.argtypes = [ctypes.c_void_p]


def check(status: int) -> None:
    if status != 0:
        raise RuntimeError(lib.optimisers_last_error().decode())


def array(values: ctypes.Array, name: bytes) -> Array:
    return Array(ctypes.cast(values, ctypes.c_void_p), len(values), FLOAT64, 0, None, name)


line = (ctypes.c_double * 2)()
gradient = (ctypes.c_double * 2)()
x, dx = array(line, b"line"), array(gradient, b"")
state = ctypes.c_void_p()
check(
    lib.optimisers_create(
        b"OptimiserChain(ClipNorm(1.0), Adam(eta=1e-2))", ctypes.byref(x), ctypes.c_size_t(1), None, ctypes.byref(state)
    )
)
for i in range(4000):
    gradient[0] = gradient[1] = 0.0
    for k in range(20):
        t = 0.1 * k
        error = line[0] * t + line[1] - (2 * t + 1)
        gradient[0] += error * t / 10
        gradient[1] += error / 10
    if i == 3000:
        check(lib.optimisers_adjust(state, -1, b"eta", 1e-4))
    check(lib.optimisers_update(state, x, 1, dx, 1))

assert lib.optimisers_adjust(state, -1, b"betta", 0.5) == 1
message = lib.optimisers_last_error().decode()
assert "betta" in message, message
lib.optimisers_destroy(state)
print(
    f"optimisers {lib.optimisers_version().decode()} from ctypes: {line[0]:.4f} t + {line[1]:.4f}; refused: {message}"
)
assert abs(line[0] - 2) + abs(line[1] - 1) < 0.02
