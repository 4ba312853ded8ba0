"""Build kernels/ into fastmlp/_kernels/.

Where there is no C compiler the installation still succeeds: the program then says so and runs on Numba.
FASTMLP_REQUIRE_KERNELS=1 makes a failed build an error. CFLAGS=-g keeps what debuggers and profilers read.
"""

import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

KERNELS = Path("kernels")
PLAIN_FLAGS = [
    "-O3",
    "-std=gnu11",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
    "-fvisibility=hidden",
    "-pthread",
]
LINK_FLAGS = ["-pthread"]
if "-g" not in os.environ.get("CFLAGS", "").split():  # Python's own flags have it; most of each file is that
    PLAIN_FLAGS.append("-g0")
    LINK_FLAGS += ["-s"] * (sys.platform == "linux")
MEMORYVIEWS = "fastmlp._kernels.memoryviews"  # Cython's code for them, compiled once: in each module it was most of it


def extensions() -> list[Extension]:
    """One module a .pyx; `core` also holds the thread team and the C microkernels that the others reach through it."""
    sources = sorted(KERNELS.glob("*.pyx"))
    if not sources:
        raise SystemExit("setup.py: no kernels/*.pyx to build; fastmlp is installed from its repository or its sdist")
    c_sources = sorted(str(source) for source in KERNELS.glob("simd/*.c"))
    headers = sorted(str(header) for header in KERNELS.glob("simd/*.h"))
    modules: list[Extension] = cythonize(
        [
            Extension(
                f"fastmlp._kernels.{source.stem}",
                [str(source), *(c_sources if source.stem == "core" else [])],
                include_dirs=[str(KERNELS / "simd")],
                depends=headers,
                extra_compile_args=PLAIN_FLAGS,
                extra_link_args=LINK_FLAGS,
            )
            for source in sources
        ]
        + [Extension(MEMORYVIEWS, [], extra_compile_args=PLAIN_FLAGS, extra_link_args=LINK_FLAGS)],
        shared_utility_qualified_name=MEMORYVIEWS,
        include_path=[str(KERNELS)],
        compiler_directives={
            "language_level": 3,
            "binding": True,
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "freethreading_compatible": False,
        },
    )
    for module in modules:  # set here: cythonize does not keep it
        module.optional = os.environ.get("FASTMLP_REQUIRE_KERNELS") != "1"
    return modules


setup(ext_modules=extensions(), options={"build_ext": {"parallel": os.cpu_count()}})
