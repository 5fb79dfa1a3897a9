"""Seconds per iteration of DM, IDM and BACON against plain loops as they were published.

    python -m benchmarks.matching [--method idm] [--shape cifar10] [--threads 2] [--iterations 2]

Everything where nothing is chosen. What is measured replaces its former row in
`benchmarks/results/matching.json`; what both sides compute is in `matching_dm` and
`matching_queue`.
"""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks import matching_dm, matching_queue

RESULT = Path(__file__).parent / "results" / "matching.json"
METHODS = ("dm", *matching_queue.METHODS)


def measure(method: str, shape: str, iterations: int, segment: int) -> dict[str, float]:
    """The row of a method at a shape."""
    if method == "dm":
        return matching_dm.compare(shape, iterations)
    return matching_queue.compare(method, shape, iterations, segment)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write `benchmarks/results/matching.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--method", choices=METHODS, action="append")
    parser.add_argument("--shape", choices=sorted(matching_dm.SHAPES), action="append")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--iterations", type=int, default=2)
    parser.add_argument("--segment", type=int, default=5, help="iterations of the queue to make")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    kept = json.loads(RESULT.read_text(encoding="utf-8"))["rows"] if RESULT.exists() else []
    rows = {(row["method"], row["shape"]): row for row in kept}
    for shape in options.shape or sorted(matching_dm.SHAPES):
        for method in options.method or METHODS:
            row = {
                "method": method,
                "shape": shape,
                "threads": options.threads,
                "iterations": options.iterations,
                **measure(method, shape, options.iterations, options.segment),
                "load_average": os.getloadavg()[0],  # beyond the threads, wall clocks mean little
            }
            rows[method, shape] = row
            print(json.dumps(row, indent=2), flush=True)
            result = {
                "torch": str(torch.__version__),
                "cpu": torch.backends.cpu.get_cpu_capability(),
                "rows": [rows[key] for key in sorted(rows)],
            }
            RESULT.parent.mkdir(exist_ok=True)
            RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
