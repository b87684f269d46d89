"""Training more than a model: what is learnt beside it, the terms of its loss, and a student of inner states alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainerState

from setpoint.features import FeatureObjective
from setpoint.objective import same_random_numbers
from setpoint.recipe_features import FeatureRecipe
from setpoint.targets.teacher import FrozenTeacher

FEATURES_FILE = "features.safetensors"


def seeded_features(
    wanted: tuple[FeatureRecipe, ...], student: Any, teacher: Any, seed: int, field: str = "objective.features"
) -> FeatureObjective:
    """The features of two models, projections drawn from the seed; makes both models give what the features read.

    Args:
        wanted: sections of a recipe.
        student: a model of transformers.
        teacher: likewise.
        seed: of the projections, and nothing else.
        field: names the sections in errors.

    Raises:
        ModelError: a model that has no such states.

    Examples:
        >>> from transformers import BertConfig, BertModel
        >>> from setpoint.recipe_features import StateFeature
        >>> small, large = (
        ...     BertModel(BertConfig(vocab_size=9, hidden_size=d, num_hidden_layers=1, num_attention_heads=1))
        ...     for d in (2, 4))
        >>> first, again = (seeded_features((StateFeature(kind="hidden"),), small, large, seed=3) for _ in range(2))
        >>> torch.equal(*(next(features.parameters()) for features in (first, again)))
        True
    """
    with same_random_numbers(torch.device("cpu")):
        torch.manual_seed(seed)
        features = FeatureObjective(wanted, student.config, teacher.config, field=field)
    if "attentions" in features.reads:  # other kernels never have them in one piece
        for model in (student, teacher):
            model.set_attn_implementation("eager")
    return features


class _Companion(TrainerCallback):
    """What the Trainer does for the model and its loss, done for what is learnt beside it and the loss's terms."""

    def __init__(self, trainer: CompanionTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: TrainerState, *rest: Any, **kwargs: Any) -> None:
        """Start the sums of the terms anew, at the step the training begins or resumes with."""
        self._trainer.forget_terms(state.global_step)

    def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """The gradients of the step are there."""
        self._trainer.before_step()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Clear the gradients: the Trainer clears the model's only."""
        for module in self._trainer.beside.values():
            module.zero_grad()


class CompanionTrainer(Trainer):
    """A Trainer that trains modules beside its model, and logs the terms of its loss.

    Takes everything ``transformers.Trainer`` takes, and:

    Args:
        beside: what may have parameters that are learnt beside the model's, by the file its state has in a checkpoint.

    The loss of a subclass is divided by what counts in the whole step, however that is split into micro-batches and
    processes; for features it is counted here.
    """

    loss_is_scaled_for_ga = True
    features: FeatureObjective | None = None

    def __init__(self, *args: Any, beside: Mapping[str, nn.Module], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.beside = {file: module.to(self.args.device) for file, module in beside.items()}
        self._counted: dict[str, Tensor] | None = None
        self.add_callback(_Companion(self))
        self.forget_terms(0)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """The batches of a step, with the number of rows in all of them; what features divide by is counted too."""
        batches, rows = super().get_batch_samples(*args, **kwargs)
        if self.features is not None and batches:
            self._counted = {n: c.to(self.args.device) for n, c in self.features.counted(batches).items()}
            if self.args.average_tokens_across_devices and self.args.world_size > 1:
                self._counted = {n: self.accelerator.reduce(c, reduction="sum") for n, c in self._counted.items()}
        return batches, rows

    def before_step(self) -> None:
        """Average the gradients of what is beside the model over processes, and clip them."""
        most = self.args.max_grad_norm
        for module in self.beside.values():
            learned = [parameter for parameter in module.parameters() if parameter.grad is not None]
            if self.accelerator.num_processes > 1:
                for parameter in learned:
                    parameter.grad = self.accelerator.reduce(parameter.grad, reduction="mean")
            if most is not None and most > 0:
                nn.utils.clip_grad_norm_(learned, most)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The Trainer's optimiser, with what is learnt beside the model in a group of its own, without decay."""
        fresh = self.optimizer is None
        optimizer = super().create_optimizer(model)
        modules = self.beside.values()
        learned = [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]
        if fresh and learned:
            optimizer.add_param_group({"params": learned, "weight_decay": 0.0})
        return optimizer

    def add_terms(self, terms: Mapping[str, Tensor]) -> None:
        """Count a batch's terms of the loss, detached, for the next log."""
        for name, value in terms.items():
            self._terms[name] = self._terms[name] + value if name in self._terms else value

    def forget_terms(self, step: int) -> None:
        """Sum the terms of the loss from this step on."""
        self._terms: dict[str, Tensor] = {}
        self.seen: dict[str, float] = {}  # what else the next log shows
        self._terms_since = step

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the terms of the loss, averaged over steps like the loss itself."""
        if "loss" in logs and self._terms:
            steps = max(self.state.global_step - self._terms_since, 1)
            how = "sum" if self.args.average_tokens_across_devices else "mean"
            for name, value in self._terms.items():
                logs[name] = float(self.accelerator.reduce(value, reduction=how)) / steps
            logs |= self.seen
            self.forget_terms(self.state.global_step)
        super().log(logs, *args, **kwargs)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model, and beside it the state of what is learnt beside it, where that has one."""
        super().save_model(output_dir, _internal_call)
        if self.args.should_save:
            for file, module in self.beside.items():
                save_state(module, Path(output_dir or self.args.output_dir) / file)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self._load_beside(resume_from_checkpoint)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        self._load_beside(self.state.best_model_checkpoint)

    def _load_beside(self, checkpoint: str) -> None:
        for file, module in self.beside.items():
            if (saved := Path(checkpoint) / file).exists():
                module.load_state_dict(load_file(saved))


def save_state(module: nn.Module, file: Path) -> None:
    """Write a module's state; nothing where it has none."""
    if state := module.state_dict():
        save_file(state, file)


class FeatureTrainer(CompanionTrainer):
    """Train a student on the inner states of a teacher alone: Σ weight · feature, no logits and no labels.

    Takes everything ``transformers.Trainer`` takes, and:

    Args:
        features: what is learnt of the states, a mean over the positions of the whole optimisation step, however it is
            split into micro-batches and processes.
        teacher: runs on each batch; only the states of its model are read, so that it needs no head and no labels.

    Source: the general distillation of Jiao et al. 2020 (TinyBERT), arXiv:1909.10351.

    Examples:
        >>> import tempfile
        >>> from transformers import BertConfig, BertModel, TrainingArguments
        >>> from setpoint.recipe_features import RelationFeature
        >>> student, teacher = (
        ...     BertModel(BertConfig(vocab_size=9, hidden_size=d, num_hidden_layers=1, num_attention_heads=2))
        ...     for d in (4, 8))
        >>> texts = [{"input_ids": torch.tensor([1, 2, n]), "attention_mask": torch.ones(3)} for n in range(8)]
        >>> trainer = FeatureTrainer(
        ...     model=student, features=seeded_features((RelationFeature(kind="relations"),), student, teacher, seed=0),
        ...     teacher=FrozenTeacher(teacher, labels=()), train_dataset=texts,
        ...     args=TrainingArguments(tempfile.mkdtemp(), max_steps=2, save_strategy="no", report_to="none",
        ...                            disable_tqdm=True, remove_unused_columns=False, use_cpu=True))
        >>> trainer.train().global_step
        {...}
        2
    """

    def __init__(self, *args: Any, features: FeatureObjective, teacher: FrozenTeacher, **kwargs: Any) -> None:
        super().__init__(*args, beside={FEATURES_FILE: features}, **kwargs)
        self.features: FeatureObjective = features
        self.teacher = teacher
        teacher.model.to(self.args.device)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """The features of the batch; see ``transformers.Trainer.compute_loss``."""
        taught = self.teacher.output(inputs, **self.features.asks)
        output = model(**inputs, **self.features.asks)
        means = self.features.means(output, taught, inputs.get("attention_mask"), self._counted)
        self.add_terms({name: value.detach() for name, value in means.items()})
        total = torch.stack([self.features.weights[name] * value for name, value in means.items()]).sum()
        if self.args.average_tokens_across_devices:
            # The denominator is global, but gradients are averaged over processes: undo that average.
            total = total * self.accelerator.num_processes
        return (total, output) if return_outputs else total
