"""A run's student as a folder that needs nothing of the run: written, compared with PyTorch, measured, and whole."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from transformers import PreTrainedModel

from setpoint import evaluation, models
from setpoint.errors import ModelError, RunError
from setpoint.evaluation import Outputs
from setpoint.files import sync_files, sync_folder, write_json
from setpoint.job import Job, open_job
from setpoint.maths.solving import CALIBRATION_RANGE, calibrate_temperature
from setpoint.recipe import PretrainedModel
from setpoint.recipe_file import parse_recipe
from setpoint.recipe_images import pixel_settings
from setpoint.run_folder import RunFolder, read_left
from setpoint.shipping import manifest as manifests
from setpoint.shipping.manifest import Manifest, Measured, Parity
from setpoint.shipping.needs import need
from setpoint.shipping.onnx_model import OnnxModel, quantise, write_onnx
from setpoint.shipping.parity import compare
from setpoint.targets.fingerprint import digest_json
from setpoint.targets.teacher import FrozenTeacher
from setpoint.tasks.base import ALL, Example, Rows, label_rows
from setpoint.types import TargetSource

Format = Literal["onnx", "safetensors"]
TOLERANCE = 1e-4
"""How far a logit in float32 may be from PyTorch's, as a share of the largest logit: rounding is a tenth of it."""


@dataclass(frozen=True)
class Student:
    """A run's student in PyTorch, on the CPU, where it is compared."""

    job: Job
    model: PreTrainedModel
    seed: int
    why: str
    """Why this seed."""
    source: FrozenTeacher
    processor: Any

    @cached_property
    def examples(self) -> list[Example]:
        """The validation split as its inputs."""
        return self.job.encoded("validation", self.processor)

    @cached_property
    def outputs(self) -> Outputs:
        """What it says on the validation split."""
        return evaluation.outputs_of(self.source, self.job.task, self.examples, self.job.task.collate(self.processor))

    def calibration(self) -> float:
        """The T at which its probabilities are calibrated, by the validation labels; 1 where rows have none."""
        if not (self.job.task.row_labels and self.job.task.tempered):
            return 1.0
        classes = len(self.source.labels)
        chosen: Sequence[Example] = self.examples
        if len(self.outputs.logits) < len(chosen):
            chosen = evaluation.sample(chosen, classes)
        return fit_temperature([row[:, :classes] for row in self.outputs.logits], label_rows(chosen))


def export(
    run: str | Path,
    format: Format,
    *,
    quantize: Literal["int8"] | None = None,
    out: str | Path | None = None,
    seed: int | None = None,
) -> tuple[Path, Manifest, str]:
    """Write a run's distilled student as a folder that can be shipped; whole or not at all.

    The data of the run's validation split are read again: there the temperature of its probabilities is fitted, and
    the folder is compared with the student in PyTorch before it is put in its place.

    Args:
        run: the folder of a finished run.
        format: ``onnx``, for ``setpoint serve`` and ONNX Runtime; or ``safetensors``, a folder of transformers, which
            ``pipeline()`` loads as it stands.
        quantize: ``int8`` for weights of 8 bits, of ONNX alone.
        out: the folder; in the run's own ``exports`` unless given. An earlier export there is replaced.
        seed: which of the run's students; unless given the one with the best validation score, where the run has
            measured them, else the first.

    Returns:
        The folder, its manifest, and why it was that seed.

    Raises:
        SetpointError: there is no such run or student, or what was written is not what PyTorch computes.
    """
    if quantize is not None and format != "onnx":
        raise ModelError(f"--quantize {quantize} is given for safetensors", "use it with --format onnx")
    if format == "onnx":
        need("onnx", "onnxscript", "onnxruntime")
    path = Path(run)
    place = path / "exports" / "-".join(filter(None, [format, quantize])) if out is None else Path(out)
    _check_place(place)
    student = open_student(open_run(path), seed)
    found = write_export(student, format, quantize, place)
    return place, found, student.why


def write_export(student: Student, format: Format, quantize: str | None, place: Path) -> Manifest:
    """Write a student as a folder, compare and measure it, and put it in its place; gives its manifest.

    Raises:
        SetpointError: what was written is not what PyTorch computes.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{place.name}.", dir=place.parent) as scratch:
        folder = Path(scratch) / "folder"
        folder.mkdir()
        source = _write(student, format, quantize, folder, Path(scratch))
        parity = _compare(student, source, exact=quantize is None)
        found = _describe(student, source, parity, format, quantize, folder)
        write_json(folder / manifests.NAME, found.model_dump(mode="json"))
        sync_files(folder)
        _put(folder, place)
    return found


def open_run(run: Path) -> Job:
    """A finished run's recipe and data; nothing of the run is held.

    Raises:
        SetpointError: there is none, or its data cannot be read.
    """
    return open_job(parse_recipe(read_left(run, "recipe.json")), RunFolder(run))


def open_student(job: Job, seed: int | None = None) -> Student:
    """A run's distilled student.

    Raises:
        SetpointError: there is none, or it cannot be loaded.
    """
    chosen, why = choose_seed(job, seed)
    folder = job.path / f"student/seed-{chosen}"
    if not folder.is_dir():
        raise RunError(f"'{folder}' does not exist", "run the recipe again; it trains what is missing")
    return load_student(job, folder, chosen, why)


def load_student(job: Job, folder: Path, seed: int, why: str) -> Student:
    """A student of a run that lies in a folder, which began from a seed.

    Raises:
        ModelError: it cannot be loaded.
    """
    spec = PretrainedModel(model=str(folder.absolute()))
    model = models.load_model(spec, job.task.model_class(), job.splits.head, needs_head=True, field="student")
    models.order_classes(model, job.splits.head, "student")
    processor = models.load_tokenizer(folder.absolute()) if job.task.text else None
    classes = job.task.classes(job.splits.labels, processor)
    source = FrozenTeacher(model, classes, name="student", reading=job.task)
    return Student(job, model, seed, why, source, processor)


def choose_seed(job: Job, wanted: int | None) -> tuple[int, str]:
    """Which of a run's students to ship, and why.

    Raises:
        RunError: the run has no student of that seed.
    """
    seeds = job.recipe.seeds
    if wanted is not None:
        if wanted not in seeds:
            raise RunError(f"'{job.path}' has no student of seed {wanted}", f"give one of {', '.join(map(str, seeds))}")
        return wanted, "as asked for"
    name = f"eval_{job.task.metric}"
    scores = {}
    for seed in seeds:
        mark = job.folder.mark(f"student-seed-{seed}")
        logged = [] if mark is None else [entry[name] for entry in mark["result"].get("log", []) if name in entry]
        if logged:  # where it is measured, the best epoch is kept
            scores[seed] = max(logged)
    if len(seeds) == 1:
        return seeds[0], "the only one"
    if len(scores) < len(seeds):
        return seeds[0], "the first: the run has not measured them on the validation split"
    best = max(scores, key=lambda seed: scores[seed])
    return best, f"the best on the validation split, {job.task.metric} {scores[best]:.4f}"


def _check_place(place: Path) -> None:
    """Refuse to replace what no export wrote."""
    if place.exists() and not (place / manifests.NAME).is_file() and (not place.is_dir() or any(place.iterdir())):
        raise ModelError(f"'{place}' holds something that is no export", "choose another with --out")


def _write(student: Student, format: Format, quantize: str | None, folder: Path, scratch: Path) -> TargetSource:
    """Write configuration, tokenizer and model; give the model as it is loaded again."""
    model, processor, job = student.model, student.processor, student.job
    if processor is not None:
        processor.model_max_length = job.recipe.data.max_length  # where others cut a text, too
        processor.save_pretrained(folder)
    elif format == "safetensors":
        for name, content in job.task.model_files().items():
            write_json(folder / name, content)
    labels = student.source.labels
    if format == "safetensors":
        model.save_pretrained(folder)
        spec = PretrainedModel(model=str(folder))
        again = models.load_model(spec, job.task.model_class(), job.splits.head, needs_head=True)
        return FrozenTeacher(again, labels, name="student", reading=job.task)
    model.config.save_pretrained(folder)
    whole = (folder if quantize is None else scratch) / "model.onnx"
    write_onnx(model, example_batch(student), input_names(student), whole, job.task.parts)
    source = OnnxModel(whole, labels, reading=job.task)
    if quantize is None:
        return source
    _compare(student, source, exact=True)
    quantise(whole, folder / "model.onnx")
    return OnnxModel(folder / "model.onnx", labels, reading=job.task)


def example_batch(student: Student) -> dict[str, Any]:
    """The shortest and the longest validation example as a batch, so that there is padding in it."""
    order = sorted(student.examples, key=lambda example: len(example.get("input_ids", ())))
    return student.job.task.collate(student.processor)([order[0], order[-1]])


def input_names(student: Student) -> list[str]:
    """The columns of a batch that the model takes."""
    return [name for name in example_batch(student) if student.source.takes(name)]


def _compare(student: Student, source: TargetSource, *, exact: bool) -> Parity:
    """How near what was written is to PyTorch; refused where it should be exact and is not."""
    found = compare(student.source, source, student.examples, student.job.task.collate(student.processor))
    if exact and not found.largest <= TOLERANCE * found.scale:
        raise ModelError(
            f"what was written differs from PyTorch by {found.largest:.2g} in logits of up to {found.scale:.3g},"
            f" more than {TOLERANCE:g} of them",
            "nothing is left of it; use another --format",
        )
    return found


def _describe(
    student: Student, source: TargetSource, parity: Parity, format: Format, quantize: str | None, folder: Path
) -> Manifest:
    job = student.job
    references = job.task.references(student.examples)
    rows = evaluation.predict(source, student.examples, job.task.collate(student.processor), keep=job.task.scored)
    metric, pixels = job.task.metric, student.examples[0].get("pixel_values")

    def score(logits: Rows) -> float:
        return job.task.scores(logits, references, job.splits.labels)[metric](ALL)

    return Manifest(
        name=job.recipe.name,
        fingerprint=digest_json(job.recipe.model_dump(mode="json")),
        seed=student.seed,
        task=job.recipe.task,
        labels=job.splits.labels,
        outputs=job.splits.outputs,
        columns=job.task.input_columns(),
        max_length=job.recipe.data.max_length if job.task.text else None,
        fields={name: getattr(job.recipe.data, name) for name in job.task.shipped_fields},
        image_shape=tuple(pixels.shape) if pixels is not None else None,
        pixels=pixel_settings(job.recipe.data) if pixels is not None else None,
        model="model.onnx" if format == "onnx" else "model.safetensors",
        inputs=tuple(input_names(student)),
        dtype="float32" if quantize is None else "int8",
        temperature=student.calibration(),
        parity=parity,
        validation=Measured(
            metric=metric, value=score(rows), pytorch=score(student.outputs.scored), examples=len(student.examples)
        ),
        setpoint=version("setpoint"),
        files=manifests.record_files(folder),
    )


def fit_temperature(rows: Rows, labels: Rows) -> float:
    """The T at which logits are calibrated on held-out labels; 1 where no finite one is best."""
    z, y = (torch.from_numpy(np.concatenate(list(parts))) for parts in (rows, labels))
    found = calibrate_temperature(z, y)
    return 1.0 if found in CALIBRATION_RANGE or not math.isfinite(found) else found


def _put(folder: Path, place: Path) -> None:
    """Move a finished folder to its place, that of an earlier export among them."""
    old = folder.with_name("old")
    if place.exists():
        place.rename(old)
    folder.rename(place)
    sync_folder(place.parent)
    shutil.rmtree(old, ignore_errors=True)


def push(folder: str | Path, repository: str) -> str:
    """Upload an exported folder to a repository of the Hugging Face Hub, which is made where it is not there.

    Returns:
        The address of the upload.

    Raises:
        ModelError: the Hub does not take it.
    """
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi()
    try:
        api.create_repo(repository, exist_ok=True)
        return str(api.upload_folder(folder_path=str(folder), repo_id=repository))
    except (HfHubHTTPError, HFValidationError, httpx.HTTPError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ModelError(f"the Hub does not take '{repository}' ({reason})", "log in with hf auth login") from None
