"""Softness is the setpoint: two teachers that say the same, one ten times as loudly, and what a student hears of them.

A fixed T = 4 gives the student another lesson from each; the policy ``Softness`` finds each teacher's own T for every
example, and the lesson is the same. Runs offline in a few seconds.
"""

from __future__ import annotations

import torch

from setpoint import Constant, DistillationObjective, Softness, effective_classes


def main() -> None:
    torch.manual_seed(0)
    quiet = torch.randn(200, 10)
    student = torch.randn(200, 10, requires_grad=True)
    print(f"{'policy':40} {'teacher':>8} {'T':>7} {'effective classes':>18} {'loss':>7}")
    for policy in (Constant(4.0), Softness(effective_classes=3.0)):
        objective = DistillationObjective(policy, alpha=1.0)
        for name, teacher in (("quiet", quiet), ("loud", 10 * quiet)):
            loss = objective(student_logits=student, teacher_logits=teacher)
            t = loss.temperatures.teacher
            soft = effective_classes(teacher, t).mean()
            print(
                f"{policy!r:40} {name:>8} {float(t.mean()):7.2f} {float(soft):18.2f} {float(loss.total.detach()):7.2f}"
            )


if __name__ == "__main__":
    main()
