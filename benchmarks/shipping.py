"""What shipping gains: a run's teacher and student in PyTorch against the student in ONNX and in int8.

    python benchmarks/shipping.py runs/conll2003-5m --out docs/results/shipping.md

The exports are made into the run's `exports` unless they are there. Each model is measured in a process of its own with
one thread, on inputs of the validation split; the score is that of the whole split.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from setpoint.files import write_atomic, write_json
from setpoint.shipping.bench import Cost, bench
from setpoint.shipping.export import export
from setpoint.shipping.manifest import NAME, read_manifest

NAMES = ("teacher, PyTorch", "student, PyTorch", "student, ONNX", "student, ONNX int8")


def rows(costs: list[Cost]) -> list[str]:
    """A row for each model; the ratios are to the teacher."""
    teacher = costs[0]
    return [
        f"| {name} | {cost.p50_ms:.2f} | {cost.p95_ms:.2f} | {teacher.p50_ms / cost.p50_ms:.1f} |"
        f" {cost.per_second:,.0f} | {cost.bytes / 1e6:.1f} | {teacher.bytes / cost.bytes:.1f} |"
        f" {cost.memory_bytes / 1e6:.0f} |"
        f" {100 * cost.score:.2f} | {100 * (cost.score - teacher.score):+.2f} |"
        for name, cost in zip(NAMES, costs, strict=True)
    ]


def sentences(costs: list[Cost], parity: list[str]) -> list[str]:
    teacher, student, onnx, int8 = costs
    faster = onnx.p50_ms <= student.p50_ms and onnx.per_second >= student.per_second
    return [
        f"int8 is {teacher.p50_ms / int8.p50_ms:.1f} times as fast as the teacher and {teacher.bytes / int8.bytes:.1f}"
        f" times smaller, at {100 * (teacher.score - int8.score):.2f} points of {teacher.metric} less.",
        f"ONNX in float32 is {'not ' if faster else ''}slower than PyTorch: {onnx.p50_ms:.2f} ms against"
        f" {student.p50_ms:.2f} alone, {onnx.per_second:,.0f} a second against {student.per_second:,.0f} in batches.",
        *parity,
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the folder of a finished run")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    places, parity = [], []
    for quantize in (None, "int8"):
        place = options.run / "exports" / ("onnx" if quantize is None else "onnx-int8")
        if not (place / NAME).is_file():
            export(options.run, "onnx", quantize=quantize)
        places.append(place)
        found = read_manifest(place).parity
        parity.append(
            f"{'ONNX' if quantize is None else 'int8'} and PyTorch: max |Δ logit| {found.largest:.2g} of logits up to"
            f" {found.scale:.3g}, the same top class in {100 * found.agreement:.2f} % of {found.rows:,} rows."
        )
    costs = bench([options.run, *places], threads=options.threads)
    lines = [
        "# What shipping gains", "",
        f"{options.run.name}: one input alone and batches of {costs[0].batch_size}, {options.threads} CPU thread(s),"
        f" from the raw input to the answer; {costs[0].metric} on the validation split.", "",
        "| model | p50 ms | p95 ms | times as fast | inputs/s | MB | times smaller | MB in memory |"
        f" {costs[0].metric} | to the teacher |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
        *rows(costs), "",
        *(f"- {sentence}" for sentence in sentences(costs, parity)), "",
        f"Command: `python benchmarks/shipping.py {' '.join(sys.argv[1:])}`", "",
    ]  # fmt: skip
    print("\n".join(lines))
    if options.out is not None:
        write_atomic(options.out, "\n".join(lines))
        write_json(options.out.with_suffix(".json"), [cost.as_json() for cost in costs])


if __name__ == "__main__":
    main()
