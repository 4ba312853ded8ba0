"""What the checkpoints of these tests hold, and Python programs beside them."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import fastmlp

ROOT = Path(fastmlp.__file__).parents[1]
TENSORS = {
    "weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "step": np.array(7, np.int64),
    "none": np.zeros((0, 4), np.int32),
}
METADATA = {"words": ["the", "naïve", '"\\'], "lr": 0.1, "best": None}
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals, limits and fork are POSIX")


def assert_same(tensors, expected):
    assert tensors.keys() == expected.keys()
    for name, array in tensors.items():
        want = expected[name]
        assert array.dtype == want.dtype.newbyteorder("=")
        assert array.dtype.isnative
        assert array.shape == want.shape
        assert array.tobytes() == np.asarray(want, array.dtype).tobytes()  # NaN has bits too
        assert array.flags.writeable
        assert array.flags.owndata
        assert array.flags.c_contiguous


def python(code):
    """A Python program in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
