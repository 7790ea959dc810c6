"""Arrays that are not what they seem: with a mask beside them, or made anew whenever they are read."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import optimisers as opt


class Masked(np.ndarray):
    """As astropy.utils.masked has it: a mask beside the data."""

    @property
    def mask(self):
        return np.array([True, False])

    @property
    def unmasked(self):
        return self.view(np.ndarray)


def test_arrays_with_a_mask_of_another_library_are_refused():
    model = {"a": [np.ones(2)]}
    state = opt.setup(opt.Descent(0.5), model)
    masked = np.ones(2).view(Masked)
    with pytest.raises(TypeError, match=r'gradient at "a\.0" is a masked array, whose mask would be ignored; pass'):
        opt.update_(state, model, {"a": [masked]})
    with pytest.raises(ValueError, match='array at "a" is a masked array'):
        opt.setup(opt.Adam(), {"a": masked})
    assert model["a"][0].tolist() == [1, 1]
    opt.update_(state, model, {"a": [masked.unmasked]})


def test_astropys_masked_arrays_are_refused():
    masked = pytest.importorskip("astropy.utils.masked")
    state = opt.setup(opt.Descent(0.5), np.ones(2))
    with pytest.raises(TypeError, match="masked array"):
        opt.update_(state, np.ones(2), masked.Masked(np.ones(2), mask=[True, False]))


@dataclass
class Computed:
    raw: Any = field(default_factory=lambda: np.ones(2))
    w: Any = None

    def __getattribute__(self, name):
        return object.__getattribute__(self, "raw") * 2 if name == "w" else object.__getattribute__(self, name)


@dataclass
class Views:
    raw: Any = field(metadata={"trainable": False})
    w: Any = None

    def __getattribute__(self, name):
        return object.__getattribute__(self, "raw")[:2] if name == "w" else object.__getattribute__(self, name)


class Wrapped:
    def __init__(self):
        self.x = np.ones(2)


opt.register_container(Wrapped, lambda w: {"x": w.x.copy()}, lambda w, children: w)


@pytest.mark.parametrize(("part", "path"), [(Computed(), "layers.0.w"), (Wrapped(), "layers.0.x")])
def test_an_array_that_is_made_anew_is_an_error_at_setup(part, path):
    with pytest.raises(ValueError, match=f'setup: model at "{path}" is a new array each time'):
        opt.setup(opt.Adam(), {"layers": [part]})


def test_views_made_anew_of_the_same_memory_are_fine():
    model = Views(np.zeros(4))
    state = opt.setup(opt.Descent(1.0), model)
    opt.update_(state, model, {"w": np.ones(2)})
    assert model.raw.tolist() == [-1, -1, 0, 0]
