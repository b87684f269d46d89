"""The invariance table of the documentation, measured: what each policy's loss does and does not depend on.

Where a policy changes on purpose, write the page anew with ``python tests/temperature/test_invariance.py``.
"""

from pathlib import Path

import torch

from setpoint import DistillationObjective
from setpoint.temperature import POLICIES

PAGE = Path(__file__).parents[2] / "docs/invariance.md"
GIVEN = {
    "constant": {"temperature": 4.0}, "linear": {"start": 8.0, "end": 2.0}, "cosine": {"start": 8.0, "end": 2.0},
    "exponential": {"start": 8.0, "end": 2.0}, "step": {"steps": {0.0: 4.0}}, "softness": {"effective_classes": 2.5},
    "ctkd_instance": {"classes": 6}, "dtkd": {"warmup": 0.0},
}  # fmt: skip
KNOB = {
    "constant": "temperature", "lskd": "temperature", "normkd": "temperature", "spherical": "temperature",
    "dtkd": "temperature", "ttm": "temperature", "wttm": "temperature", "flsw": "temperature", "cwsm": "temperature",
    "wsld": "temperature", "adakd": "temperature",
}  # fmt: skip
"""The policies that have one temperature to turn all the way."""


def batch():
    generator = torch.Generator().manual_seed(15)
    z, v = (2 * torch.randn(12, 6, dtype=torch.float64, generator=generator) for _ in range(2))
    return z, v, torch.randint(0, 6, (12,), generator=generator)


def loss_of(name, z, v, labels, **changes):
    """The divergence alone, α = 1 whatever the policy; in eval mode, so that each call starts from the same state."""
    policy = POLICIES[name](**(GIVEN.get(name, {}) | changes))
    objective = DistillationObjective(policy, alpha=1.0).eval()
    z = z.clone().requires_grad_()
    result = objective(student_logits=z, teacher_logits=v, labels=labels, progress=0.5)
    (gradient,) = torch.autograd.grad(result.terms["divergence"] * 0 + result.total, z)
    return float(result.terms["divergence"]), gradient, result.temperatures


def same(a, b):
    return torch.allclose(a, b, rtol=1e-4, atol=1e-7)


def shift_invariant(name):
    z, v, y = batch()
    return same(loss_of(name, z, v, y)[1], loss_of(name, z + 3, v - 5, y)[1])


def scale_invariant(name):
    """Whether ten times larger logits, of both, leave the targets as soft as they were."""
    z, v, y = batch()
    (_, _, one), (_, _, ten) = loss_of(name, z, v, y), loss_of(name, 10 * z, 10 * v, y)
    if one.teacher_share is not None:
        return False
    return same((v / one.teacher).softmax(-1), (10 * v / ten.teacher).softmax(-1))


def zero_at_the_teacher(name):
    _, v, y = batch()
    value, gradient, _ = loss_of(name, v + 2, v, y)
    if abs(value) < 1e-9 and float(gradient.abs().max()) < 1e-9:
        return True
    return None if same(gradient, torch.zeros_like(gradient)) else False


def reaches_the_temperature(name):
    """Through what the loss's gradient reaches T: the student's logits, learned parameters, or nothing."""
    z, v, y = batch()
    policy = POLICIES[name](**GIVEN.get(name, {}))
    z.requires_grad_()
    temperatures = policy(v, z, y, 0.5)
    ways = []
    used = [t for t in (temperatures.teacher, temperatures.student, temperatures.scale) if t.requires_grad]
    if used:
        total = sum(t.sum() for t in used)
        inputs = [z, *policy.parameters()]
        found = torch.autograd.grad(total, inputs, allow_unused=True)
        ways += ["the student's logits"] if found[0] is not None and bool(found[0].abs().sum() > 0) else []
        ways += ["learned, reversed"] if any(g is not None for g in found[1:]) else []
    return ", ".join(ways) or "no"


def direction(a, b):
    return float((a * b).sum() / (a.norm() * b.norm()))


def high_limit(name):
    """What the gradient tends to as T grows: of the candidates, the one it points along."""
    if name not in KNOB:
        return ""
    z, v, y = batch()
    _, gradient, temperatures = loss_of(name, z, v, y, **{KNOB[name]: 2000.0})
    centred_z, centred_v = z - z.mean(-1, keepdim=True), v - v.mean(-1, keepdim=True)
    unit_z, unit_v = (x / x.std(-1, keepdim=True) for x in (centred_z, centred_v))
    tangent = (unit_z - unit_v) - unit_z * ((unit_z - unit_v) * unit_z).mean(-1, keepdim=True) * 6 / 5
    scale = temperatures.scale.detach()
    rows = scale.unsqueeze(-1) if scale.ndim else scale
    if rows.ndim > 2:  # several terms: their sum
        rows = torch.ones(12, 1, dtype=z.dtype)
    shrunk = (temperatures.teacher * temperatures.student).detach()
    spread = z.std(-1, keepdim=True)
    candidates = {
        "matching centred logits": (rows if shrunk.ndim > 2 else rows / shrunk) * (centred_z - centred_v),
        "matching standardised logits": rows * tangent / spread,
        "matching a uniform target": rows * (z.softmax(-1) - 1 / 6),
    }
    best = max(candidates, key=lambda key: direction(gradient, candidates[key]))
    return best if direction(gradient, candidates[best]) > 0.99 else "none of these"


def low_limit(name):
    """What the targets tend to as T goes to 0."""
    if name not in KNOB:
        return ""
    z, v, y = batch()
    lowest = {"lowest": 0.001} if name in ("flsw", "cwsm") else {}
    _, _, temperatures = loss_of(name, z, v, y, **{KNOB[name]: 0.001}, **lowest)
    target = (v / temperatures.teacher).softmax(-1)
    sharp = torch.nn.functional.one_hot(v.argmax(-1), 6).to(v.dtype).expand_as(target)
    return (
        "the teacher's top class"
        if float((target - sharp).detach().abs().max()) < 1e-3
        else "not reached: difficulty holds T up"
    )


def table():
    rows = []
    for name in POLICIES:
        zero = {True: "yes", None: "gradient only", False: "no"}[zero_at_the_teacher(name)]
        cells = [
            f"`{name}`", "yes" if shift_invariant(name) else "no", "yes" if scale_invariant(name) else "no", zero,
            reaches_the_temperature(name), high_limit(name), low_limit(name),
        ]  # fmt: skip
        rows.append("| " + " | ".join(cells) + " |")
    return rows


HEAD = """# What each policy depends on

Measured by `tests/temperature/test_invariance.py` on random logits in float64, α = 1, each policy with the divergence
of its source; the test fails where this page does not say what it finds.

- **shift**: adding a constant to a row of either side's logits changes nothing.
- **scale**: ten times larger logits, on both sides, have targets that are as soft.
- **zero**: value and gradient vanish where the student equals its teacher up to a shift.
- **gradient to T**: what the loss moves by moving T: the student's logits (T is a function of them), or parameters.
- **T → ∞, T → 0**: what the gradient, and the targets, tend to as the policy's own temperature is turned; "none of
  these" where the gradient points along no simple limit, as T itself moves with the logits.

| policy | shift | scale | zero | gradient to T | T → ∞ | T → 0 |
|---|---|---|---|---|---|---|
"""


def page():
    return HEAD + "\n".join(table()) + "\n"


def test_the_page_says_what_is_measured():
    assert PAGE.read_text() == page()


def test_the_claims_of_the_specification_hold():
    """Section 9: shift invariance must hold for these; for ats and dtkd it does because their logits are centred."""
    for name in ("constant", "lskd", "normkd", "ttm", "wttm", "ats", "dtkd", "flsw", "spherical"):
        assert shift_invariant(name), name
    for name in ("lskd", "normkd", "softness", "dtkd"):
        assert scale_invariant(name) is (name != "dtkd"), name


if __name__ == "__main__":
    PAGE.write_text(page())
