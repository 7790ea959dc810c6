"""Files are safetensors files: what that package reads, what it may write anew, and what is refused."""

import json
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import support
import torch

import optimisers as opt


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.safetensors"


def save_all_dtypes(path):
    """A state and a model of every dtype, some arrays strided or empty."""
    model = {dtype: support.sized((3, 4), dtype, 1)[:, ::2] for dtype in support.NUMPY_DTYPES}
    model |= {
        "empty": np.zeros((0, 3)),
        "scalar": np.array(1.5),
        "f": np.asfortranarray(support.sized((3, 2), "float32", 2)),
    }
    state = opt.setup(opt.Adam(), model)
    opt.update_(state, model, {key: np.array(x) for key, x in model.items()})
    opt.save(path, state, model)
    return state, model


def test_the_safetensors_package_reads_every_array(path):
    state, model = save_all_dtypes(path)
    tensors = safetensors.torch.load_file(path)
    assert len(tensors) == 3 * len(model)
    for name, array in model.items():
        value = support.to_torch(np.array(array, order="C"))
        if array.dtype == np.complex128:
            value = torch.view_as_real(value)
        assert torch.equal(tensors[f"model/{name}"], value)
        assert torch.equal(tensors[f"state/{name}/0/v"], torch.from_numpy(np.array(state[name].state.v)))
    with safetensors.safe_open(path, "np") as file:
        assert file.metadata()["format"] == "optimisers"


def test_what_the_safetensors_package_writes_anew_is_read(path, tmp_path):
    _, model = save_all_dtypes(path)
    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata()
    copy = tmp_path / "copy.safetensors"
    safetensors.torch.save_file(safetensors.torch.load_file(path), copy, metadata)
    zeros = {name: np.zeros_like(array) for name, array in model.items()}
    opt.load(copy, None, zeros)
    assert all(np.array_equal(zeros[name], array) for name, array in model.items())


def test_checksums_are_those_of_zlib(path):
    state, _ = save_all_dtypes(path)
    with safetensors.safe_open(path, "np") as file:
        table = json.loads(file.metadata()["arrays"])
    moment = np.array(state["float64"].state.m)
    assert table["state/float64/0/m"] == ["float64", [3, 2], f"{zlib.crc32(moment.tobytes()):08x}"]


def test_other_files_are_refused(path):
    state = opt.setup(opt.Adam(), np.ones(2))
    safetensors.numpy.save_file({"w": np.ones(2)}, path)
    with pytest.raises(ValueError, match="no file that optimisers saved"):
        opt.load(path, state)
    for data in (
        b"",
        b"PK\3\4" + bytes(100),
        bytes(8),
        struct.pack("<Q", 1 << 63) + bytes(64),
        b"\2" + bytes(7) + b"{}",
    ):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"safetensors file|optimisers saved"):
            opt.load(path, state)


def header_of(path):
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def write(path, header, data):
    """A file whose checksums hold, whatever is in it."""
    meta = header["__metadata__"]
    sum_ = 0
    for name in ("arrays", "manifest", "data"):
        sum_ = zlib.crc32(meta[name].encode() + b"\0", sum_)
    meta["checksum"] = f"{sum_:08x}"
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def altered(change):
    """A change of one part of the metadata, which is JSON."""

    def apply(header, part):
        value = json.loads(header["__metadata__"][part])
        change(value)
        header["__metadata__"][part] = json.dumps(value)

    return apply


FORGED = {
    "newer": (lambda h: h["__metadata__"].update(format_version="2"), "format 2, this version"),
    "overlap": (lambda h: h["state//0/v"].update(data_offsets=[0, 16]), "begins at byte|another length|bytes"),
    "huge": (lambda h: h["state//0/m"].update(shape=[1 << 60]), "out of range|axis of length"),
    "negative": (lambda h: h["state//0/m"].update(shape=[-2]), "out of range"),
    "dtype": (lambda h: h["state//0/m"].update(dtype="F8_E4M3"), "unknown dtype"),
    "extra key": (lambda h: h["state//0/m"].update(x=1), 'says "x"'),
    "missing": (lambda h: h.pop("state//0/m"), "not in the file"),
    "rule": (
        lambda h: altered(lambda m: m["rules"][0]["stages"][0].update(rule="Exec"))(h, "manifest"),
        "rule Exec in",
    ),
    "version": (lambda h: altered(lambda m: m["rules"][0]["stages"][0].update(version=2))(h, "manifest"), "version of"),
    "range": (
        lambda h: altered(lambda m: m["rules"][0]["stages"][0]["fields"].update(eta="-0x1p+0"))(h, "manifest"),
        "eta must be",
    ),
    "field": (
        lambda h: altered(lambda m: m["rules"][0]["stages"][0]["fields"].pop("eta"))(h, "manifest"),
        "hyperparameters of Adam",
    ),
    "clock": (lambda h: altered(lambda m: m["leaves"][0].update(clock=[]))(h, "manifest"), "clocks"),
    "number": (lambda h: altered(lambda m: m["leaves"][0].update(rule=7))(h, "manifest"), "rule that is not there"),
    "library": (lambda h: altered(lambda m: m.pop("library"))(h, "manifest"), "lacks something"),
    "not json": (lambda h: h["__metadata__"].update(data="[" * 9999), "cannot be read|nested"),
    "kind": (lambda h: altered(lambda d: d["extra"].update(x={"$run": "rm"}))(h, "data"), "unknown kind"),
    "list": (lambda h: h["__metadata__"].update(data="[]"), "data"),
    "pickle": (
        lambda h: altered(lambda d: d["extra"].update(x={"$array": "no", "library": "numpy"}))(h, "data"),
        "lacks",
    ),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_header_is_a_clear_error(path, name):
    x = np.ones(2)
    state = opt.setup(opt.Adam(), x)
    opt.save(path, state)
    change, message = FORGED[name]
    header, data = header_of(path)
    write(path, header, data)
    opt.load(path, state)
    change(header)
    write(path, header, data)
    before = state.state.m.copy(), state.clock, state.rule
    with pytest.raises(opt.InvalidValueError, match=message):
        opt.load(path, state)
    assert np.array_equal(state.state.m, before[0]) and (state.clock, state.rule) == before[1:]


def test_flipped_and_cut_files_are_errors_that_change_nothing(path, tmp_path):
    model = {"w": np.ones((2, 3), np.float32), "b": np.ones(3)}
    state = opt.setup(opt.OptimiserChain(opt.ClipNorm(), opt.Adam()), model)
    opt.update_(state, model, {"w": np.ones((2, 3)), "b": np.ones(3)})
    opt.save(path, state, model, epoch=3, order=np.arange(4))
    whole = path.read_bytes()
    rng = np.random.default_rng(int(os.environ.get("OPTIMISERS_FUZZ_SEED", "1")))
    damaged = tmp_path / "damaged"
    before = {k: x.copy() for k, x in model.items()}
    for i in range(int(os.environ.get("OPTIMISERS_FUZZ_FILES", "300"))):
        data = bytearray(whole)
        if i % 4 == 0:
            data = data[: rng.integers(len(data))]
        else:
            for at in rng.integers(len(data), size=1 + i % 3):
                data[at] ^= 1 << int(rng.integers(8))
        if data == whole:
            continue
        damaged.write_bytes(data)
        with pytest.raises(opt.OptimisersError):
            opt.load(damaged, state, model)
    assert all(np.array_equal(model[k], before[k]) for k in model)
    opt.save(damaged, state, model, epoch=3, order=np.arange(4))
    assert damaged.read_bytes() == whole


def run(*arguments):
    return subprocess.run([sys.executable, "-m", "optimisers", *arguments], capture_output=True, text=True)


def test_the_command_line_shows_and_compares(path, tmp_path):
    model = {"w": np.ones((2, 3), np.float32), "b": np.ones(3)}
    state = opt.setup({"w": opt.Adam(0.1), "b": opt.OptimiserChain(opt.ClipGrad(), opt.Momentum())}, model)
    opt.save(path, state, model, epoch=3)
    shown = run("show", str(path))
    assert shown.returncode == 0 and shown.stdout.rstrip() == str(opt.inspect(path))
    for part in ("2 leaves", "beta1_t=1", "Adam(eta=0.1", "state/b/1/v", "float32  (2, 3)", "extra epoch: 3"):
        assert part in shown.stdout
    other = tmp_path / "other"
    opt.update_(state, model, {"w": np.ones((2, 3)), "b": None})
    opt.freeze_(opt.adjust_(state, {opt.Adam: {"eta": 0.5}})["b"])
    opt.save(other, state, epoch=4)
    compared = run("diff", str(path), str(other))
    assert compared.returncode == 1
    for line in ("! w clock: beta1_t=1", "! b frozen: False -> True", "! array state/w/0/m: 6 of 6 elements differ",
                 "- array model/b", "! extra epoch: 3 -> 4"):  # fmt: skip
        assert line in compared.stdout
    assert run("diff", str(path), str(path)).stdout == "no difference\n"
    assert run("show", "nowhere").returncode == 2 and "nowhere" in run("show", "nowhere").stderr
    assert run().returncode == 2 and run("diff", str(path)).stderr.startswith("usage")
