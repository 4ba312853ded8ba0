"""Build kernels/ into fastmlp/_kernels/, and make README.md the description that package indexes show.

Where there is no C compiler the installation still succeeds: the program then says so and runs on Numba.
FASTMLP_REQUIRE_KERNELS=1 makes a failed build an error. CFLAGS=-g keeps what debuggers and profilers read.
"""

import os
import re
import sys
import tomllib
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


def long_description(readme: str, url: str | None) -> str:
    """The README as it can be read away from its repository, where relative links lead nowhere.

    readme  Markdown, with relative links to other files and pictures; indexes know no links within it
    url     of the repository on GitHub: links and pictures are then of its default branch; None: links become their
            text, pictures what they show
    """

    def absolute(link: re.Match[str]) -> str:
        picture, text, path = link.groups()
        if url is not None:
            return f"{picture}[{text}]({url.rstrip('/')}/{'raw' if picture else 'blob'}/HEAD/{path})"
        return f"*(picture: {text})*" if picture else text

    return re.sub(r"(!?)\[([^]]*)\]\((?!https?:)([^)]*)\)", absolute, readme)


if __name__ == "__main__":
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    setup(
        ext_modules=extensions(),
        options={"build_ext": {"parallel": os.cpu_count()}},
        long_description=long_description(
            Path("README.md").read_text(encoding="utf-8"), project.get("urls", {}).get("Source")
        ),
        long_description_content_type="text/markdown",
    )
