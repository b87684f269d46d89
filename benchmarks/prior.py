"""What ``setpoint.suggest`` says of teachers whose best temperature is known.

    python benchmarks/prior.py --out docs/results/prior.md

Needs ../shared/data/cifar10, and the stored logits of ``setpoint run`` on the recipes banking77, conll2003 and sst2, in
``runs/`` (those that are not there are left out). What is known of a temperature is quoted from the pages beside OUT.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from setpoint import effective_classes, entropy, suggest
from setpoint.files import write_atomic
from setpoint.maths.moments import spread
from setpoint.maths.softness import soften_mean
from setpoint.targets.store import TargetStore

SHARED = Path(__file__).parents[2] / "shared/data"
TEMPERATURES = (1.0, 1.5, 2.0, 4.0, 8.0)
CIFAR = "1.5; 1 to 4 not told apart"
RUNS = {
    "banking77": ("Banking77, MiniLM, training rows", "1.5; T = 1 is 0.5 points worse, T = 4 0.9"),
    "conll2003": ("CoNLL-2003, MiniLM, training rows", "2; 1 to 8 not told apart"),
    "sst2": ("SST-2, MiniLM, training rows", "4 to 8; 1 to 8 not told apart"),
}


def teachers(runs: Path) -> Iterator[tuple[str, str, Tensor, Tensor | None]]:
    """Name, what is known of T, logits, labels."""
    stored = np.load(SHARED / "cifar10/teacher_logits_resnet.npz")
    labels = torch.from_numpy(np.load(SHARED / "cifar10/test.npz")["label"]).long()
    yield "CIFAR-10, ResNet-56, training rows", CIFAR, torch.from_numpy(stored["resnet56_train"]), None
    yield "CIFAR-10, ResNet-56, test rows", CIFAR, torch.from_numpy(stored["resnet56_test"]), labels
    yield "CIFAR-10, ResNet-20, test rows", "", torch.from_numpy(stored["resnet20_test"]), labels
    for run, (name, known) in RUNS.items():
        if (runs / run / "targets/store.json").exists():
            yield name, known, torch.from_numpy(TargetStore.open(runs / run / "targets").all_logits()), None
    for classes in (10, 100, 1000):
        logits = 0.02 * torch.randn(1000, classes, generator=torch.Generator().manual_seed(0))
        logits[torch.arange(1000), torch.arange(1000) % classes] += math.log(0.9 * classes / 0.1 + 1)
        yield f"label smoothing 0.1 at its optimum, {classes:,} classes", "1 (the literature)", logits, None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    first, second, third = [], [], []
    for name, known, logits, labels in teachers(options.runs):
        start = time.perf_counter()
        found = suggest(logits, labels)
        seconds = time.perf_counter() - start
        first.append(
            f"| {name} | {found.classes:,} | **{found.temperature:.2f}** | {found.low:.2f} … {found.high:.2f} |"
            f" {found.effective_classes:.2f} | {known} | {seconds:.2f} |"
        )
        rows = logits.double()
        most = math.log(found.classes)
        soft = [effective_classes(rows, t).mean() for t in TEMPERATURES]
        shares = [entropy(rows, t).mean() / most for t in TEMPERATURES]
        second.append(
            f"| {name} | " + " | ".join(f"{n:.2f} ({s:.0%})" for n, s in zip(soft, shares, strict=True)) + " |"
        )
        rules = [soften_mean(rows, "entropy", share * most) for share in (1 / 6, 1 / 5, 1 / 4, 1 / 3)]
        rules += [soften_mean(rows, "other_mass", mass) for mass in (0.1, 0.2) if found.classes > 2]
        cells = [f"{t:.2f}" for t in rules] + ["–"] * (6 - len(rules)) + [f"{float(spread(rows).mean()):.2f}"]
        cells.append("–" if found.calibration is None else f"{found.calibration.temperature:.2f}")
        third.append(f"| {name} | " + " | ".join(cells) + " |")
    write_atomic(options.out, PAGE.format(
        first="\n".join(first), second="\n".join(second), third="\n".join(third),
        temperatures=" | ".join(f"T = {t:g}" for t in TEMPERATURES),
        command="python benchmarks/prior.py " + " ".join(sys.argv[1:]),
    ))  # fmt: skip


PAGE = """# A temperature from logits alone

`setpoint suggest` looks at a teacher's logits and at nothing else. It proposes the T at which the mean entropy of the
targets is a quarter of the most there can be, log C. Beside it, what is known of each teacher's best T from students
that were trained ([methods](policies.md), [CoNLL-2003](conll2003.md), [SST-2](sst2.md)):

| teacher | C | suggested T | to search | effective classes there | best T known | seconds |
|---|---|---|---|---|---|---|
{first}

## How soft the targets are

Effective classes, mean over rows, and in brackets the mean entropy as a share of log C:

| teacher | {temperatures} |
|---|---|---|---|---|---|
{second}

## Why a quarter

The T that other rules would choose: by the share of the entropy, by the mean mass off the top class, the standard
deviation of a row's logits, and the T of calibration where there are labels of held-out rows:

| teacher | 1/6 | 1/5 | 1/4 | 1/3 | mass 0.1 | mass 0.2 | deviation | calibration |
|---|---|---|---|---|---|---|---|---|
{third}

- **Entropy and not T**: T = 4 leaves the CIFAR-10 teacher's targets at a third of the entropy there can be and drives
  those of Banking77 to nine tenths of it, where students lost 0.9 points.
- **A share of log C and not a number of classes**: three effective classes are much for 9 classes and little for 1000.
- **A quarter**: shares from 1/5 to 1/3 all lie within what CIFAR-10 cannot tell apart and near Banking77's best of the
  temperatures tried; a quarter lies between, and is about where language models are at T = 1 (2 to 3 nats for 50,000
  tokens, of 10.8), which is what they are usually distilled at. That, and ImageNet's T of 1 to 1.4, are the
  literature's and not measured here.
- **A sixth where the other classes are alike**: targets of a teacher trained with label smoothing 0.1 have 15 to 22 %
  of the entropy there can be at T = 1, which suits them best (Chandrasegaran et al. 2022, arXiv:2206.14532).
- **The range**: a factor of 4 to either side, but not to where targets have less than 2 % or more than 90 % of the
  entropy there can be; where the other classes are alike, a factor of 4 down and 1.5 up.

The constants were chosen with these same teachers in view, so the first table shows that one rule can fit them all, and
not how it will do on the next. Only Banking77 tells temperatures apart. CIFAR-10's best is half the suggestion and
SST-2's, with two classes, is four to seven times it and in part beyond the range, both within noise: with two classes
there is one number a row, and T only says how sure it is. CIFAR-100's T = 4 of the literature has not been tried. Use
the range.

Command: `{command}`
"""


if __name__ == "__main__":
    main()
