"""DistillationTrainer: a transformers.Trainer whose loss is a DistillationObjective, and nothing else.

Optimisers, schedules, precision, accumulation, checkpoints, trackers and distribution are the Trainer's own. What is
added: the loss over valid rows with its global denominator, teacher logits from a TargetSource, the teacher's inner
states for features, and held-out examples for a policy that learns from them. What is learnt beside the student, and
the loss's terms in the log, are ``feature_training``'s.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import SequentialSampler

from setpoint import guards
from setpoint.batching import LengthBuckets, length_of
from setpoint.errors import LossError, SetpointWarning, TargetError
from setpoint.feature_training import FEATURES_FILE, CompanionTrainer, save_state
from setpoint.features import FeatureObjective
from setpoint.held_out import HeldOut, hold_out
from setpoint.meta import hypergradient, label_loss
from setpoint.objective import DistillationObjective
from setpoint.reading import Reading
from setpoint.targets.combined import first_source
from setpoint.targets.store import TargetStore
from setpoint.targets.teacher import FrozenTeacher
from setpoint.targets.views import SeededViews
from setpoint.temperature import MetaTemperature
from setpoint.types import IGNORED_LABEL, LossOutput, TargetSource, example_of_row, is_input, valid_rows

OBJECTIVE_FILE = "objective.safetensors"


class DistillationTrainer(CompanionTrainer):
    """Train a student against a teacher's logits.

    Takes everything ``transformers.Trainer`` takes, and:

    Args:
        objective: the loss. With ``alpha=0`` no teacher is needed and this is ordinary training on hard labels.
        targets: where the teacher's logits come from, a ``FrozenTeacher`` or a ``TargetStore``.
        unlabelled: ids of examples whose labels only say where rows are: these learn from the teacher alone.
        reading: how the model's output is read, where its logits are not simply ``.logits`` of classes.
        features: what is learnt of the inner states of the first teacher of ``targets``, live or stored, beside the
            loss; in training only, an evaluation's loss is the objective's.

    Raises:
        TargetError: features without a teacher's states.

    Batches carry ``labels`` (``-100`` where there is no row) and, for a store, ``example_id``. The loss is the mean
    over the valid rows of the whole optimisation step, however it is split into micro-batches and processes. With a
    ``MetaTemperature`` some of ``train_dataset`` is held out, and every process needs the whole weights (no FSDP).

    Examples:
        >>> import tempfile
        >>> from sklearn.datasets import load_digits
        >>> from transformers import TrainingArguments
        >>> from setpoint import DistillationObjective, FrozenTeacher
        >>> class Linear(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.head = nn.Linear(64, 10)
        ...     def forward(self, pixels):
        ...         return {"logits": self.head(pixels)}
        >>> pixels, labels = load_digits(return_X_y=True)
        >>> examples = [{"pixels": torch.tensor(p).float() / 16, "labels": torch.tensor(y)}
        ...             for p, y in zip(pixels[:64], labels[:64])]
        >>> trainer = DistillationTrainer(
        ...     model=Linear(), objective=DistillationObjective(temperature=4.0),
        ...     targets=FrozenTeacher(Linear(), labels=[str(i) for i in range(10)]), train_dataset=examples,
        ...     args=TrainingArguments(tempfile.mkdtemp(), max_steps=2, save_strategy="no", report_to="none",
        ...                            disable_tqdm=True, remove_unused_columns=False, use_cpu=True))
        >>> trainer.train().global_step
        {...}
        2
    """

    train_dataset: Any

    def __init__(
        self,
        *args: Any,
        objective: DistillationObjective,
        targets: TargetSource | None = None,
        unlabelled: Collection[str] = (),
        reading: Reading | None = None,
        features: FeatureObjective | None = None,
        **kwargs: Any,
    ) -> None:
        beside: dict[str, nn.Module] = {OBJECTIVE_FILE: objective}
        super().__init__(*args, beside=beside | ({} if features is None else {FEATURES_FILE: features}), **kwargs)
        # Makes the Trainer count the rows of a step, over micro-batches and processes.
        self.model_accepts_loss_kwargs = True
        # Rows line up with labels: of a causal language model the Trainer would not count the first of each example.
        self._loss_shifts_labels = False
        # The loss is ours: there is one whether or not the model takes labels, and by whatever name.
        self.label_names: list[str] = self.args.label_names or ["labels"]
        self.objective, self.features = objective, features
        self.targets = targets
        self.reading = reading or Reading()
        first = first_source(targets)
        self._live = first if isinstance(first, FrozenTeacher) else None
        self._states = first.states if isinstance(first, TargetStore) else None
        if features is not None and self._live is None and self._states is None:
            raise TargetError(
                "features are given without the states of a teacher",
                "give a FrozenTeacher as targets, or a TargetStore with states",
            )
        self._unlabelled = frozenset(unlabelled)
        self._meta: MetaTemperature | None = None
        self._parts: list[tuple[dict[str, Any], Tensor | None, Tensor | int | None]] = []
        policy = objective.temperature
        if isinstance(policy, MetaTemperature) and objective.alpha > 0 and self.train_dataset is not None:
            self._hold_out(policy)
        self._complained: set[str] = set()
        self._evaluated: list[tuple[Tensor, int]] = []

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """The objective on the batch's valid rows; see ``transformers.Trainer.compute_loss``."""
        rows = valid_rows(inputs)
        features = self.features if model.training else None
        teacher_logits, teacher_output = self._taught(inputs, features)
        output = model(**_model_inputs(inputs), **({} if features is None else features.asks))
        logits = self.reading.logits(output, inputs)
        batch = self._batch(logits, inputs, teacher_logits)
        count = self._rows_of_the_step(num_items_in_batch) if model.training else None
        # At each `every`-th step, so that a resumed training learns at the same ones.
        if model.training and self._meta is not None and (self.state.global_step + 1) % self._meta.every == 0:
            self._parts.append((inputs, teacher_logits, count))
        self.objective.train(model.training)
        try:
            loss = self.objective(**batch, num_valid=count)
        except LossError as error:
            where = f"example {example_of_row(inputs, error.row)} at step {self.state.global_step}"
            raise LossError(f"{where}: {error.problem}", error.mend, error.row) from None
        total, terms = loss.total, dict(loss.terms)
        if features is not None:
            step = None if num_items_in_batch is None else self._counted
            means = features.means(output, teacher_output, inputs.get("attention_mask"), step)
            for name, value in means.items():
                total = total + features.weights[name] * value
                terms[name] = value.detach()
        if model.training and teacher_logits is not None and len(teacher_logits) and self._time_to_look():
            self._look(batch, loss)
        if model.training:
            self.add_terms(terms)
            if num_items_in_batch is not None and self.args.average_tokens_across_devices:
                # The denominator is global, but gradients are averaged over processes: undo that average.
                total = total * self.accelerator.num_processes
        else:
            self._evaluated.append((total.detach(), int(rows.sum())))
        if not return_outputs:
            return total
        return total, {"logits": self.reading.scored(logits, inputs["labels"])}

    def _taught(self, inputs: dict[str, Any], features: FeatureObjective | None) -> tuple[Tensor | None, Any]:
        """The teacher's logits, where the objective needs them, and its output for features, of one pass or stored."""
        source = self.targets if self.objective.needs_teacher else None
        if features is None or self._live is None:
            states = None if features is None or self._states is None else self._states(inputs)
            return None if source is None else source(inputs).to(self.args.device), states
        with self._live.watched(features.asks) as passes:
            logits = (source or self._live)(inputs).to(self.args.device)
        return None if source is None else logits, passes[0]

    def _batch(self, logits: Tensor, inputs: dict[str, Any], teacher_logits: Tensor | None) -> dict[str, Any]:
        """What the objective is given of a batch: its valid rows."""
        rows = self.reading.loss_rows(logits, inputs, teacher_logits)
        labels, hard_loss = rows.labels, rows.hard_loss
        if self._unlabelled:
            labelled = self._labelled(inputs)
            labels = None if labels is None else labels.masked_fill(~labelled, IGNORED_LABEL)
            hard_loss = None if hard_loss is None else hard_loss * labelled
        return {
            "student_logits": rows.student_logits,
            "teacher_logits": rows.teacher_logits,
            "labels": labels,
            "mask": torch.ones(len(rows.student_logits), dtype=torch.bool, device=logits.device),
            "progress": self.state.global_step / max(self.state.max_steps, 1),
            "beside": rows.beside,
            "hard_loss": hard_loss,
            "weight": rows.weight,
        }

    def _labelled(self, inputs: dict[str, Any]) -> Tensor:
        """Which valid rows of a batch are of a labelled example, ``[R]``."""
        valid = valid_rows(inputs)
        known = [str(name) not in self._unlabelled for name in inputs["example_id"]]
        by_example = torch.tensor(known, device=valid.device).reshape(-1, *[1] * (valid.ndim - 1))
        return by_example.expand_as(valid)[valid]

    def _hold_out(self, policy: MetaTemperature) -> None:
        data = self.train_dataset
        self.train_dataset, held = hold_out(data, policy.held_out, data.views if isinstance(data, SeededViews) else 1)
        collate = self._get_collator_with_removed_columns(self.data_collator, "held-out")
        self._held = HeldOut(held, self.args.train_batch_size, self.args.seed, collate)
        self._meta = policy

    def before_step(self) -> None:
        """Look one step ahead too, where the temperature does."""
        super().before_step()
        self.meta_step()

    def meta_step(self) -> None:
        """Move a ``MetaTemperature`` by the held-out loss after this step, whose gradients are there."""
        policy, parts, self._parts = self._meta, self._parts, []
        if policy is None or not parts:
            return
        model, held = self.model, self._held

        def train_loss() -> Tensor:
            each = [
                self.objective(**self._batch(self._logits(model, inputs), inputs, teacher), num_valid=count).total
                for inputs, teacher, count in parts
            ]
            return torch.stack(each).sum()

        def held_loss() -> Tensor:
            batch = self._prepare_inputs(held.batch(self.state.global_step))
            rows = self.reading.loss_rows(self._logits(model, batch), batch, None)
            if rows.hard_loss is not None:
                return rows.hard_loss.mean()
            assert rows.labels is not None
            return label_loss(rows.student_logits, rows.labels)

        # Scaled for half precision, the gradients are not those of the loss.
        scaled = self.accelerator.scaler is not None
        there = None if scaled else [weight.grad for weight in model.parameters() if weight.requires_grad]
        rounding = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.accelerator.mixed_precision)
        found = hypergradient(policy, model, train_loss, held_loss, self._get_learning_rate(), there, rounding)
        found = torch.full((), torch.nan, device=self.args.device) if found is None else found
        # Each process has a part of the step's batch, and the same examples held out.
        policy.move(self.accelerator.reduce(found.float(), reduction="sum"))

    def _logits(self, model: nn.Module, inputs: dict[str, Any]) -> Tensor:
        return self.reading.logits(model(**_model_inputs(inputs)), inputs)

    def _time_to_look(self) -> bool:
        """At the first step of each interval between logs, so that a resumed training looks at the same steps."""
        return self.state.global_step % max(int(self.state.logging_steps or 500), 1) == 0

    def _look(self, batch: dict[str, Any], loss: LossOutput) -> None:
        """Keep what the temperature is for the next log, and warn, once each, of what is wrong with it."""
        if batch["student_logits"].shape[-1] < 2:
            return  # no classes, nothing to be sharp or soft
        given = {name: batch[name] for name in ("student_logits", "teacher_logits", "labels", "progress")}
        seen = guards.look(self.objective, loss.temperatures, **given)
        shown = dataclasses.asdict(seen).items()
        self.seen = {name: v for name, v in shown if v is not None and name not in ("classes", "fixed")}
        for kind, sentence in guards.complaints(seen).items():
            if kind not in self._complained:
                self._complained.add(kind)
                warnings.warn(sentence, SetpointWarning, stacklevel=2)

    def _rows_of_the_step(self, count: Tensor | int | None) -> Tensor | int | None:
        """The denominator as one number: with several GPUs in one process the Trainer has one for each of them."""
        if not isinstance(count, Tensor) or self.args.n_gpu < 2:
            return count
        copies = 1 if self.args.average_tokens_across_devices else self.args.n_gpu
        return count.reshape(-1)[0] * copies

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """The Trainer's, its loss the mean over rows: the Trainer's own mean is over batches, whatever they hold."""
        self._evaluated.clear()
        output = super().evaluation_loop(*args, **kwargs)
        sums = torch.zeros(2, dtype=torch.float64)
        for loss, rows in self._evaluated:
            sums += torch.tensor([float(loss) * rows, rows], dtype=torch.float64)
        sums = self.accelerator.reduce(sums.to(self.args.device, torch.float32), reduction="sum").cpu()
        for name in output.metrics:
            if name.endswith("_loss"):
                output.metrics[name] = float(sums[0] / sums[1].clamp(min=1))
        return output

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        self._signature_columns: list[str] = [*dict.fromkeys([*self._signature_columns, "id", "example_id"])]

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        data = self.train_dataset if train_dataset is None else train_dataset
        if self.args.train_sampling_strategy != "group_by_length" or data is None or not hasattr(data, "__len__"):
            return super()._get_train_sampler(train_dataset)
        lengths = [length_of(example) for example in data]
        step = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return LengthBuckets(lengths, step, self.args.seed, lambda: int(self.state.epoch or 0))

    def _get_eval_sampler(self, eval_dataset: Any) -> Any:
        # In order: scores are of the examples in their order, where transformers would group these by length too.
        with_order = self.args.world_size <= 1 and hasattr(eval_dataset, "__len__")
        return SequentialSampler(eval_dataset) if with_order else None

    def save_objective(self, folder: Path) -> None:
        """Write the objective's state into a folder; nothing where it has none."""
        save_state(self.objective, folder / OBJECTIVE_FILE)


def _model_inputs(batch: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in batch.items() if is_input(name)}
