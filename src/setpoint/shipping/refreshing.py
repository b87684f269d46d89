"""The parts of a refresh, each done once in a folder of its own within the run's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from setpoint import evaluation, models, stages, teachers
from setpoint.job import Job, make_objective
from setpoint.maths.solving import calibrate_temperature
from setpoint.recipe import Recipe
from setpoint.recipe_temperature import ConstantTemperature
from setpoint.run_folder import RunFolder
from setpoint.shipping.drift import MOST_EXAMPLES, measure_drift, observe
from setpoint.shipping.export import load_student, write_export
from setpoint.shipping.gate import decide, difference
from setpoint.shipping.kept import Versions
from setpoint.shipping.manifest import Manifest
from setpoint.shipping.new_data import NewData
from setpoint.surgery import freeze
from setpoint.targets.fingerprint import Fingerprint
from setpoint.targets.joined import JoinedStores
from setpoint.targets.store import TargetStore
from setpoint.tasks.base import ALL, Example, Rows, label_rows
from setpoint.teachers import SAMPLE_ROWS, Teacher
from setpoint.tuning.prior import suggest

REPLAY = 2
"""Old examples that are learnt again for each new one, as far as there are so many."""
HELD_OUT, CHECK = range(3), range(3, 4)
"""Tenths of the new examples that the gate is kept for, and by which one of several temperatures is chosen."""


def tenth(name: str) -> int:
    """Which tenth of the new examples one is in; its content decides, so that none is learnt and kept at once."""
    return int(name.split("-")[1][:8], 16) % 10


def student_name(temperature: float | None) -> str:
    """The folder of a student by the temperature it was distilled at; None is the run's own."""
    return "student" if temperature is None else f"student-{temperature:.6g}"


@dataclass
class Refreshing:
    """One refresh, in a folder of its own within the run's."""

    job: Job
    folder: RunFolder
    versions: Versions
    base: str | None
    student: Path
    seed: int
    """What the student began from."""
    key: str
    origin: dict[str, Any]
    teacher: Teacher
    targets: TargetStore
    new: NewData
    processor: Any
    """The students' tokenizer: the teacher's, or one of their own."""
    _encoded: dict[int, list[Example]] = field(default_factory=dict)

    def stage(self, stage: str, work: Any, *, name: str = "", **options: Any) -> dict[str, Any]:
        """Do a part once; all of it is made from the new data and the student before it."""
        origin = self.origin | {"name": name}
        return self.folder.stage(f"{stage}-{name}" if name else stage, origin, work, **options)

    def examples(self, processor: Any) -> list[Example]:
        """The new examples as model inputs, encoded once for each tokenizer."""
        if id(processor) not in self._encoded:
            self._encoded[id(processor)] = self.job.task.encode(self.new.examples, processor)
        return self._encoded[id(processor)]

    def part(self, examples: list[Example], tenths: range) -> list[Example]:
        """The examples of some tenths."""
        return [example for example in examples if tenth(example["id"]) in tenths]

    def rows(self, folder: Path, examples: list[Example]) -> Rows:
        """A student's logits on examples."""
        model, _ = teachers.load_student(self.job, self.teacher, folder)
        source = self.job.frozen(model, self.processor, "student")
        return evaluation.predict(source, examples, self.job.task.collate(self.processor))

    # ------------------------------------------------------------------------------------------------ drift

    def sample(self) -> set[str]:
        """The ids of the new examples by which drift is measured."""
        names = self.new.examples["id"][:]
        order = torch.randperm(len(names), generator=torch.Generator().manual_seed(0))[:MOST_EXAMPLES]
        return {names[i] for i in order.tolist()}

    def store(self, name: str, wanted: Any) -> TargetStore:
        """The teacher's logits on some of the new examples, computed once."""
        job, recipe, processor = self.job, self.job.recipe.targets, self.teacher.processor
        chosen = self.new.part(wanted).examples.remove_columns("label")
        made_from = Fingerprint.of(self.teacher.source, processor, job.task.preprocessing(), chosen)
        return TargetStore.build(
            self.folder.path / name,
            self.teacher.source,
            [example for example in self.examples(processor) if wanted(example["id"])],
            job.task.collate(processor),
            made_from,
            dtype=recipe.dtype,
            shard_examples=recipe.shard_examples,
            batch_size=recipe.batch_size,
        )

    def new_targets(self) -> list[TargetStore]:
        """The teacher's logits on all new examples: those of the sample are there already."""
        sample = self.sample()
        return [
            self.store("targets-sample", lambda name: name in sample),
            self.store("targets", lambda name: name not in sample),
        ]

    def drift(self) -> dict[str, Any]:
        """Compare a sample of the new examples with the validation split."""
        job, sample = self.job, self.sample()
        store = self.store("targets-sample", lambda name: name in sample)

        def sides(processor: Any) -> list[list[Example]]:
            old, new = job.encoded("validation", processor), self.examples(processor)
            return [old[:: -(-len(old) // MOST_EXAMPLES)], [example for example in new if example["id"] in sample]]

        collate, read = job.task.collate(self.teacher.processor), sides(self.processor)
        taught = [
            evaluation.predict(source, examples, collate)
            for source, examples in zip((self.targets, store), sides(self.teacher.processor), strict=True)
        ]
        said = [self.rows(self.student, examples) for examples in read]
        labels = np.concatenate(label_rows(read[0]))
        t = calibrate_temperature(torch.from_numpy(np.concatenate(said[0])), torch.from_numpy(labels))
        old, new = (observe(*side, t) for side in zip(read, said, taught, strict=True))
        return asdict(measure_drift(old, new, class_names=job.splits.labels))

    # ------------------------------------------------------------------------------------------------ distilling

    def temperatures(self) -> dict[str, Any]:
        """The temperatures to try: the run's, and another where the new data's logits put that out of their range."""
        temperature = self.job.recipe.temperature
        if not isinstance(temperature, ConstantTemperature) or temperature.student not in (None, temperature.teacher):
            told = f"The policy {temperature.policy} stays as it is; nobody has checked it on the new data."
            return {"candidates": [None], "sentences": [told]}
        t = temperature.of_teacher
        logits = torch.from_numpy(np.concatenate([s.some_logits(SAMPLE_ROWS) for s in self.new_targets()]))
        found, before = suggest(logits), suggest(torch.from_numpy(self.targets.some_logits(SAMPLE_ROWS)))
        if found.low <= t <= found.high or before.low <= found.temperature <= before.high:
            told = f"T = {t:.3g} stays: by the teacher's logits alone the new data ask for no other."
            return {"candidates": [None], "sentences": [told]}
        other = float(f"{min(max(t * found.temperature / before.temperature, found.low), found.high):.4g}")
        told = (
            f"By the teacher's logits alone one would start at T = {found.temperature:.3g} on the new data, and at"
            f" {before.temperature:.3g} on the old: T = {other:g} was tried beside T = {t:.3g}."
        )
        return {"candidates": [None, other], "sentences": [told]}

    def distil(self, candidates: list[float | None]) -> float | None:
        """Train a student at each temperature; gives the better one's, by new examples set aside for that."""
        for temperature in candidates:
            self.train(temperature, checked=len(candidates) > 1)
        if len(candidates) == 1:
            return candidates[0]

        def work() -> dict[str, Any]:
            scores = [self.score(self.folder.path / student_name(temperature)) for temperature in candidates]
            return {"scores": scores, "chosen": candidates[int(np.argmax(scores))]}

        chosen: float | None = self.stage("check", work, name=student_name(candidates[-1]))["chosen"]
        return chosen

    def score(self, folder: Path) -> float:
        """A student's score on the new examples by which a temperature is chosen."""
        rows, labels = self.scored(folder, CHECK)
        task = self.job.task
        return task.scores(rows, labels, self.job.splits.labels)[task.metric](ALL)

    def train(self, temperature: float | None, checked: bool) -> None:
        """Distil the student on, from where it is, on new examples and on old ones again."""
        recipe = self.job.recipe
        if temperature is not None:
            recipe = recipe.model_copy(update={"temperature": ConstantTemperature(temperature=temperature)})
        name = student_name(temperature)
        output, scratch = self.folder.path / name, self.folder.path / "checkpoints" / name

        def work() -> dict[str, Any]:
            model, processor = teachers.load_student(self.job, self.teacher, self.student)[0], self.processor
            if recipe.student.freeze is not None:
                freeze(model, recipe.student.freeze)
            new = self.part(self.examples(processor), range(CHECK.stop if checked else HELD_OUT.stop, 10))
            job = self.learning(recipe, processor, new)
            targets = JoinedStores([self.targets, *self.new_targets()])
            objective = make_objective(recipe)
            objective.temperature.fit(torch.cat([_some_logits(store) for store in targets.stores]))
            seed = self.seed
            trainer = stages.train(
                job, model, processor, recipe.train, objective, targets, seed, scratch, f"refresh/{name}"
            )
            models.save_model(trainer.model, processor, output, job.task.model_files())
            return {
                "log": trainer.state.log_history,
                "new": len(new),
                "old": len(job.training_data(processor)) - len(new),
            }

        self.stage("train", work, name=name, output=output, scratch=scratch)

    def learning(self, recipe: Recipe, processor: Any, new: list[Example]) -> Job:
        """The run's job with new examples in its training split, and as many old ones as are learnt again."""
        old = self.job.encoded("train", processor)
        order = torch.randperm(len(old), generator=torch.Generator().manual_seed(0))[: REPLAY * len(new)]
        encoded = {
            ("train", id(processor)): (processor, [*(old[i] for i in order.tolist()), *new]),
            ("validation", id(processor)): (processor, self.job.encoded("validation", processor)),
        }
        return replace(self.job, recipe=recipe, unlabelled=self.new.unlabelled, _encoded=encoded)

    # ------------------------------------------------------------------------------------------------ the gate

    def scored(self, folder: Path, tenths: range) -> tuple[Rows, Rows]:
        """A student's logits on some tenths of the new examples, and what they ought to say.

        That is the label, or where there is none the teacher's class.
        """
        job, examples = self.job, self.part(self.examples(self.processor), tenths)
        taught = self.part(self.examples(self.teacher.processor), tenths)
        teacher = evaluation.predict(JoinedStores(self.new_targets()), taught, job.task.collate(self.teacher.processor))
        rows = self.rows(folder, examples)
        labels = [
            told.argmax(-1) if example["id"] in self.new.unlabelled else given
            for example, told, given in zip(examples, teacher, label_rows(examples), strict=True)
        ]
        # Tokenizers of their own may cut an example at different words; a row is one of both.
        counts = [min(len(z), len(y)) for z, y in zip(rows, labels, strict=True)]
        return [z[:n] for z, n in zip(rows, counts, strict=True)], [y[:n] for y, n in zip(labels, counts, strict=True)]

    def gate(self, name: str) -> dict[str, Any]:
        """Compare the new student with the one before it, on old examples and on new ones that none has learnt from."""
        job, students = self.job, (self.student, self.folder.path / name)
        validation = job.encoded("validation", self.processor)
        before, after = (self.rows(student, validation) for student in students)
        on_old = difference(job.task, job.splits.labels, after, before, label_rows(validation))
        (before, _), (after, labels) = (self.scored(student, HELD_OUT) for student in students)
        on_new = difference(job.task, job.splits.labels, after, before, labels)
        judged = [
            example["id"] in self.new.unlabelled for example in self.part(self.examples(self.processor), HELD_OUT)
        ]
        return asdict(decide(on_old, on_new, job.task.metric, sum(judged) / len(judged)))

    def promote(self, name: str) -> str:
        """Keep the new student as a version, the first one before it where there is none yet; and make it current."""

        def exported(student: Path) -> Callable[[Path], Manifest]:
            found = load_student(self.job, student, self.seed, "")
            return lambda place: write_export(found, "safetensors", None, place)

        first = {"previous": None, "refresh": None}
        previous = self.base or self.versions.keep(exported(self.student), first)
        note = {"previous": previous, "refresh": self.key}
        version = self.versions.keep(exported(self.folder.path / name), note)
        self.versions.promote(version)
        return version


def _some_logits(store: TargetStore) -> Tensor:
    return torch.from_numpy(store.some_logits(SAMPLE_ROWS))
