"""What explaining costs: seconds and memory on the logits of a large validation split; nothing is trained.

    python benchmarks/explain.py --out docs/results/explain.md

One thread; each size in a process of its own, whose highest memory is compared with what it had after the imports and
the making of the logits. The whole `explain` is measured: the table over T, the calibration, the classes, the examples
and the sentences.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch

from setpoint.files import write_atomic

SIZES = ((50_000, 10, True), (50_000, 100, False), (50_000, 100, True), (5_000, 1000, True), (500, 30_000, True))


def memory() -> float:
    """The highest memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(rows: int, classes: int, student: bool) -> None:
    from setpoint import explain

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(classes)
    labels = torch.randint(0, classes, (rows,), generator=generator)
    teacher = torch.empty(rows, classes).normal_(0, 2, generator=generator)
    teacher[torch.arange(rows), labels] += 8
    students = torch.empty(rows, classes).normal_(generator=generator).add_(teacher, alpha=0.7) if student else None
    before, wall, cpu = memory(), time.perf_counter(), time.process_time()
    found = explain(teacher, labels, students, temperature=4.0)
    seconds, busy = time.perf_counter() - wall, time.process_time() - cpu
    figures = {"seconds": seconds, "cpu": busy, "more": memory() - before, "all": memory()}
    print(json.dumps(figures | {"temperatures": len(found.over_temperature)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--size", type=int, nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.size is not None:
        measure(options.size[0], options.size[1], bool(options.size[2]))
        return
    lines = [
        "# What explaining costs", "",
        "`explain` on logits in float32 with labels, one CPU thread: seconds by the clock and of the processor, what"
        " its memory rose by above the logits, and all that the process took, PyTorch included."
        " Where the clock says much more than the processor, others had the machine meanwhile.", "",
        "| rows | classes | student | temperatures | seconds | CPU seconds | MB more | MB in all |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for rows, classes, student in SIZES:
        command = [sys.executable, __file__, "--size", str(rows), str(classes), str(int(student))]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout)
        lines.append(
            f"| {rows:,} | {classes:,} | {'yes' if student else 'no'} | {found['temperatures']} |"
            f" {found['seconds']:.1f} | {found['cpu']:.1f} | {found['more']:.0f} | {found['all']:.0f} |"
        )
        print(lines[-1], flush=True)
    lines += ["", "Command: `python benchmarks/explain.py " + " ".join(sys.argv[1:]) + "`", ""]
    if options.out is not None:
        write_atomic(options.out, "\n".join(lines))


if __name__ == "__main__":
    main()
