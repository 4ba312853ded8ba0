"""Print the README's tables: measure the whole training step beside PyTorch on this machine, and write Markdown.

python -m benchmarks.table          the step and the products alone, some ten minutes
python -m benchmarks.table --long   and a busy machine, the memory of a large layer, and the original's headline
"""

import argparse

from benchmarks import bench_busy, bench_linear, bench_linear_cross_entropy, bench_original, bench_step, training
from benchmarks.bench_step import Steps
from benchmarks.contest import Contest
from benchmarks.report import machine_line, markdown_table

BATCH_SIZES = (32, 128, 512)


def step_tables(by_size: dict[int, Steps]) -> str:
    """Milliseconds of everybody, and of our kernels how many times faster they are and how near to the roofline."""
    contenders = by_size[BATCH_SIZES[0]].contenders
    sizes = [f"B = {B}" for B in by_size]
    times = []
    for contender in contenders:
        results = [steps.results[contender.name] for steps in by_size.values()]
        times.append([contender.name, *(result.failed or f"{1e3 * result.median:.1f}" for result in results)])
    faster, roofline = [], []
    for contender in filter(training.variant, contenders):
        faster.append([contender.name, *(f"{steps.times_pytorch(contender):.2f}" for steps in by_size.values())])
        roofline.append([contender.name])
        for steps in by_size.values():
            floor = max(steps.floors(contender))
            share = floor / steps.results[contender.name].median
            roofline[-1].append(f"{1e3 * floor:.1f} ({share:.0%})")
    return "\n\n".join(
        [
            markdown_table(["ms a step", *sizes], times),
            markdown_table(["times PyTorch", *sizes], faster),
            markdown_table(["floor, ms (reached)", *sizes], roofline),
            "\n".join(bench_step.describe_ceilings(steps) for steps in by_size.values()),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true", help="the long benchmarks too")
    parser.add_argument(
        "--text", metavar="FILE", help="of the headline; the standard library's documentation if not given"
    )
    options = parser.parse_args()
    print(machine_line(), flush=True)

    def show(text: str) -> None:
        print(f"\n{text}", flush=True)

    with Contest() as contest:
        everybody = training.contenders(compiled=True)
        show(step_tables({B: bench_step.measure_steps(contest, everybody, B) for B in BATCH_SIZES}))
        show(bench_step.describe_adamw(bench_step.measure_adamw(contest)))
        for op in bench_linear.PRODUCTS:
            for layer in bench_linear.LAYERS:
                show(bench_linear.describe(bench_linear.measure_product(contest, op, layer), op, layer))
        show(bench_linear.describe_one_row(bench_linear.measure_one_row(contest)))
        if options.long:
            show(bench_busy.describe(bench_busy.measure(contest)))
            show(bench_linear_cross_entropy.describe_memory(bench_linear_cross_entropy.measure_memory(contest)))
            show(bench_original.describe(bench_original.measure(contest, options.text)))


if __name__ == "__main__":
    main()
