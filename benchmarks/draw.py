"""Draw the README's loss curve from a run of your own.

python -m benchmarks.draw runs/hp "author: titles" [PNG]
"""

import json
import sys
from pathlib import Path

from fastmlp.plot import plot_loss

FIGURES = Path(__file__).parent / "figures"


def main(run: str, title: str, to: str = str(FIGURES / "loss.png")) -> None:
    lines = (Path(run) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    plot_loss([json.loads(line) for line in lines], Path(to), title=title)


if __name__ == "__main__":
    main(*sys.argv[1:])
