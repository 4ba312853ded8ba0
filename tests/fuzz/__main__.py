"""Search for inputs that a reader cannot cope with: python -m tests.fuzz TARGET [--minutes 10] [--corpus FOLDER].

It needs atheris (pip install atheris; Linux), which changes inputs at random and keeps those that reach new code of
fastmlp. An input that ends it is in FOLDER as `found-...`; `python -m tests.fuzz TARGET FILE` reads it once more.
"""

import argparse
import resource
import sys
import tempfile
from pathlib import Path

MEMORY = 1 << 30  # bytes that the process may take beyond what it has when it begins: 4 MB unpacked, 1 MB of tensors
SHARED_MEMORY = Path("/dev/shm")
STUCK = 600  # seconds: an input that takes more has no end. Shorter ones are measured in time of the processor


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", help="text, epub, saved, model, options, run or arpa: see tests/fuzz/targets.py")
    parser.add_argument("input", nargs="?", type=Path, help="read this file once, in place of a search")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the random changes (default: another one each time)")
    parser.add_argument("--corpus", type=Path, help="a folder to keep what reached new code (default: a temporary one)")
    given = parser.parse_args()
    if SHARED_MEMORY.is_dir():
        tempfile.tempdir = str(SHARED_MEMORY)  # thousands of files a second, none of which is to be kept
    if given.input:
        from tests.fuzz.targets import check

        check(given.target, given.input.read_bytes())
        return
    with tempfile.TemporaryDirectory() as temporary:
        search(given.target, given.corpus or Path(temporary), given.minutes, given.seed)


def search(target: str, corpus: Path, minutes: float, seed: int) -> None:
    """Change inputs until the time is over or one is found. Does not return."""
    try:
        import atheris
    except ImportError:
        sys.exit("tests.fuzz: atheris is missing: pip install atheris")
    with atheris.instrument_imports(include=["fastmlp"]):
        from tests.fuzz.seeds import SEEDS, TOKENS
        from tests.fuzz.targets import check
    corpus.mkdir(exist_ok=True)
    for number, data in enumerate(SEEDS[target]()):
        (corpus / f"seed-{number}").write_bytes(data)
        check(target, data)  # what is imported where it is used is there from now on
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    quoted = ("".join(f"\\x{byte:02x}" for byte in token) for token in TOKENS)
    (corpus / "tokens").write_text("".join(f'"{token}"\n' for token in quoted))
    limits = [
        f"-dict={corpus}/tokens",
        f"-max_total_time={60 * minutes:.0f}",
        f"-timeout={STUCK}",
        "-max_len=16384",
        "-rss_limit_mb=0",
    ]
    options = [*limits, f"-seed={seed}", f"-artifact_prefix={corpus}/found-", "-print_final_stats=1", "-len_control=0"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], lambda data: check(target, data))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
