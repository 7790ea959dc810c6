"""What the extension declares about interpreters holds: main interpreter only, and with its lock.

Each test has a process of its own.
"""

import subprocess
import sys
import sysconfig

import pytest

HEAD = """
try:
    import _interpreters as sub
    create, run = sub.create, sub.exec
except ImportError:  # before Python 3.13
    import _xxsubinterpreters as sub
    create, run = lambda kind: sub.create(isolated=kind == "isolated"), sub.run_string
IMPORT = '''
try:
    import optimisers
    print("imported", flush=True)
except ImportError as error:
    print(error, flush=True)
'''
def step():
    opt.update_(state, model, {"w": np.ones(3)})
    return model["w"].tolist()
def begin():
    global np, opt, model, state
    import numpy as np, optimisers as opt
    model = {"w": np.zeros(3)}
    state = opt.setup(opt.Momentum(1.0, 0.5), model)
"""


def lines(code):
    done = subprocess.run([sys.executable, "-c", HEAD + code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines(), done.stderr


# Before Python 3.12 both kinds share the main interpreter's lock; from then on the isolated one has its own.
@pytest.mark.parametrize("kind", ["isolated", "legacy"])
@pytest.mark.parametrize("first", ["main interpreter", "subinterpreter"])
def test_import_in_a_subinterpreter_is_refused_and_harms_nothing(kind, first):
    begin = "begin(); step()\n"
    refused = f"one = create({kind!r}); run(one, IMPORT); sub.destroy(one)\n"
    again = f"run(create({kind!r}), IMPORT)\n"
    code = begin + refused if first == "main interpreter" else refused + begin
    (message, *others, after), _ = lines(code + again + "print(step())")
    assert "does not support loading in subinterpreters" in message
    assert others == [message] and after == "[-2.5, -2.5, -2.5]"


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python is not free-threaded")
def test_import_into_a_free_threaded_python_switches_the_lock_on():
    (enabled,), warnings = lines("begin()\nimport sys\nprint(sys._is_gil_enabled())")
    assert enabled == "True" and "optimisers._core" in warnings
