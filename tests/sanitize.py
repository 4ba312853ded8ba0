"""Promise 12 for the scalar code: the kernels under AddressSanitizer and UndefinedBehaviorSanitizer.

    python -m tests.sanitize [VARIANT ... | all] [--thorough | --thorough-third=K]

builds them into a temporary folder with gcc's sanitizers, and with AMX emulated in plain C, whose loads and stores the
sanitizers see. It runs there, for each variant of the vector kernels (unless given: portable, the best one of this CPU,
and amx where the CPU has the AVX-512 that goes with it; "all": each that this CPU runs), every op with each array in a
block of its own, then the tests that compare the compiled ops with the reference, their sweeps as the option says
(tests/README.md). The first finding ends the process; its report says file and line.
"""

import os
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

from fastmlp.ops import OPS, stem

ROOT = Path(__file__).parent.parent
EMULATION = f"-DFASTMLP_EMULATE_AMX -I{ROOT / 'tests'}"
SANITIZERS = "-fsanitize=address,undefined -fno-sanitize-recover=all"
COMPILER = f"""#!/bin/sh
exec gcc "$@" {EMULATION} -O1 -g1 -fno-omit-frame-pointer {SANITIZERS}
"""
# promise 2 at real sizes tests the vector kernels, and would take minutes here
CHOSEN = (
    "cython and (promise_2 or zero)"
    " and not real_size and not last_layer and not more_rows and not extreme and not promise_2_and_12"
)
CHOSEN_OF_TILES = (
    "cython and bf16 and (promise_2 or promise_4 or promise_13 or zero or edge or fused)"
    " and not real_size and not 4097 and not 9000 and not 530 and not rise and not more_rows and not bf16_fails"
)
AVX512_BF16 = "avx512_bf16"  # the variant whose conversions amx shares
TILES = [f"tests/ops/test_{op}.py" for op in ("linear", "linear_cross_entropy")]  # the ops with products of tiles
NEEDED = ["fastmlp", "kernels", "tests", "benchmarks", "conftest.py"]
NEEDED += ["pyproject.toml", "setup.py", "README.md", "LICENSE"]


def run(*command: str, cwd: Path, **environment: str) -> None:
    subprocess.run(command, cwd=cwd, env=os.environ | environment, check=True)


def copy_sources(folder: Path) -> None:
    """Copy the files that the build and the tests need, without results of earlier builds."""
    for name in NEEDED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__"))
        else:
            shutil.copy2(ROOT / name, folder)
    for made_by_cython in (folder / "kernels").glob("*.c"):
        made_by_cython.unlink()


def build(folder: Path) -> None:
    """The kernels, instrumented, in fastmlp/_kernels/ of the folder."""
    compiler = folder / "sanitizing-gcc"  # a program of its own: its flags come last, behind setup.py's
    compiler.write_text(COMPILER)
    compiler.chmod(0o755)
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    run(*command, cwd=folder, CC=str(compiler), CFLAGS="-g", FASTMLP_REQUIRE_KERNELS="1")
    modules = sorted((folder / "fastmlp" / "_kernels").glob("*.so"))
    for module in modules:
        code = module.read_bytes()
        if b"__asan_report" not in code or b"__ubsan_handle" not in code:
            sys.exit(f"{module.name}: built without the sanitizers")
    print(f"{len(modules)} modules built with {SANITIZERS}", flush=True)


def runtime(name: str) -> str:
    found = subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    return found.stdout.strip()


def run_every_op(folder: Path, sweeps: list[str], environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "tests.guard_pages", "cython", "heap", *sweeps]
    done = subprocess.run(command, cwd=folder, env=os.environ | environment, stdout=subprocess.PIPE, text=True)
    calls = done.stdout.splitlines()
    if done.returncode != 0:
        sys.exit(f"status {done.returncode} in {calls[-1:]}")
    print(f"{len(calls)} calls, each array in a block of its own", flush=True)


def main(arguments: list[str]) -> None:
    sweeps = [argument for argument in arguments if argument.startswith("--")]
    variants = [argument for argument in arguments if not argument.startswith("--")]
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        copy_sources(folder)
        build(folder)
        sanitized = {
            "LD_PRELOAD": runtime("libasan.so"),  # before all others: python itself was built without it
            "ASAN_OPTIONS": "detect_leaks=0",  # the interpreter's leaks are not ours
            "UBSAN_OPTIONS": "print_stacktrace=1",
            "FASTMLP_REQUIRE_KERNELS": "1",
        }
        files = [f"tests/ops/test_{op}.py" for op in sorted({stem(op) for op in OPS})]
        of_cpu = import_module("fastmlp.ops.cython_ops").variants()
        emulated = ["amx"] if AVX512_BF16 in of_cpu else []
        if variants == ["all"]:
            variants = [*reversed(of_cpu), *(variant for variant in emulated if variant not in of_cpu)]
        if not emulated:
            print("no emulated amx: this CPU has not the AVX-512 that goes with it", flush=True)
        for variant in variants or dict.fromkeys(["portable", of_cpu[0], *emulated]):
            print(f"-- {variant}", flush=True)
            environment = sanitized | {"FASTMLP_SIMD": variant}
            run_every_op(folder, sweeps, environment)
            chosen, where = (CHOSEN_OF_TILES, TILES) if variant == "amx" else (CHOSEN, files)
            # what a sanitizer says as it ends the process goes to a descriptor that pytest would keep for itself
            pytest = [sys.executable, "-m", "pytest", "-qx", "--capture=sys", *sweeps]
            run(*pytest, "-k", chosen, *where, cwd=folder, **environment)


if __name__ == "__main__":
    main(sys.argv[1:])
