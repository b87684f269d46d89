"""Policies that watch the training and follow it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from setpoint.errors import TemperatureError
from setpoint.maths.divergences import forward_kl, soft_cross_entropy
from setpoint.maths.tempering import check_temperature, log_temper
from setpoint.temperature.base import TemperaturePolicy, balanced, bounded, check_within, mixed, needed, number
from setpoint.temperature.per_row import label_loss
from setpoint.types import Temperatures


class LossGap(TemperaturePolicy):
    """DTS: a cosine from T down, held up while the student's loss is far above the teacher's; a running mean of it.

    With g = CE_teacher − CE_student over the rows with a label, a = g/(g + 1), and factor a where 1 < a ≤ 2, 1.35 where
    a > 2, else 1: T* = T·½(1 + cos(π·progress))·factor, kept within [lowest, highest], and T ← 0.9 T + 0.1 T*, at each
    call in training mode. The factor differs from 1 only where the student's loss is above the teacher's by more than
    1.

    Args:
        temperature: T at the start.
        lowest: the lowest temperature.
        highest: the highest.

    Source: the code of its author's precursor (Sibgat-Ul/DATS_enhanced); the paper's own (arXiv:2511.13767) is not
    public, so the formula there may differ.

    Examples:
        >>> policy, z = LossGap(4.0), torch.zeros(1, 2)
        >>> [round(float(policy(z, z, torch.tensor([0]), p).teacher), 2) for p in (0.0, 1.0, 1.0)]
        [4.0, 3.8, 3.62]
    """

    current: Tensor

    def __init__(self, temperature: float = 4.0, lowest: float = 2.0, highest: float = 4.0) -> None:
        super().__init__()
        self.temperature = float(check_temperature(temperature))
        self.lowest, self.highest = (
            float(check_temperature(x, name)) for x, name in ((lowest, "lowest"), (highest, "highest"))
        )
        if lowest > highest:
            raise TemperatureError(f"lowest is {lowest} and highest {highest}", "give lowest at most as high")
        self.register_buffer("current", torch.tensor(min(max(self.temperature, self.lowest), self.highest)))

    @torch.no_grad()
    def forward(
        self, teacher_logits: Tensor, student_logits: Tensor, labels: Tensor | None = None, progress: float = 0.0
    ) -> Temperatures:
        """The running temperature, for every row."""
        given = needed(labels, self)
        if self.training and bool((given >= 0).any()):
            counts = (given >= 0).sum()
            teacher, student = (label_loss(x, given).sum() / counts for x in (teacher_logits, student_logits))
            even = 0.5 * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))
            wanted = self.temperature * even * _gap_factor(float(teacher - student))
            wanted = min(max(wanted, self.lowest), self.highest)
            self.current.mul_(0.9).add_(0.1 * wanted)
        now = self.current.to(student_logits.device, number(1.0, student_logits).dtype)
        return balanced(now.clone(), now.clone(), student_logits)

    def extra_repr(self) -> str:
        """The numbers, for ``repr``."""
        return f"{self.temperature:g}, lowest={self.lowest:g}, highest={self.highest:g}"


def _gap_factor(gap: float) -> float:
    if gap == -1.0:
        return 1.35  # the limit from below, and the larger of the two
    share = gap / (gap + 1)
    return 1.35 if share > 2 else share if share > 1 else 1.0


class Interpolation(TemperaturePolicy):
    """TAID: targets softmax((1 − t)·z + t·v), z the student's own logits, detached; t rises to 1 as the loss falls.

    With J the loss of this call, δ = (J_before − J)/J_before and m its running mean: t ← min(1, max(t_linear,
    t + rate·σ(m)(1 − t))) where t_linear goes evenly from ``start`` to 1 over the training. T = 1.

    Args:
        start: t at the start.
        rate: how fast t may run ahead of t_linear.
        momentum: of the running mean.

    Source: Shing et al. 2025 (ICLR), arXiv:2501.16937, and its code.

    Examples:
        >>> policy, z = Interpolation(start=0.4), torch.tensor([[0.0, 1.0]])
        >>> round(float(policy(z, z, progress=0.5).teacher_share), 4)
        0.7
    """

    share: Tensor
    mean: Tensor
    before: Tensor

    def __init__(self, start: float = 0.4, rate: float = 5e-4, momentum: float = 0.99) -> None:
        super().__init__()
        self.start = check_within(start, "start", 0.0, 1.0)
        self.rate, self.momentum = check_within(rate, "rate", 0.0, 1.0), check_within(momentum, "momentum", 0.0, 1.0)
        self.register_buffer("share", torch.tensor(float(start)))
        self.register_buffer("mean", torch.tensor(0.0))
        self.register_buffer("before", torch.tensor(math.inf))

    @torch.no_grad()
    def forward(
        self, teacher_logits: Tensor, student_logits: Tensor, labels: Tensor | None = None, progress: float = 0.0
    ) -> Temperatures:
        """Temperatures of 1, and the teacher's share."""
        one = number(1.0, student_logits)
        even = self.start + (1 - self.start) * min(max(progress, 0.0), 1.0)
        share = min(1.0, max(even, float(self.share)))
        if self.training and student_logits.numel():
            target = mixed(student_logits, teacher_logits, share)
            loss = soft_cross_entropy(log_temper(student_logits, 1.0), log_temper(target, 1.0)).mean().cpu()
            if bool(torch.isfinite(self.before)):
                delta = (self.before - loss) / (self.before + 1e-15)
                self.mean.mul_(self.momentum).add_((1 - self.momentum) * delta)
                share_after = share + self.rate * float(torch.sigmoid(self.mean)) * (1 - share)
                self.share.fill_(share_after)
            self.before.copy_(loss)
        return Temperatures(teacher=one, student=one, scale=one, teacher_share=number(share, student_logits))

    def extra_repr(self) -> str:
        """The numbers, for ``repr``."""
        return f"start={self.start:g}, rate={self.rate:g}, momentum={self.momentum:g}"


class TokenAdaptive(TemperaturePolicy):
    """AdaKD: of the hardest rows alone, each at its own temperature, lower where teacher and student differ more.

    Difficulty is the Hellinger distance s at T = 1. The hardest share r of the rows is kept (scale 0 elsewhere, and the
    mean is over those kept), with T = τ·exp(−strength·tanh(log(s/median s))) and scale T²; all detached. r starts at 1,
    shrinks by δ whenever the running mean of the loss is ε below its reference, grows by δ when it is ε above, and the
    reference is then set anew; it is not touched in the first ``warmup`` of the training. Divergence: ``reverse_kl``.

    Args:
        temperature: τ.
        strength: c.
        tolerance: ε and δ.
        warmup: the share of the training in which all rows are kept.

    Source: Xie et al. 2025 (AAAI 2026), arXiv:2510.11615, and its code; which takes the median over the rows kept, as
    here, but forgets to detach T, where the paper does.

    Examples:
        >>> v, z = torch.tensor([[2.0, 0.0], [2.0, 0.0]]), torch.tensor([[2.0, 0.1], [0.0, 2.0]])
        >>> [bool(t < 1) for t in TokenAdaptive()(v, z).teacher]
        [False, True]
    """

    divergence = "reverse_kl"
    share: Tensor
    mean: Tensor
    reference: Tensor

    def __init__(
        self, temperature: float = 1.0, strength: float = 0.5, tolerance: float = 0.05, warmup: float = 0.05
    ) -> None:
        super().__init__()
        self.temperature = float(check_temperature(temperature))
        self.strength = check_within(strength, "strength", 0.0, 100.0)
        self.tolerance = check_within(tolerance, "tolerance", 0.0, 0.99)
        self.warmup = check_within(warmup, "warmup", 0.0, 1.0)
        self.register_buffer("share", torch.tensor(1.0))
        self.register_buffer("mean", torch.tensor(math.nan))
        self.register_buffer("reference", torch.tensor(math.nan))

    @torch.no_grad()
    def forward(
        self, teacher_logits: Tensor, student_logits: Tensor, labels: Tensor | None = None, progress: float = 0.0
    ) -> Temperatures:
        """The temperatures of these rows, ``[..., 1]``, and a scale of 0 for those that are left out."""
        log_p, log_q = (log_temper(x, 1.0) for x in (teacher_logits, student_logits))
        difficulty = ((log_p / 2).exp() - (log_q / 2).exp()).norm(dim=-1) / math.sqrt(2)
        flat = difficulty.reshape(-1)
        if flat.numel() == 0:
            return balanced(self.temperature, self.temperature, student_logits)
        count = max(
            1,
            int(float(self.share) * flat.numel() + 1e-5),  # the share is kept in float32
        )
        kept = torch.zeros_like(flat, dtype=torch.bool)
        kept[flat.topk(count).indices] = True
        median = flat[kept].median().clamp(min=1e-8)
        relative = torch.tanh((difficulty / median).clamp(min=1e-8).log())
        rows = bounded(self.temperature * torch.exp(-self.strength * relative)).unsqueeze(-1)
        chosen = balanced(rows, rows, student_logits)
        scale = chosen.scale * kept.reshape(difficulty.shape) * (flat.numel() / count)
        if self.training:
            loss = scale * forward_kl(log_temper(teacher_logits, rows), log_temper(student_logits, rows))
            self._follow(float(loss.mean()), progress)
        return Temperatures(chosen.teacher, chosen.student, scale)

    def _follow(self, loss: float, progress: float) -> None:
        if not math.isfinite(loss):
            return
        self.mean.fill_(loss if bool(self.mean.isnan()) else 0.99 * float(self.mean) + 0.01 * loss)
        if progress <= self.warmup:
            return
        mean, reference, share = float(self.mean), float(self.reference), float(self.share)
        if math.isnan(reference):
            self.reference.copy_(self.mean)
        elif mean > reference * (1 + self.tolerance):
            self.share.fill_(min(1.0, share * (1 + self.tolerance)))
            self.reference.copy_(self.mean)
        elif mean < reference * (1 - self.tolerance):
            self.share.fill_(max(0.1, share * (1 - self.tolerance)))
            self.reference.copy_(self.mean)

    def extra_repr(self) -> str:
        """The numbers, for ``repr``."""
        return f"{self.temperature:g}, strength={self.strength:g}, tolerance={self.tolerance:g}, warmup={self.warmup:g}"
