"""Training goes on from a file as if nothing had been, in another process, bit for bit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import resuming

import optimisers as opt


@pytest.mark.slow
def test_every_rule_and_dtype_goes_on_in_another_process_bit_for_bit(tmp_path):
    expected = {}
    for i, (name, rule, dtype) in enumerate(resuming.cases()):
        model = resuming.model_of(dtype)
        state = resuming.train(opt.setup(rule, model), model, dtype, 0)
        opt.save(resuming.path_of(tmp_path, i), state, model)
        expected[name] = resuming.digest(resuming.train(state, model, dtype, resuming.STEPS), model)
    folder = Path(resuming.__file__).parent
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(folder.parent)])}
    done = subprocess.run(
        [sys.executable, resuming.__file__, str(tmp_path)], env=environment, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == expected and len(expected) > 200


def test_a_saved_state_is_the_same_file_each_time(tmp_path):
    model = {"w": np.ones((2, 3)), "b": np.ones(3, np.float32)}
    state, _ = opt.update_(opt.setup(opt.Adam(), model), model, {"w": np.ones((2, 3)), "b": np.ones(3)})
    opt.save(tmp_path / "a.safetensors", state, model, epoch=1)
    opt.save(tmp_path / "b.safetensors", opt.load(tmp_path / "a.safetensors", None, model).state, model, epoch=1)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
