"""Plant random faults in fastmlp/ and kernels/ and count how many the tests detect.

    python -m tests.mutants [PART ...] [--list] [--quick] [--again] [--seed N] [--results FILE]

plants one fault after the other in a temporary copy and runs the tests of the file's stem until one fails; an
undetected fault is run against the whole suite. Each result is a line of the results file, and a run continues where
the one before it stopped. PART chooses faults by a part of their names: a folder, a file, `generation.py:127`.

In Python a fault is a changed piece of the source. In the kernels all are in one build: the chosen statements become
`planted_fault == N ? changed : original`, and an environment variable says which one is at work.
"""

import argparse
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

from fastmlp.ops import OPS, stem
from tests.mutations import Fault, kernel_faults, python_faults
from tests.sanitize import ROOT, copy_sources

SEED = 22
LINES_A_FAULT = {"fastmlp": 120, "kernels": 50}  # of a file; a kernel's line does more
FEWEST_LINES = 20  # of a file that gets one
RESULTS = Path("build") / "mutants.jsonl"
PATIENCE = 1_800  # seconds that the tests of a fault may take; a longer run counts as detected

# The tests of a file are those of its stem in the folder of its wing, else that whole folder, else those of its stem
# anywhere; where that is not so, or not all:
EVERY_OP = sorted({stem(op) for op in OPS})
TESTS = {
    "fastmlp/__init__.py": ["import"],
    "__main__": ["commands/*"],
    "arrays": ["functional/*", "nn/*", "optim"],
    "batches": ["data"],
    "cli": ["commands/*"],
    "clock": ["clock", "time_left"],
    "completion": ["completion", "time_left", "resume"],
    "errors": ["commands/*"],
    "events": ["console", "training/events"],
    "given": ["fit", "language_model"],
    "gradient": ["optim", "nn/*", "optimizer", "network"],
    "history": ["fit", "doctests"],
    "keeper": ["keeper", "crash_safety", "folder", "resume"],
    "language_model": ["prediction/*"],
    "map": ["word_map", "commands/map"],
    "options": ["config", "commands/*"],
    "schedule": ["schedule", "metrics"],
    "threads": ["library/threads"],
    "tokenizer": ["text/*"],
    "torch": ["torch_door"],
    "train": ["commands/*"],
    "trainer": ["training/*"],
    "training/optimizer.py": ["training/optimizer", "learning"],
    "head": ["network", "nn/*"],
    "place": ["network", "nn/*"],
    "validation": ["validation", "metrics"],
    "windows": ["data"],
    "ops/__init__.py": ["ops/ops"],
    "reference/__init__.py": ["ops/ops"],
    "numba_ops/__init__.py": ["ops/ops", "numba_ops"],
    "_arithmetic": [*EVERY_OP, "numba_ops"],
    "_compiling": ["numba_ops"],
    "_jit": ["numba_ops"],
    "_products": [*EVERY_OP, "numba_ops"],
    "core": ["cython_ops", "update", "linear_cross_entropy"],
    "team.c": ["cython_ops"],
    "work": ["cython_ops"],
    "dispatch": ["cython_ops"],
    "variant": EVERY_OP,
    "vector": EVERY_OP,
    "tiles": ["linear", "linear_cross_entropy"],
    "amx": ["linear", "linear_cross_entropy"],
    "avx512_bf16": ["linear", "linear_cross_entropy"],
}
# What is left out of them, the other back-ends above all:
WITHOUT = {
    "reference": "not numba",
    "numba_ops": "not cython",
    "kernels": "not numba and not numpy and not every_simd_variant",
}
SLOW = ["/test_ops", "/text/", "/prediction/", "/test_makemore", "/training/", "/commands/", "/accidents/"]  # come last
UNITS = ["amx", "avx512_bf16"]  # variants with a file that no other runs
READ_NUMBER = """
#include <stdlib.h>
static int planted_fault;
__attribute__((constructor)) static void read_planted_fault(void)
{
    const char *number = getenv("PLANTED_FAULT");
    planted_fault = number ? atoi(number) : 0;
}
"""


# ------------------------------------------------------------------------------------------------------------ choosing


def sources(folder: str) -> list[Path]:
    """Its files, without the C that Cython makes."""
    found = sorted(path for path in (ROOT / folder).rglob("*.*") if path.suffix in (".py", ".pyx", ".pxd", ".c", ".h"))
    return [path for path in found if path.suffix != ".c" or not path.with_suffix(".pyx").exists()]


def planted_faults(seed: int) -> list[Fault]:
    """Every file's share, the same for the same seed and source; in a place no more than one."""
    lacking = set(UNITS).difference(import_module("fastmlp.ops.cython_ops").variants())
    planted = []
    for path in [path for folder in LINES_A_FAULT for path in sources(folder)]:
        if path.name == "core.h" or path.stem in lacking:
            continue
        file, find = path.relative_to(ROOT).as_posix(), python_faults if path.suffix == ".py" else kernel_faults
        source = path.read_text("utf-8" if path.suffix == ".py" else "latin-1")  # where a letter is a byte
        by_place: dict[tuple[int, int], list[Fault]] = {}
        for fault in find(file, source):
            by_place.setdefault(fault.place, []).append(fault)
        lines, rng = source.count("\n"), random.Random(f"{seed} {file}")
        count = max(round(lines / LINES_A_FAULT[file.split("/")[0]]), int(lines >= FEWEST_LINES))
        places = sorted(rng.sample(sorted(by_place), min(count, len(by_place))))
        planted += [rng.choice(by_place[place]) for place in places]
    return planted


def test_files(names: list[str]) -> list[str]:
    """By what follows test_ in their names, with the folder before it where that matters; the slow ones last."""
    places = [os.path.split(name) for name in names]
    found = [sorted((ROOT / "tests").rglob(f"{Path(folder, 'test_')}{name}.py")) for folder, name in places]
    files = dict.fromkeys(path.relative_to(ROOT).as_posix() for paths in found for path in paths)
    return sorted(files, key=lambda file: [part in file for part in SLOW[::-1]])


def files_of(path: Path) -> list[str]:
    """The files with the tests of a source."""
    keys = (f"{path.parent.name}/{path.name}", path.name, path.stem)
    names = next((TESTS[key] for key in keys if key in TESTS), None)
    if names:
        return test_files(names)
    package, *wing = path.parts[:-1]
    folder = "ops" if package == "kernels" else next(iter(wing), None)
    candidates = [f"{folder}/{path.stem}", f"{folder}/*", path.stem] if folder else [path.stem]
    return next(files for name in candidates if (files := test_files([name])))


def tests_of(fault: Fault) -> tuple[list[str], dict[str, str]]:
    """Pytest's arguments for the tests of a fault's stem, and the environment that they need."""
    path = Path(fault.file)
    folder = "kernels" if fault.choice else path.parent.name
    chosen, guards = WITHOUT.get(folder), ["ops/ops"] if folder in ("kernels", "reference") else []
    files = list(dict.fromkeys([*files_of(path), *test_files(guards)]))  # test_ops.py has the guard pages
    environment = {"FASTMLP_SIMD": path.stem} if path.stem in UNITS else {}
    return [*files, *(["-k", chosen] if chosen else [])], environment


# ------------------------------------------------------------------------------------------------------------- running


class Copy:
    """A copy of the tree, its kernels built with those faults in them that compile."""

    def __init__(self, folder: Path, faults: list[Fault]) -> None:
        self.folder = folder
        self.numbers = {fault: number for number, fault in enumerate(faults, 1) if fault.choice}
        self.times = itertools.count(2)
        self.sound: dict[str, bool] = {}  # by test: does it pass without a fault?
        copy_sources(folder)
        if self.numbers:
            self.build()
            return
        for module in (ROOT / "fastmlp").rglob("*.so"):
            shutil.copy2(module, folder / module.relative_to(ROOT))

    def build(self) -> None:
        """Again and again, without the faults that the compilers name."""
        command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
        while True:
            self.plant_in_kernels()
            environment = os.environ | {"FASTMLP_REQUIRE_KERNELS": "1"}
            done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True)
            if done.returncode == 0:
                return
            unfit = set()
            for file, line in re.findall(r"^(\S+\.\w+):(\d+):(?:\d+:)? (?!warning|note)", done.stderr, re.MULTILINE):
                above = (self.folder / file).read_text("latin-1").splitlines()[: int(line)]
                unfit.update(re.findall(r"planted_fault == (\d+)", "\n".join(above))[-1:])
            if not unfit:
                sys.exit(done.stderr)
            print(f"do not compile: {len(unfit)}", flush=True)
            self.numbers = {fault: number for fault, number in self.numbers.items() if str(number) not in unfit}

    def plant_in_kernels(self) -> None:
        declared = b'cdef extern from "core.h" nogil:\n    int planted_fault\n\n'
        for path in sources("kernels"):
            code, planted = path.read_bytes(), self.folder / path.relative_to(ROOT)
            mine = [fault for fault in self.numbers if ROOT / fault.file == path]
            for fault in sorted(mine, key=lambda fault: fault.place, reverse=True):
                first, last = fault.place
                code = code[:first] + fault.choice.replace("@", str(self.numbers[fault])).encode() + code[last:]
            if path.name == "core.h":
                code = code.replace(b"\n#include", READ_NUMBER.encode() + b"#include", 1)
            elif path.suffix in (".pyx", ".pxd"):
                code = re.sub(rb"^(?=from |import )", declared, code, count=1, flags=re.MULTILINE)
            if code != planted.read_bytes():  # else it need not be compiled again
                planted.write_bytes(code)

    def run(self, number: int, arguments: list[str], **environment: str) -> tuple[int, str]:
        """Pytest's status, or below 0 the signal that ended it, and what it printed."""
        command = [sys.executable, "-m", "pytest", "-q", "--thorough", "--tb=no", "-p", "no:cacheprovider", *arguments]
        environment = {**os.environ, "FASTMLP_REQUIRE_KERNELS": "1", "PLANTED_FAULT": str(number), **environment}
        with TemporaryFile("w+", errors="replace") as printed:  # no pipe: what a test leaves behind may keep it open
            process = subprocess.Popen(
                command, cwd=self.folder, env=environment, start_new_session=True, stdout=printed, stderr=printed
            )
            try:
                status = process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                status = process.wait() and -signal.SIGALRM
            printed.seek(0)
            return status, printed.read()

    def noticed_by(self, fault: Fault, arguments: list[str], environment: dict[str, str]) -> str | None:
        """The test that fails with a fault planted, and passes without; None if there is none."""
        while True:
            left_out = [f"--deselect={test}" for test, is_sound in self.sound.items() if not is_sound]
            with self.planted(fault) as caches:
                number, others = self.numbers.get(fault, 0), environment | caches
                status, printed = self.run(number, ["-x", *arguments, *left_out], **others)
            if status == 0:
                return None
            failed = re.search(r"^(?:FAILED|ERROR) (\S+\.py::.*?)(?: - .*)?$", printed, re.MULTILINE)
            if failed is None:  # a crash, no end, or no test could begin
                return f"status {status}"
            test = failed[1]
            if test not in self.sound:
                self.sound[test] = self.run(0, [test], **environment)[0] == 0
            if self.sound[test]:
                return test
            print(f"fails without a fault, left out: {test}", flush=True)

    @contextmanager
    def planted(self, fault: Fault) -> Iterator[dict[str, str]]:
        """Plant a Python fault in the copy for the block; kernel faults are built in, and chosen by the environment.

        Yields the environment, which also keeps Numba's cache of the fault apart from that of the source.
        """
        if fault.choice:
            yield {}
            return
        path, (first, last) = self.folder / fault.file, fault.place
        kept, times = path.read_bytes(), path.stat()
        path.write_bytes(kept[:first] + fault.after.encode() + kept[last:])
        os.utime(path, (times.st_atime, times.st_mtime + next(self.times)))  # or an older .pyc would do
        yield {"NUMBA_CACHE_DIR": str(self.folder / "numba")} if path.parent.name == "numba_ops" else {}
        path.write_bytes(kept)
        os.utime(path, (times.st_atime, times.st_mtime))


def table(faults: list[Fault], results: dict[str, dict[str, Any]]) -> None:
    """Return how many faults were detected, by folder."""
    known = [fault for fault in faults if results.get(fault.name, {}).get("compiles")]
    for folder in [*sorted({fault.folder for fault in known}), ""]:
        of_folder = [results[fault.name]["test"] for fault in known if folder in ("", fault.folder)]
        noticed = sum(test is not None for test in of_folder)
        print(
            f"{folder or 'all':20}{len(of_folder):5} faults{noticed:5} noticed{noticed / max(1, len(of_folder)):6.0%}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description="Plant faults; do the tests notice?")
    parser.add_argument("parts", metavar="PART", nargs="*", help="faults whose names have one of these (default: all)")
    parser.add_argument("--list", action="store_true", help="print the faults and what became of them, run nothing")
    parser.add_argument("--quick", action="store_true", help="run the tests of the stem alone, never the whole suite")
    parser.add_argument("--again", action="store_true", help="try those once more that no test noticed")
    parser.add_argument("--seed", type=int, default=SEED, help=f"others are planted (default: {SEED})")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FILE", help=f"(default: {RESULTS})")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background has it ignored; tests send it
    every = planted_faults(options.seed)
    faults = [fault for fault in every if not options.parts or any(part in fault.name for part in options.parts)]
    lines = options.results.read_text().splitlines() if options.results.exists() else []
    results = {result["fault"]: result for result in map(json.loads, lines)}

    def is_open(fault: Fault) -> bool:
        known = results.get(fault.name)
        if known is None or not known["compiles"] or known["test"]:
            return known is None
        return options.again or not (known["suite"] or options.quick)

    files = [fault.file for fault in faults]
    ranks = {fault.name: files[:at].count(fault.file) for at, fault in enumerate(faults)}
    todo = [] if options.list else sorted(filter(is_open, faults), key=lambda fault: ranks[fault.name])  # of every file
    with TemporaryDirectory() as scratch:
        tree = Copy(Path(scratch), every if any(fault.choice for fault in todo) else [])
        for fault in todo:
            compiles, test, suite = not fault.choice or fault in tree.numbers, None, False
            if compiles:
                test = tree.noticed_by(fault, *tests_of(fault))
                if test is None and not options.quick:
                    test, suite = tree.noticed_by(fault, test_files(["*"]), {}), True
            results[fault.name] = {"fault": fault.name, "test": test, "compiles": compiles, "suite": suite}
            options.results.parent.mkdir(exist_ok=True)
            with options.results.open("a") as file:
                print(json.dumps(results[fault.name]), file=file)
            print(f"{fault.name}\n    {test or ('NOT NOTICED' if compiles else 'does not compile')}", flush=True)
    if options.list:
        for fault in faults:
            print(fault.name, results.get(fault.name, {}).get("test", ""))
    table(faults, results)


if __name__ == "__main__":
    main()
