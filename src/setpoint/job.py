"""What every stage of a run needs: the recipe, its folder, and the data, read, checked and encoded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from setpoint import models
from setpoint.arguments import check_training
from setpoint.errors import ModelError, RecipeError, TargetError, TemperatureError
from setpoint.feature_checks import check_features, check_pretraining
from setpoint.generating import read_generated
from setpoint.hard import HardTargets
from setpoint.objective import ALL_DIVERGENCES, DistillationObjective
from setpoint.recipe import Recipe
from setpoint.recipe_images import mixes
from setpoint.run_folder import RunFolder
from setpoint.surgery import usable_positions
from setpoint.targets.fingerprint import digest_dataset
from setpoint.targets.teacher import FrozenTeacher
from setpoint.targets.views import RandomViews, SeededViews
from setpoint.tasks import make_task
from setpoint.tasks.base import Example, Splits, Task
from setpoint.tasks.formats import SPLITS
from setpoint.temperature import POLICIES, Softness
from setpoint.tokenizer_checks import check_tokenizers
from setpoint.transfer import digest_inputs, read_transfer, without_labels


@dataclass(frozen=True)
class Job:
    """What every stage needs: the recipe, its folder, and the data, read and checked."""

    recipe: Recipe
    folder: RunFolder
    task: Task
    splits: Splits
    data: dict[str, Any]
    """What is learnt from, for the stages' marks."""
    test: str
    """Digest of the test split, for the evaluation's mark."""
    unlabelled: frozenset[str] = frozenset()
    """Ids of training examples without a label: their labels only say where rows are."""
    transfer: Sequence[Any] = ()
    """Unlabelled inputs to learn from, checked."""
    kept: tuple[int, ...] | None = None
    """Which of these are learnt from; all where None."""
    _encoded: dict[tuple[str, int], tuple[Any, list[Example]]] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The run folder."""
        return self.folder.path

    @property
    def generated(self) -> Path:
        """Where the examples lie that the teacher has written."""
        return self.path / "generated"

    def scratch(self, name: str) -> Path:
        """Where the training into the folder ``name`` keeps its checkpoints."""
        return self.path / "checkpoints" / name

    def encoded(self, split: str, processor: Any) -> list[Example]:
        """A split as model inputs, encoded once for each tokenizer."""
        key = (split, id(processor))
        if key not in self._encoded:  # with the tokenizer, so that no later one gets its id
            if split == "transfer":
                inputs = self.task.encode_inputs(self.transfer, processor)
                made = [example | {"id": transfer_id(number)} for number, example in enumerate(inputs)]
            else:
                made = self.task.encode(getattr(self.splits, split), processor)
            self._encoded[key] = (processor, made)
        return self._encoded[key][1]

    def frozen(self, model: nn.Module, processor: Any, name: str) -> FrozenTeacher:
        """A model of this task, frozen, on the accelerator where there is one; ``name`` names it in errors."""
        classes = self.task.classes(self.splits.labels, processor)
        return FrozenTeacher(model.to(models.device()), classes, name=name, reading=self.task)

    def training_data(self, processor: Any, *, distilled: bool = True, all_transfer: bool = False) -> Any:
        """What is learnt from as model inputs, with its augmentation where the recipe has one.

        Who learns from labels alone gets the examples that have one, without mixing: a mixed example has none.

        Args:
            processor: the tokenizer.
            distilled: whether it is for a student with a teacher.
            all_transfer: unlabelled inputs that are not learnt from too.
        """
        examples, data = self.encoded("train", processor), self.recipe.data
        if distilled and data.generate is not None:
            examples = [*([] if data.generate.instead else examples), *read_generated(self.generated)]
        if not distilled:
            examples = [example for example in examples if example["id"] not in self.unlabelled]
        elif self.transfer:
            more = self.encoded("transfer", processor)
            examples = examples + (more if all_transfer or self.kept is None else [more[i] for i in self.kept])
        if data.augment is None:
            return examples
        steps = [step for step in data.augment if distilled or not mixes((step,))]
        transform = partial(self.task.augment, steps=steps, examples=examples)
        return RandomViews(examples, transform) if data.views is None else SeededViews(examples, transform, data.views)

    def without_label(self, data: Any, distilled: bool) -> frozenset[str]:
        """The ids of ``training_data`` that learn from the teacher alone."""
        mixed = distilled and mixes(self.recipe.data.augment)
        return self.unlabelled | frozenset(data.ids) if mixed else self.unlabelled


def transfer_id(number: int) -> str:
    """The id of an unlabelled input."""
    return f"transfer-{number}"


def make_objective(recipe: Recipe) -> DistillationObjective:
    """The objective a recipe describes."""
    temperature = recipe.temperature.model_dump(exclude={"policy"}, exclude_none=True)
    wanted, divergence = recipe.objective.divergence, None
    if wanted is not None:
        divergence = partial(ALL_DIVERGENCES[wanted.kind], **wanted.model_dump(exclude={"kind"}))
    return DistillationObjective(
        temperature=POLICIES[recipe.temperature.policy](**temperature),
        divergence=divergence,
        alpha=recipe.objective.alpha,
        hard=HardTargets(**recipe.objective.hard.model_dump()),
        wrong_teacher=recipe.objective.wrong_teacher,
    )


def _check_generate(recipe: Recipe, task: Task) -> None:
    if not task.generates:
        raise RecipeError(
            f"recipe section 'data.generate' is given for the task {recipe.task}, whose examples no teacher can write",
            "remove it",
        )
    if recipe.data.augment is not None:
        raise RecipeError("recipe section 'data.generate' is given beside data.augment", "remove one of them")


def _check_objective(recipe: Recipe, classes: int) -> None:
    """Refuse, before anything is trained, a loss that could not be made, or a softness that no target can have.

    Where only the tokenizer knows the classes, ``classes`` is 0 and the latter is not checked.
    """
    try:
        policy = make_objective(recipe).temperature
    except (TemperatureError, TargetError) as error:
        raise RecipeError(f"recipe section 'temperature' or 'objective': {error.problem}", error.mend) from None
    if isinstance(policy, Softness) and classes:
        most = {"effective_classes": classes, "entropy": math.log(classes), "other_mass": 1 - 1 / classes}[policy.kind]
        for wanted in (policy.start, policy.end):
            if wanted >= most:
                raise RecipeError(
                    f"recipe field 'temperature.{policy.kind}' is {wanted:g} for {classes} classes",
                    f"give a number below {most:.4g}",
                )


def open_job(recipe: Recipe, folder: RunFolder) -> Job:
    """Read and check what can be checked before anything is trained: training sections, configurations, data.

    What the recipe leaves open and its models decide is in the job's recipe, and so in the run's.
    """
    check_training(recipe)
    task = make_task(recipe.task, recipe.data)
    taken = task.take_over(_with_weights(recipe))
    if taken:
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update=taken)})
        task = make_task(recipe.task, recipe.data)
    task.folder = folder.path
    for step in recipe.data.augment or ():
        if step.kind not in task.augments:
            raise RecipeError(
                f"recipe field 'data.augment' has the kind '{step.kind}', which {recipe.task} does not know",
                f"give one of {', '.join(task.augments)}" if task.augments else "remove data.augment",
            )
    for who in (recipe.teacher, recipe.student):
        if who.model.kind == "config":
            bare = who.model.model_copy(update={"weights": None})
            with torch.device("meta"):
                models.load_model(bare, task.model_class(), recipe.data.labels)
    if not task.tempered:
        _check_untempered(recipe)
    check_pretraining(recipe, task)
    check_features(recipe, task)
    if task.text:
        check_tokenizers(recipe, of_tokens=task.one_tokenizer)
    if recipe.data.generate is not None:
        _check_generate(recipe, task)
    splits = task.load()
    if task.tempered:
        classes = len(splits.labels)
        _check_objective(recipe, min(classes, 1 + (recipe.data.negatives or classes)))
        if not task.row_labels:
            _check_unlabelled(recipe, classes)
    _check_mixing(recipe)
    content = {name: digest_dataset(getattr(splits, name)) for name in ("train", "validation")}
    transfer, unlabelled = read_transfer(recipe.data, task, len(splits.train)), without_labels(recipe.data, splits)
    if transfer:
        content["transfer"] = digest_inputs(transfer)
        unlabelled |= {transfer_id(number) for number in range(len(transfer))}
    if unlabelled and recipe.data.views is not None:
        unlabelled |= {f"{name}#{view}" for name in unlabelled for view in range(recipe.data.views)}
    read = task.preprocessing() | {"labels": list(splits.labels), "content": content}
    if recipe.data.shots is not None:
        read["shots"] = recipe.data.shots
    data = {"task": recipe.task, "data": read}
    return Job(recipe, folder, task, splits, data, digest_dataset(splits.test), unlabelled, transfer)


def _check_untempered(recipe: Recipe) -> None:
    """Refuse what says nothing of numbers, where a task has no classes."""
    given = {
        "temperature": "temperature" in recipe.model_fields_set,
        "objective.divergence": recipe.objective.divergence is not None,
        "objective.hard": recipe.objective.hard != type(recipe.objective.hard)(),
    }
    for name, there in given.items():
        if there:
            raise RecipeError(
                f"recipe field '{name}' is given for the task {recipe.task}, whose outputs are numbers, not classes",
                "remove it: the loss is the squared error, which no temperature touches",
            )


def _check_unlabelled(recipe: Recipe, classes: int) -> None:
    """Refuse what asks for the labels of rows, where a task's rows have none and its hard loss is its own."""
    objective = recipe.objective
    given = {
        "objective.hard": objective.hard != type(objective.hard)(),
        "objective.wrong_teacher": objective.wrong_teacher < 1,
    }
    policy, rows = make_objective(recipe).temperature, torch.arange(2.0 * classes).reshape(2, classes) % 3
    policy.fit(rows)
    with torch.random.fork_rng():
        try:
            policy(rows, rows, None, 0.0)
        except TargetError:
            given["temperature.policy"] = True
    for name, there in given.items():
        if there:
            raise RecipeError(
                f"recipe field '{name}' asks for labels of rows, and those of {recipe.task} have none", "remove it"
            )


def _with_weights(recipe: Recipe) -> list[tuple[str, str]]:
    """The field and the location of each model that comes with weights in a folder or from the hub."""
    teacher, student = recipe.teacher, recipe.student
    models = [(f"teacher.others.{number}.model", other.model) for number, other in enumerate(teacher.others)]
    if teacher.model.kind == "pretrained":
        models.insert(0, ("teacher.model", teacher.model.model))
    if student.model.kind == "pretrained":
        models.append(("student.model", student.model.model))
    return models


def _check_mixing(recipe: Recipe) -> None:
    """Refuse mixed examples, which have no label, where something learns from the labels of training examples."""
    policy = recipe.temperature.policy
    if mixes(recipe.data.augment) and policy in ("meta", "annealing", "continuation"):
        raise RecipeError(
            f"recipe field 'data.augment' mixes examples, which then have no label, and temperature.policy is {policy}",
            "leave mixup and cutmix out, or give a policy that does not learn from labels",
        )


def check_length(job: Job, model: nn.Module, processor: Any, who: str) -> None:
    """Refuse a model that cannot do the task, and texts that are longer than it can read."""
    examples = [example for split in SPLITS for example in job.encoded(split, processor)]
    job.task.check_model(model, job.splits, processor, examples, who)
    positions = usable_positions(model)
    if positions is None or "input_ids" not in job.encoded("train", processor)[0]:
        return
    longest = max(len(example["input_ids"]) for split in SPLITS for example in job.encoded(split, processor))
    if longest > positions and job.task.max_length is None:
        raise ModelError(
            f"the longest example has {longest} tokens while the {who} reads {positions} at most",
            "give its config more positions",
        )
    if longest > positions:
        raise ModelError(
            f"data.max_length is {job.recipe.data.max_length} while the {who} reads {positions} tokens at most",
            f"give at most {positions}",
        )
