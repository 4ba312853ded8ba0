"""Print the tables of README.md: measure the whole training step beside PyTorch on this machine, and write Markdown.

python -m benchmarks.table          the steps of the original and of the default network, and the products alone
python -m benchmarks.table --long   and `large`, a busy machine, the memory of a large layer, the original's headline

With --smoke it only sees that all of them run: a third of the larger sizes, of PyTorch's compiled modes and of AdamW's
pairs, the first or --thorough-third=K, or with --thorough all of these.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import TypeVar

from benchmarks import (
    bench_busy,
    bench_linear,
    bench_linear_cross_entropy,
    bench_original,
    bench_step,
    bench_window,
    peers,
    training,
)
from benchmarks.bench_step import Steps
from benchmarks.contest import Contest
from benchmarks.report import machine_line, markdown_table, milliseconds
from benchmarks.setting import BATCH_SIZES

T = TypeVar("T")
THIRDS = 3


def step_tables(by_size: dict[int, Steps]) -> str:
    """Return tables of all contenders' milliseconds, and of our kernels' speedups and shares of the roofline."""
    contenders = next(iter(by_size.values())).contenders
    sizes = [f"B = {B}" for B in by_size]
    times, faster, roofline = [], [], []
    for contender in contenders:
        results = [(steps, steps.results[contender.name]) for steps in by_size.values()]
        times.append([contender.name, *(milliseconds(result) for _, result in results)])
        if training.variant(contender):
            ratios = [result.failed or f"{steps.times_pytorch(contender):.2f}" for steps, result in results]
            faster.append([contender.name, *ratios])
            floors = [(max(steps.floors(contender)), result) for steps, result in results]
            reached = [result.failed or f"{1e3 * floor:.1f} ({floor / result.median:.0%})" for floor, result in floors]
            roofline.append([contender.name, *reached])
    return "\n\n".join(
        [
            markdown_table(["ms a step", *sizes], times),
            markdown_table(["times PyTorch", *sizes], faster),
            markdown_table(["floor, ms (reached)", *sizes], roofline),
            "\n".join(bench_step.describe_rest(steps) for steps in by_size.values()),
            "\n".join(bench_step.describe_ceilings(steps) for steps in by_size.values()),
        ]
    )


def third(parts: Sequence[T], number: int | None) -> list[T]:
    """The third of a list that has this number, or all of it."""
    return list(parts if number is None else parts[number::THIRDS])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true", help="the long benchmarks too")
    parser.add_argument(
        "--smoke", action="store_true", help="a few steps of each at one batch size, to see that it runs"
    )
    parser.add_argument(
        "--text", metavar="FILE", help="of the headline; the standard library's documentation if not given"
    )
    parser.add_argument("--thorough", action="store_true", help="of a smoke run: all that it has a third of")
    parser.add_argument(
        "--thorough-third", metavar="K", type=int, choices=range(THIRDS), default=0, help="of a smoke run: 0, 1 or 2"
    )
    options = parser.parse_args()
    smoke = options.smoke
    number = options.thorough_third if smoke and not options.thorough else None
    if smoke:
        print("a smoke run, whole" if number is None else f"a smoke run, third {number} of 0, 1 and 2")
    print(machine_line(), flush=True)

    def show(text: str) -> None:
        print(f"\n{text}", flush=True)

    with Contest() as contest:
        everybody = training.contenders(long=True)
        compiled = [contender for contender in everybody if training.is_compiled(contender)]
        everybody = [one for one in everybody if one not in compiled or one in third(compiled, number)]
        sizes = BATCH_SIZES[:1] if smoke else BATCH_SIZES
        by_size = {B: bench_step.measure_steps(contest, everybody, B, smoke=smoke) for B in sizes}
        show(step_tables(by_size))
        for steps in by_size.values():
            steps.assert_same_training()
        modes = [one for one in bench_window.contenders(long=True) if one not in compiled or one in everybody]
        for network in bench_window.NETWORKS if options.long else ("small",):
            for B in bench_window.BATCH_SIZES[:1] if smoke else bench_window.BATCH_SIZES:
                window = bench_window.measure(contest, network, modes, B, smoke=smoke)
                show(bench_window.describe(window))
                window.assert_same_training()
        B, pairs = bench_step.ADAMW_B[-1], third(bench_step.adamw_pairs(long=True), number)
        show(bench_step.describe_adamw(bench_step.measure_adamw(contest, B, pairs, smoke=smoke), B))
        layer_by_size = bench_linear_cross_entropy.measure(contest, third(BATCH_SIZES, number), smoke=smoke)
        show(bench_linear_cross_entropy.describe(layer_by_size))
        for results in layer_by_size.values():
            bench_linear_cross_entropy.assert_same_gradients(results)
        for op in bench_linear.PRODUCTS:
            for layer in bench_linear.LAYERS:
                sizes = third(bench_linear.BATCH_SIZES, number)
                products = bench_linear.measure_product(contest, op, layer, sizes, smoke=smoke)
                show(bench_linear.describe(products, op, layer))
                for results in products.values():
                    bench_linear.assert_same_totals(results)
        one_row = bench_linear.measure_one_row(contest, smoke=smoke)
        show(bench_linear.describe_one_row(one_row))
        bench_linear.assert_same_totals(one_row)
        if options.long:
            show(bench_busy.describe(bench_busy.measure(contest, smoke=smoke)))
            memory = bench_linear_cross_entropy.measure_memory(contest, smoke=smoke)
            show(bench_linear_cross_entropy.describe_memory(memory))
            bench_linear_cross_entropy.assert_memory_as_stated(memory)
            show(bench_original.describe(bench_original.measure(contest, options.text, smoke=smoke)))
        if failed := peers.unexpected(contest.failed):
            sys.exit("\n".join(f"{name}: {why}" for name, why in failed.items()))


if __name__ == "__main__":
    main()
