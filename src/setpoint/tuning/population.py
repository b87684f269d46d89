"""Many students trained on the same batches at once, each with its own objective, by ``vmap`` where that helps.

Only forward and backward differ between ``vmap`` and one by one. Clipping, optimiser, schedule, dropping students and
saving are the same for both, on stacked weights ``[K, ...]``: Adam and its kin work element by element, so that one
optimiser over the stack is exactly K optimisers.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments, get_scheduler

from setpoint.errors import LossError, ModelError, RecipeError, RunError, SetpointWarning
from setpoint.files import read_json, write_atomic, write_json
from setpoint.objective import DistillationObjective
from setpoint.tuning.stack import Stack
from setpoint.tuning.trial import choose, random_state, reason, set_random_state
from setpoint.types import valid_rows

ELEMENTWISE = ("adamw_torch", "adamw_torch_fused", "sgd", "rmsprop", "adagrad")
"""The Trainer's optimisers that treat each weight by itself, so that they may be run over a stack."""

Mode = Literal["auto", "vmap", "one by one"]

_FILE = "population.json"


class Population:
    """K students of one architecture, one optimisation step of all of them at a time.

    Each student ends where a ``DistillationTrainer`` of its own would end on the same batches, up to rounding (and to
    dropout, which is another for each student). The models given are copied; what is frozen and alike exists once.

    Args:
        models: K ≥ 1 of the same architecture, with the same or with other weights; the same model K times will do.
        objectives: one for each student; each keeps the state of its own policy.
        arguments: gives optimiser (one of ``ELEMENTWISE``), rate, decay, schedule, clipping (for each student by
            itself) and bf16. What concerns data, logging or the machine is not read.
        max_steps: the steps of the whole training, for the schedule and the policies' progress.
        sample: a batch as for ``step``, on which vmap is tried out. Nothing is learnt from it.
        mode: ``auto`` takes vmap where it works, gives the same logits and is quicker on the sample; ``vmap`` does not
            ask whether it is quicker.

    Attributes:
        how: which of the two was taken, ``vmap …`` or ``one by one …``, and why.
        members: for each student that is left its place among the models given.
        lost: by place among the models given, why a student was given up: its loss was no finite number.
        steps: steps done.

    Raises:
        ModelError: the models are not of one architecture, or not as many as objectives.
        RecipeError: an optimiser, schedule or precision that a population cannot have.

    Examples:
        >>> import tempfile
        >>> batch = {"input": torch.randn(8, 4), "labels": torch.arange(8) % 3}
        >>> objectives = [DistillationObjective(temperature=t) for t in (1.0, 2.0, 4.0)]
        >>> arguments = TrainingArguments(tempfile.mkdtemp(), report_to="none", use_cpu=True)
        >>> population = Population([nn.Linear(4, 3)] * 3, objectives, arguments, max_steps=10, sample=batch)
        >>> population.step(batch, torch.randn(8, 3)).shape, population.logits(batch).shape
        (torch.Size([3]), torch.Size([3, 8, 3]))
        >>> population.keep([0, 2])
        >>> population.members
        [0, 2]
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        objectives: Sequence[DistillationObjective],
        arguments: TrainingArguments,
        max_steps: int,
        *,
        sample: Mapping[str, Any],
        mode: Mode = "auto",
    ) -> None:
        if not 0 < len(models) == len(objectives):
            raise ModelError(f"there are {len(models)} models for {len(objectives)} objectives", "give one for each")
        check_arguments(arguments)
        self._stack = Stack(models, bf16=arguments.bf16)
        self.objectives = [objective.to(self._stack.device) for objective in objectives]
        self.arguments, self.max_steps, self.steps = arguments, max_steps, 0
        self.members = list(range(len(models)))
        self.lost: dict[int, LossError] = {}
        optimiser, settings = Trainer.get_optimizer_cls_and_kwargs(arguments, self._stack.students[0])
        if arguments.optim == "adamw_torch":  # the same sums in one pass: a stack is too large to pass over ten times
            settings = settings | {"fused": True}
        self.optimizer: torch.optim.Optimizer = optimiser(self._groups(), **settings)
        self.scheduler: Any = get_scheduler(
            arguments.lr_scheduler_type,
            optimizer=self.optimizer,
            num_warmup_steps=arguments.get_warmup_steps(max_steps),
            num_training_steps=max_steps,
            scheduler_specific_kwargs=arguments.lr_scheduler_kwargs,
        )
        self.how = choose(self._stack, _inputs(self._moved(sample)), mode)
        self._lay_out()

    # ------------------------------------------------------------------------------------------------ training

    def step(self, batch: Mapping[str, Any], teacher_logits: Tensor | None = None) -> Tensor:
        """One optimisation step of every student.

        Args:
            batch: model inputs and ``labels``, -100 where there is no row; one batch for all students.
            teacher_logits: ``[R, C]``, a row for each valid row of the batch; None where no objective needs a teacher.

        Returns:
            The losses ``[K]`` in nats, detached. A student whose loss is no finite number has NaN from then on and is
            in ``lost``; the others go on.
        """
        batch = self._moved(batch)
        inputs, rows, labels = _inputs(batch), valid_rows(batch), batch["labels"]
        teacher_logits = None if teacher_logits is None else teacher_logits.to(self._stack.device)
        self._stack.train(True)
        together = self._batched(inputs)
        losses = []
        for i in range(len(self.members)):
            if self.members[i] not in self.lost:
                logits = self._stack.alone(i, inputs) if together is None else together[i]
                loss = self._loss(i, logits[rows], labels[rows], teacher_logits)
                if loss is not None and together is None:  # at once, so that only one student's graph is alive
                    loss.backward()
                losses.append(loss)
            else:
                losses.append(None)
        found = [loss for loss in losses if loss is not None]
        if together is None:
            self._stack.gather()
        elif found:
            torch.stack(found).sum().backward()
        self._update()
        self.steps += 1
        none = torch.full((), torch.nan, device=self._stack.device)
        return torch.stack([none if loss is None else loss.detach() for loss in losses])

    def _loss(self, i: int, logits: Tensor, labels: Tensor, teacher_logits: Tensor | None) -> Tensor | None:
        objective, member = self.objectives[i].train(), self.members[i]
        try:
            loss: Tensor = objective(
                student_logits=logits,
                teacher_logits=teacher_logits if objective.needs_teacher else None,
                labels=labels,
                progress=self.steps / max(self.max_steps, 1),
            ).total
            return loss
        except LossError as error:
            self.lost[member] = LossError(
                f"student {member} at step {self.steps}: {error.problem}", error.mend, error.row
            )
            return None

    def _update(self) -> None:
        """What the Trainer does between a backward and the next forward."""
        most = self.arguments.max_grad_norm
        if most is not None and most > 0:
            self._stack.clip(most)
            for objective in self.objectives:
                nn.utils.clip_grad_norm_([p for p in objective.parameters() if p.grad is not None], most)
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()

    @torch.no_grad()
    def logits(self, batch: Mapping[str, Any]) -> Tensor:
        """Every student's logits ``[K, R, C]`` in eval mode, a row for each valid row of the batch."""
        batch = self._moved(batch)
        self._stack.train(False)
        together = self._batched(_inputs(batch))
        if together is None:
            together = torch.stack([self._stack.alone(i, _inputs(batch)) for i in range(len(self.members))])
        return together[:, valid_rows(batch)]

    def keep(self, indices: Sequence[int]) -> None:
        """Go on with the students at these places among those that are left, and forget the others."""
        indices = [range(len(self.members))[i] for i in indices]  # an IndexError before anything is changed
        before = self._named()
        self._stack.keep(indices)
        self.objectives, self.members = [self.objectives[i] for i in indices], [self.members[i] for i in indices]
        after, state = self._named(), self.optimizer.state
        for group, new in zip(self.optimizer.param_groups, self._groups(), strict=True):
            group["params"] = new["params"]
        for name, old in before.items():
            values = state.pop(old, {})
            if name in self._stack.whole:  # what is no size of the weights counts steps, the same for all
                join = self._stack.join
                values = {
                    k: join(name, [v[i] for i in indices]) if isinstance(v, Tensor) and v.shape == old.shape else v
                    for k, v in values.items()
                }
            if values and name in after:
                state[after[name]] = values
        if len(indices) == 1 and self.how.startswith("vmap"):
            self.how = "one by one (a single student)"
            self._lay_out()

    @torch.no_grad()
    def copy(self, source: int, target: int) -> None:
        """Let a student go on from where another is: its weights, and what the optimiser keeps for them.

        The objective stays the target's own. A student that was lost is one again.
        """
        for whole in self._stack.whole.values():
            for tensor in (whole.detach(), *self.optimizer.state.get(whole, {}).values()):
                if isinstance(tensor, Tensor) and tensor.shape == whole.shape:
                    tensor[target] = tensor[source]
        self.lost.pop(self.members[target], None)

    def state_dict(self, i: int) -> dict[str, Tensor]:
        """The weights of the i-th of the students that are left, a copy."""
        weights = self._stack.students[i].state_dict()
        return {n: w.detach().clone(memory_format=torch.contiguous_format) for n, w in weights.items()}

    def _groups(self) -> list[dict[str, Any]]:
        """The optimiser's groups: weights that decay, weights that do not, and what the policies learn."""
        decays, whole = set(Trainer.get_decay_parameter_names(None, self._stack.students[0])), self._stack.whole
        return [
            {
                "params": [whole[n] for n in self._stack.trained if n in decays],
                "weight_decay": self.arguments.weight_decay,
            },
            {"params": [whole[n] for n in self._stack.trained if n not in decays], "weight_decay": 0.0},
            {"params": [p for o in self.objectives for p in o.parameters() if p.requires_grad], "weight_decay": 0.0},
        ]

    def _named(self) -> dict[str, Tensor]:
        """All that the optimiser moves, by name."""
        learned = {
            f"objective.{member}.{name}": parameter
            for member, objective in zip(self.members, self.objectives, strict=True)
            for name, parameter in objective.named_parameters()
            if parameter.requires_grad
        }
        return {name: self._stack.whole[name] for name in self._stack.trained} | learned

    # ------------------------------------------------------------------------------------------------ vmap or not

    def _batched(self, inputs: dict[str, Any]) -> Tensor | None:
        """All logits at once, or None: one by one is the way, or has become it since vmap cannot do this batch."""
        if not self.how.startswith("vmap"):
            return None
        try:
            return self._stack.batched(inputs)
        except Exception as error:  # one by one raises what is the batch's own fault
            self.how = f"one by one (from step {self.steps} on, {reason(error)})"
            self._lay_out()
            warnings.warn(f"the population goes on {self.how}", SetpointWarning, stacklevel=3)
            return None

    def _lay_out(self) -> None:
        """One by one, each student's weights lie together."""
        if not self.how.startswith("vmap"):
            self._stack.interleaved = False
            self.keep(range(len(self.members)))

    def _moved(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        return {n: v.to(self._stack.device) if isinstance(v, Tensor) else v for n, v in batch.items()}

    # ------------------------------------------------------------------------------------------------ on disk

    def save(self, folder: str | Path) -> None:
        """Write all that the training needs to go on; after a crash at any moment a whole state is there, old or new.

        The tensors go into a safetensors file of a new name, then a JSON file, replaced in one go, points to it.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        name = f"population-{time.time_ns()}.safetensors"
        write_atomic(folder / name, save({n: v.detach().cpu().contiguous() for n, v in self._everything().items()}))
        state = {"tensors": name, "steps": self.steps, "members": self.members, "how": self.how}
        state["rates"] = [group["lr"] for group in self.optimizer.param_groups]
        state["scheduler"] = self.scheduler.state_dict()
        state["lost"] = [[member, e.problem, e.mend, e.row] for member, e in self.lost.items()]
        write_json(folder / _FILE, state)
        for old in folder.glob("population-*.safetensors"):
            if old.name != name:
                old.unlink()

    @staticmethod
    def is_saved(folder: str | Path) -> bool:
        """Whether a folder holds a population."""
        return (Path(folder) / _FILE).exists()

    def load(self, folder: str | Path) -> None:
        """Go on where ``save`` was called, in a population that was made as that one was.

        Raises:
            RunError: the folder holds no population, or one of other students.
        """
        try:
            saved = read_json(Path(folder) / _FILE)
            tensors = load_file(Path(folder) / saved["tensors"], str(self._stack.device))
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise RunError(f"'{folder}' holds no population ({error})", "train from the start") from None
        weights = {n.removeprefix("student."): t for n, t in tensors.items() if n.startswith("student.")}
        wanted = {name: whole.shape[1:] for name, whole in self._stack.whole.items()}
        if {n: t.shape[1:] for n, t in weights.items()} != wanted or not set(saved["members"]) <= set(self.members):
            raise RunError(f"'{folder}' holds a population of other students", "train from the start")
        self.keep([self.members.index(member) for member in saved["members"]])
        for name, whole in self._stack.whole.items():
            whole.detach().copy_(weights[name])
        for member, objective in zip(self.members, self.objectives, strict=True):
            start = f"objective.{member}."
            objective.load_state_dict({n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)})
        self.optimizer.state.clear()
        for name, parameter in self._named().items():
            start = f"optimizer.{name}/"
            state = {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
            for key, value in state.items():
                fits = key != "step" and value.shape == parameter.shape
                state[key] = torch.empty_like(parameter).detach().copy_(value) if fits else value
            if state:
                self.optimizer.state[parameter] = state
        self.scheduler.load_state_dict(saved["scheduler"])
        for group, rate in zip(self.optimizer.param_groups, saved["rates"], strict=True):
            group["lr"] = rate
        self.steps, self.how = saved["steps"], saved["how"]
        self.lost = {member: LossError(*error) for member, *error in saved["lost"]}
        set_random_state({n: t for n, t in tensors.items() if n.startswith("random.")}, self._stack.device)

    def _everything(self) -> dict[str, Tensor]:
        tensors = {f"student.{name}": whole for name, whole in self._stack.whole.items()}
        for member, objective in zip(self.members, self.objectives, strict=True):
            tensors |= {f"objective.{member}.{name}": t.clone() for name, t in objective.state_dict().items()}
        for name, parameter in self._named().items():
            state = self.optimizer.state.get(parameter, {})
            tensors |= {f"optimizer.{name}/{key}": t.clone() for key, t in state.items() if isinstance(t, Tensor)}
        return tensors | random_state(self._stack.device)


def check_arguments(arguments: TrainingArguments) -> None:
    """Refuse what cannot be had for many students at once.

    Raises:
        RecipeError: the optimiser, schedule or precision.
    """
    optimiser, schedule = str(arguments.optim.value), str(arguments.lr_scheduler_type.value)
    if optimiser not in ELEMENTWISE:
        raise RecipeError(
            f"a population cannot have the optimizer '{optimiser}'", f"give one of {', '.join(ELEMENTWISE)}"
        )
    if schedule in ("reduce_lr_on_plateau", "greedy"):
        raise RecipeError(
            f"a population cannot have the scheduler '{schedule}'", "give one that goes by the step alone"
        )
    if arguments.fp16:
        raise RecipeError("a population cannot have fp16, whose loss scale is one for all", "give bf16 or float32")


def _inputs(batch: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in batch.items() if name not in ("labels", "example_id")}
