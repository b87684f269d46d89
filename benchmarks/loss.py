"""What the loss does beside a plain cross-entropy: microseconds and operations of one forward and backward pass.

    python benchmarks/loss.py

On few rows, where the time is that of calling operations and not of computing them, as beside a small student on a GPU.
The rows are those of a batch of 32 sentences of 24 words, three fifths of them valid, 9 classes; T = 4, alpha = 0.9.
Medians of rounds in which the two take turns.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch.nn.functional import cross_entropy
from torch.profiler import ProfilerActivity, profile

from setpoint import DistillationObjective


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    device, classes = options.device, 9
    logits = torch.randn(32, 24, classes, device=device, requires_grad=True)
    labels = torch.randint(classes, (32, 24), device=device)
    labels[torch.rand(32, 24, device=device) < 0.4] = -100
    count = (labels != -100).sum()
    teacher_logits = 4 * torch.randn(int(count), classes, device=device)
    objective = DistillationObjective(temperature=4.0, alpha=0.9)

    def plain() -> None:
        (cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum") / count).backward()

    def distilled() -> None:  # as DistillationTrainer calls it
        rows = (labels != -100).flatten().nonzero().squeeze(-1)
        student_logits, own = logits.flatten(0, 1).index_select(0, rows), labels.flatten().index_select(0, rows)
        objective(
            student_logits=student_logits, teacher_logits=teacher_logits, labels=own, num_valid=count
        ).total.backward()

    ways = {"cross-entropy": plain, "distillation": distilled}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, way in ways.items():
            times[name].append(seconds(way, device))
    for name, way in ways.items():
        print(f"{name}: {1e6 * statistics.median(times[name]):.0f} µs, {operations(way)} operations")
    ratios = [a / b for a, b in zip(times["distillation"], times["cross-entropy"], strict=True)]
    print(f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} … {max(ratios):.2f})")


def seconds(work: Callable[[], None], device: str, repeats: int = 50) -> float:
    work()
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / repeats


def operations(work: Callable[[], None]) -> int:
    """PyTorch's own, those inside others counted too."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        work()
    return sum(event.name.startswith("aten::") for event in seen.events())


if __name__ == "__main__":
    main()
