"""Temperatures chosen by an agent that is rewarded where the student gets better: reinforcement learning by PPO."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from setpoint.maths.tempering import check_temperature, temper
from setpoint.temperature.base import TemperaturePolicy, balanced, bounded, check_within, needed, number
from setpoint.types import Temperatures

ROWS = 64
"""The most rows of a batch that are remembered, evenly spaced: as all share one reward, more tell little."""
DISCOUNT, TRACE = 0.99, 0.95
"""γ and λ of the generalised advantage estimate."""
CLIP, MOST_NORM = 0.2, 2.0
"""How far the ratio of probabilities counts from 1, and the norm each network's gradient is clipped to."""
EPOCHS, MINIBATCH = 5, 64
ACTOR_RATE, CRITIC_RATE = 1e-4, 1e-3
LOG_DEVIATION = -0.5
"""log σ at the start; kept within [−5, 1] after each update, so that no action overflows."""


class InstanceTemperature(TemperaturePolicy):
    """ITKD: T of each row from an agent that is rewarded with the rise of the student's accuracy; learnt by PPO.

    The agent sees, of each row, the student's top probability, the teacher's, and the student's margin, top-1 minus
    top-2, all at T = 1 and detached. In training mode its action is a ~ N(μ, σ), in eval mode μ; μ is the tanh of a
    network with two hidden layers of 256 units, σ one parameter; T = highest·sigmoid(a), clamped at 0.001 from below.
    The reward of a batch is the accuracy on the next batch, which the student sees after the step that took these
    temperatures, minus the accuracy on this one. After every ``every`` batches, actor and critic are trained for five
    epochs on what is remembered of them (all rows, or 64 evenly spaced ones), and the memory is emptied. An update
    takes up to about a second of a CPU core.

    The actor and the critic are trained here, not by the student's optimiser: their ``requires_grad`` is off. The
    state is the whole agent, so that a resumed training goes on alike. Random numbers are PyTorch's own. A batch is
    one call, so with accumulated gradients a micro-batch. Rows without a label get a temperature and are no part of
    the accuracy; a batch without any label, or any row, is not remembered. Of several processes, each has an agent of
    its own, and the checkpoint holds the first one's.

    Args:
        highest: the upper bound of T.
        warmup: the share of the training at ``start``, before the agent acts; the paper's 20 of 240 epochs.
        start: T in that time.
        every: how many batches the agent acts on between two updates.

    Raises:
        TemperatureError: a temperature that is not finite and above 0, or a share or number outside its range.
        TargetError: at a call without labels.

    Source: Zhang et al. 2024, arXiv:2407.00115, and its code (Zhengbo-Zhang/ITKD). The code takes the second-smallest
    probability for the margin, the density of the squashed action, and a reward one step too early; here as the paper
    means them. It updates the agent once in 20 epochs, and multiplies the reward by a number that depends on the epoch
    alone, which normalised advantages all but forget; not here. Its ``alpha`` is 0.9.

    Examples:
        >>> z, y = torch.tensor([[2.0, 0.0, 1.0], [0.0, 0.0, 0.0]]), torch.tensor([0, 1])
        >>> policy = InstanceTemperature().eval()
        >>> policy(z, z, y, progress=0.0).teacher
        tensor(4.)
        >>> policy(z, z, y, progress=0.5).teacher.shape
        torch.Size([2, 1])
    """

    states: Tensor
    actions: Tensor
    rewards: Tensor
    rows: Tensor
    batches: Tensor
    accuracy: Tensor
    first_moments: Tensor
    second_moments: Tensor
    steps: Tensor

    def __init__(self, highest: float = 10.0, warmup: float = 20 / 240, start: float = 4.0, every: int = 20) -> None:
        super().__init__()
        self.highest = float(check_temperature(highest, "highest"))
        self.warmup = check_within(warmup, "warmup", 0.0, 1.0)
        self.start = float(check_temperature(start, "start"))
        self.every = int(check_within(float(every), "every", 1.0, 10_000.0))
        # The same start for every seed of the student, without a draw from its random numbers.
        generator = torch.Generator().manual_seed(0)
        self.actor, self.critic = _network(generator), _network(generator)
        self.log_deviation = nn.Parameter(torch.tensor(LOG_DEVIATION))
        self.requires_grad_(False)
        count = sum(parameter.numel() for parameter in self.parameters())
        self.register_buffer("first_moments", torch.zeros(count))
        self.register_buffer("second_moments", torch.zeros(count))
        self.register_buffer("steps", torch.tensor(0))  # of Adam
        self.register_buffer("states", torch.zeros(self.every, ROWS, 3))
        self.register_buffer("actions", torch.zeros(self.every, ROWS))
        self.register_buffer("rewards", torch.zeros(self.every))
        self.register_buffer("rows", torch.zeros(self.every, dtype=torch.int64))
        self.register_buffer("batches", torch.tensor(0))  # in memory, the last of them still without its reward
        self.register_buffer("accuracy", torch.tensor(0.0))  # of that last one

    @torch.no_grad()
    def forward(
        self, teacher_logits: Tensor, student_logits: Tensor, labels: Tensor | None = None, progress: float = 0.0
    ) -> Temperatures:
        """The temperatures of these rows, ``[..., 1]``; one number during the warm-up."""
        given = needed(labels, self)
        if progress < self.warmup:
            return balanced(self.start, self.start, student_logits)
        # Not in half precision, whatever the student is trained in.
        with torch.autocast(student_logits.device.type, enabled=False):
            states = observed(teacher_logits, student_logits).to(self.states).reshape(-1, 3)
            labelled = self.training and bool((given >= 0).any())
            if labelled:
                self._reward(states, self._accuracy(student_logits, given).to(self.accuracy))
            actions = self._mean(states)
            if self.training:
                actions = actions + self.log_deviation.exp() * torch.randn_like(actions)
            if labelled:
                self._remember(states, actions)
        chosen = (self.highest * torch.sigmoid(actions)).to(number(0.0, student_logits))
        rows = bounded(chosen).reshape(*student_logits.shape[:-1], 1)
        return balanced(rows, rows, student_logits)

    @staticmethod
    def _accuracy(logits: Tensor, labels: Tensor) -> Tensor:
        """The share of the labelled rows whose top class is the label."""
        return (logits.argmax(-1) == labels).sum() / (labels >= 0).sum()

    def _mean(self, states: Tensor) -> Tensor:
        return torch.tanh(self.actor(states).squeeze(-1))

    def _log_probs(self, states: Tensor, actions: Tensor) -> Tensor:
        return log_density(actions, self._mean(states), self.log_deviation)

    def _reward(self, states: Tensor, accuracy: Tensor) -> None:
        """Reward the last batch in memory by what came of it, and learn where the memory is full."""
        batches = int(self.batches)
        if batches:
            self.rewards[batches - 1] = accuracy - self.accuracy
        if batches == self.every:
            self._learn(states[_evenly(len(states))])
            self.batches.zero_()
        self.accuracy.copy_(accuracy)

    def _remember(self, states: Tensor, actions: Tensor) -> None:
        batch, kept = int(self.batches), _evenly(len(states))
        self.states[batch, : len(kept)] = states[kept]
        self.actions[batch, : len(kept)] = actions[kept]
        self.rows[batch] = len(kept)
        self.batches += 1

    def _learn(self, following: Tensor) -> None:
        """PPO on the batches in memory; ``following`` are the states ``[R, 3]`` of the batch after them.

        The networks have not changed since these batches, so values and densities are computed here, not remembered.
        """
        present = torch.arange(ROWS, device=self.rows.device) < self.rows.unsqueeze(-1)
        values = self.critic(self.states).squeeze(-1)
        gains = advantages(values, self.rewards, present, self.critic(following).mean())
        states, actions, returns, gains = (x[present] for x in (self.states, self.actions, gains + values, gains))
        gains = (gains - gains.mean()) / (gains.std(correction=0) + 1e-8)
        before = self._log_probs(states, actions)
        adam = self._adam()
        self.requires_grad_(True)
        try:
            for _ in range(EPOCHS):
                for some in torch.split(torch.randperm(len(states)).to(states.device), MINIBATCH):
                    adam.zero_grad()
                    with torch.enable_grad():
                        log_probs, value = self._log_probs(states[some], actions[some]), self.critic(states[some])
                        loss = clipped(log_probs - before[some], gains[some])
                        # The two share no parameter, so this trains each on its own.
                        torch.autograd.backward(loss + functional.mse_loss(value.squeeze(-1), returns[some]))
                    for group in adam.param_groups:
                        nn.utils.clip_grad_norm_(group["params"], MOST_NORM)
                    adam.step()
                    self.log_deviation.clamp_(-5.0, 1.0)
                    self.steps += 1
        finally:
            # No gradient is left for the student's optimiser to find.
            adam.zero_grad()
            self.requires_grad_(False)

    def _adam(self) -> torch.optim.Adam:
        """Adam as it was left: its moments are buffers, which a checkpoint keeps and a change of device moves."""
        actor = {"params": [*self.actor.parameters(), self.log_deviation], "lr": ACTOR_RATE}
        adam = torch.optim.Adam([actor, {"params": list(self.critic.parameters()), "lr": CRITIC_RATE}])
        sizes = [parameter.numel() for parameter in self.parameters()]
        moments = (torch.split(self.first_moments, sizes), torch.split(self.second_moments, sizes))
        for parameter, first, second in zip(self.parameters(), *moments, strict=True):
            means = {"exp_avg": first.view_as(parameter), "exp_avg_sq": second.view_as(parameter)}
            adam.state[parameter] = {"step": self.steps.float().cpu(), **means}
        return adam

    def extra_repr(self) -> str:
        """The numbers, for ``repr``."""
        return f"highest={self.highest:g}, warmup={self.warmup:g}, start={self.start:g}, every={self.every}"


def observed(teacher_logits: Float[Tensor, "*rows C"], student_logits: Float[Tensor, "*rows C"]) -> Tensor:
    """What the agent sees of each row, ``[..., 3]``: the student's top probability, the teacher's, and the margin."""
    student, teacher = temper(student_logits, 1.0), temper(teacher_logits, 1.0)
    top = student.topk(min(2, student.shape[-1]), dim=-1).values
    margin = top[..., 0] - top[..., 1] if top.shape[-1] > 1 else top[..., 0]
    return torch.nan_to_num(torch.stack([top[..., 0], teacher.amax(-1).to(margin), margin], dim=-1))


def log_density(actions: Float[Tensor, " n"], mean: Float[Tensor, " n"], log_deviation: Float[Tensor, ""]) -> Tensor:
    """Log N(a; μ, σ) of each action, ``[n]``."""
    return -0.5 * ((actions - mean) / log_deviation.exp()) ** 2 - log_deviation - 0.5 * math.log(2 * math.pi)


def advantages(
    values: Float[Tensor, "batches rows"],
    rewards: Float[Tensor, " batches"],
    present: Bool[Tensor, "batches rows"],
    following: Float[Tensor, ""],
) -> Float[Tensor, "batches rows"]:
    """The generalised advantage estimate: rewards come by batch, baselines by row.

    δ of row i in batch t is r_t + γ·V̄(t + 1) − V(t, i), and its advantage δ + γλ·Ā(t + 1), means over the rows present
    (the others' advantages mean nothing); ``following`` is the mean V of the batch after the last.
    """
    mean = (values * present).sum(-1) / present.sum(-1)
    deltas = (rewards + DISCOUNT * torch.cat([mean[1:], following.reshape(1)])).unsqueeze(-1) - values
    found, ahead = torch.empty_like(deltas), torch.zeros_like(following)
    for batch in reversed(range(len(deltas))):
        found[batch] = deltas[batch] + DISCOUNT * TRACE * ahead
        ahead = (found[batch] * present[batch]).sum() / present[batch].sum()
    return found


def clipped(log_ratios: Float[Tensor, " n"], gains: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """PPO's loss: −mean(min(ratio·A, clip(ratio)·A)); log ratios beyond ±20 count as that, lest they overflow."""
    ratio = log_ratios.clamp(-20.0, 20.0).exp()
    return -torch.minimum(ratio * gains, ratio.clamp(1 - CLIP, 1 + CLIP) * gains).mean()


def _evenly(count: int) -> Int[Tensor, " kept"]:
    kept = min(count, ROWS)
    return torch.arange(kept) * count // max(kept, 1)


def _network(generator: torch.Generator) -> nn.Sequential:
    """3 → 256 → 256 → 1 with ReLU, at PyTorch's usual start."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 256), (256, 256), (256, 1)):
        linear = nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")
        bound = 1 / math.sqrt(inputs)
        for parameter in linear.parameters():
            nn.init.uniform_(parameter, -bound, bound, generator=generator)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])
