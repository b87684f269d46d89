"""What solving for a temperature row by row costs: the objective with the policy ``softness`` against a constant T.

    python benchmarks/softness.py --out docs/results/softness.md

Loss and gradient on the same logits, the two in turns within one run, medians; one thread. The share is what solving
adds to the loss of a constant T: (softness − constant) / constant.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from setpoint import DistillationObjective, Softness, effective_classes
from setpoint.files import write_atomic

SIZES = ((256, 10), (256, 77), (256, 1000), (64, 30_000), (8, 150_000))


def rows(count: int, classes: int) -> Tensor:
    """Logits as a trained teacher has them."""
    generator = torch.Generator().manual_seed(classes)
    logits = 2 * torch.randn(count, classes, generator=generator)
    logits[torch.arange(count), torch.randint(0, classes, (count,), generator=generator)] += 8
    return logits * (0.5 + torch.rand(count, 1, generator=generator))


def cost(objective: DistillationObjective, student: Tensor, teacher: Tensor) -> float:
    start = time.perf_counter()
    z = student.detach().requires_grad_()
    objective(student_logits=z, teacher_logits=teacher).total.backward()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=101)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        "# The cost of softness", "",
        "A temperature solved for each row at each step (policy `softness`, √C effective classes), beside a constant T:"
        " milliseconds of loss and gradient, medians of one run in which the two take turns; one thread.", "",
        "| rows | classes | constant T | softness | solving adds | worst row's error |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for count, classes in SIZES:
        student, teacher = torch.randn(count, classes), rows(count, classes)
        wanted = classes**0.5
        constant = DistillationObjective(4.0, alpha=1.0)
        softness = DistillationObjective(Softness(effective_classes=wanted), alpha=1.0)
        pairs = [(cost(constant, student, teacher), cost(softness, student, teacher)) for _ in range(options.repeats)]
        plain, solved = (1000 * statistics.median(side) for side in zip(*pairs, strict=True))
        share = statistics.median((b - a) / a for a, b in pairs)
        t = softness.temperature(teacher.double(), student.double()).teacher
        error = float((effective_classes(teacher.double(), t) / wanted - 1).abs().max())
        lines.append(f"| {count} | {classes:,} | {plain:.2f} | {solved:.2f} | {share:.0%} | {error:.0e} |")
    lines += ["", "Command: `python benchmarks/softness.py " + " ".join(sys.argv[1:]) + "`", ""]
    write_atomic(options.out, "\n".join(lines))


if __name__ == "__main__":
    main()
