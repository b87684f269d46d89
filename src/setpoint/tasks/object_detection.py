"""Boxes and classes of the objects in each image, by detectors that find sets of them, as DETR does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForObjectDetection

import setpoint.detr  # noqa: F401 - registers the project's own small network
from setpoint.errors import DataError, ModelError
from setpoint.maths.detection import match_queries, set_loss, teach
from setpoint.reading import LossRows
from setpoint.recipe_images import Augment
from setpoint.tasks.agreement import agreement
from setpoint.tasks.average_precision import AveragePrecision, Found, Objects
from setpoint.tasks.base import Batch, Collate, Example, References, Rows, Scores, Splits, Task
from setpoint.tasks.checks import check_shapes, shown
from setpoint.tasks.image_classification import ImageClassification
from setpoint.tasks.labels import as_names, sorted_labels, to_ids
from setpoint.tasks.pixels import picture_size, pictures_of, to_pixels, white_of
from setpoint.tasks.readers import read_splits
from setpoint.types import IGNORED_LABEL, logits_of, part_of

NO_OBJECT = "no object"
"""The last class of every query."""
SURE = 0.5
"""An answer has the objects that are as probable, or more."""


class ObjectDetection(ImageClassification):
    """Images with boxes; a row for each of the detector's queries, with the query's box beside its logits.

    A row has no label of its own: the objects are matched to the queries anew at each step, and so are the teacher's
    queries to the student's.
    """

    name: ClassVar[str] = "object-detection"
    metric: ClassVar[str] = "map"
    score_names: ClassVar[tuple[str, ...]] = ("map", "map_50")
    beside: ClassVar[tuple[str, ...]] = ("map_50",)
    row_labels: ClassVar[bool] = False
    aligned: ClassVar[bool] = False
    shipped_fields: ClassVar[tuple[str, ...]] = ("queries",)
    extras = 4
    parts = ("logits", "pred_boxes")

    def load(self) -> Splits:
        """Read and check images and the classes of their objects; the boxes are checked with the images."""
        data = self.data
        if isinstance(data.image_size, int) or data.resize is not None:
            raise DataError(
                "data.image_size or data.resize cuts images, which boxes do not follow",
                "give data.image_size as [height, width] alone, or leave both out",
            )
        raw = read_splits(data, ("image", "objects"))
        kept = _kept_names(raw["train"].features[data.objects])
        names = {
            split: [as_names(given["category"], kept) for given in dataset[data.objects]]
            for split, dataset in raw.items()
        }
        labels = data.labels or kept or sorted_labels(label for given in names["train"] for label in given)
        if not labels:
            raise DataError("data.train has no object", "give images with some, or list the classes in data.labels")
        splits = {}
        for split, dataset in raw.items():
            boxes = [given["bbox"] for given in dataset[data.objects]]
            ids = [to_ids(given, labels, split) for given in names[split]]
            images = dataset.select_columns(["id", data.image]).rename_columns({data.image: "image"})
            splits[split] = images.add_column("boxes", boxes).add_column("classes", ids)
        self._labels, rows = tuple(labels), (*labels, NO_OBJECT)
        return Splits(splits["train"], splits["validation"], splits["test"], rows, tuple(labels))

    def encode(self, split: Dataset, processor: Any) -> list[Example]:
        """Pixels as of a classified image; objects as ``task_classes`` ``[M]`` and ``task_boxes`` ``[M, 4]``.

        Boxes are centre, width and height in shares of the image, which no resizing changes.
        """
        names, most, examples = split["id"][:], white_of(split.features["image"]), []
        for image, name, boxes, classes in zip(
            pictures_of(split, names), names, split["boxes"], split["classes"], strict=True
        ):
            if len(boxes) > self.data.queries:
                raise DataError(
                    f"example '{name}' has {len(boxes)} objects where data.queries is {self.data.queries}",
                    "raise data.queries, to what the models have",
                )
            pixels, size = to_pixels(image, name, self.data, most), picture_size(image, name)
            examples.append(self._example(name, pixels, classes, to_shares(boxes, *size, name)))
        check_shapes([tuple(example["pixel_values"].shape) for example in examples], names)
        return examples

    def encode_inputs(self, inputs: Sequence[Any], processor: Any) -> list[Example]:
        """Images without objects; they must be of one size."""
        return [
            self._example(example["id"], example["pixel_values"], [], torch.zeros(0, 4))
            for example in super().encode_inputs(inputs, processor)
        ]

    def _example(self, name: str, pixels: Tensor, classes: Sequence[int], boxes: Tensor) -> Example:
        objects = {"task_classes": torch.tensor(classes, dtype=torch.long), "task_boxes": boxes}
        return {"id": name, "pixel_values": pixels, "labels": [0] * self.data.queries, **objects}

    def collate(self, processor: Any) -> Collate:
        """Stack images of one size, and pad their objects."""
        stack = super().collate(processor)

        def collate(examples: list[Example]) -> Batch:
            classes, boxes = ([example[name] for example in examples] for name in ("task_classes", "task_boxes"))
            return stack(examples) | {
                "task_classes": pad_sequence(classes, batch_first=True, padding_value=IGNORED_LABEL),
                "task_boxes": pad_sequence(boxes, batch_first=True),
            }

        return collate

    def model_class(self) -> Any:
        """The Auto class of detectors."""
        return AutoModelForObjectDetection

    def logits(self, output: Any, batch: Mapping[str, Any]) -> Tensor:
        """Logits and box of each query, ``[B, Q, C + 1 + 4]``."""
        logits, boxes = logits_of(output), part_of(output, "pred_boxes")
        if logits.shape[1] != self.data.queries:
            raise ModelError(
                f"the model has {logits.shape[1]} queries where data.queries is {self.data.queries}",
                "give both the same number, which teacher and student share",
            )
        if logits.shape[-1] != self._classes() + 1:
            raise ModelError(
                f"the model has {logits.shape[-1]} outputs a query where the data have {self._classes()} classes",
                f"give a detector whose last output is '{NO_OBJECT}', such as DETR or YOLOS",
            )
        return torch.cat([logits, boxes.to(logits.dtype)], -1)

    def _classes(self) -> int:
        return len(self._labels if self.data.labels is None else self.data.labels)

    def loss_rows(self, logits: Tensor, batch: Mapping[str, Any], teacher: Tensor | None) -> LossRows:
        """Each query's divergence from the teacher's query that it is matched to, and its loss on its object."""
        z, boxes = logits[..., : -self.extras], logits[..., -self.extras :]
        hard, labels = set_loss(z, boxes, batch["task_classes"], batch["task_boxes"])
        if teacher is None:
            return LossRows(z.flatten(0, 1), None, labels.flatten(), hard_loss=hard.flatten())
        v = teacher.reshape(logits.shape)
        taught, weight, beside = teach(z, boxes, v[..., : -self.extras], v[..., -self.extras :])
        each = (taught.flatten(0, 1), labels.flatten(), beside.flatten(), hard.flatten(), weight.flatten())
        return LossRows(z.flatten(0, 1), *each)

    def references(self, examples: Sequence[Example]) -> References:
        """The boxes and classes that are there."""
        return [Objects(example["task_boxes"].numpy(), example["task_classes"].numpy()) for example in examples]

    def scores(self, logits: Rows, references: References, names: tuple[str, ...]) -> Scores:
        """COCO's mean average precision over IoU from 0.5 to 0.95, and at 0.5."""
        precision = AveragePrecision([_found(row) for row in logits], references, len(names) - 1)
        return {"map": precision, "map_50": lambda part: precision(part, 0.5)}

    def tables(self, logits: Rows, references: References, names: tuple[str, ...]) -> dict[str, Any]:
        """The average precision of each class, with how many objects there are."""
        table = AveragePrecision([_found(row) for row in logits], references, len(names) - 1).by_class(slice(None))
        counts = np.bincount(np.concatenate([one.classes for one in references]), minlength=len(names) - 1)
        rows = {
            name: {"map": float(table[:, c].mean()), "map_50": float(table[0, c]), "support": int(counts[c])}
            for c, name in enumerate(names[:-1])
            if counts[c]
        }
        return {"classes": rows}

    def agreement(self, student: Rows, teacher: Rows, names: tuple[str, ...]) -> dict[str, float] | None:
        """How alike queries are that are matched."""
        aligned = []
        for mine, its in zip(student, teacher, strict=True):
            z, v = torch.from_numpy(mine)[None], torch.from_numpy(its)[None]
            order = match_queries(z[..., :-4], z[..., -4:], v[..., :-4], v[..., -4:])[0]
            aligned.append(its[order.numpy()])
        return agreement(student, aligned, len(names))

    def loss(self, logits: Rows, references: References) -> float:
        """The mean over queries of the loss on their objects, at T = 1."""
        total, rows = 0.0, 0
        for row, there in zip(logits, references, strict=True):
            z = torch.from_numpy(row)[None]
            each, _ = set_loss(
                z[..., :-4], z[..., -4:], torch.from_numpy(there.classes)[None], torch.from_numpy(there.boxes)[None]
            )
            total, rows = total + float(each.double().sum()), rows + len(row)
        return total / rows

    def answers(self, inputs: Sequence[Any], probabilities: Rows, names: tuple[str, ...]) -> list[dict[str, Any]]:
        """The objects in each image with a score of ½ or more, the surest first: label, score, and the box in pixels.

        A box is [x, y, width, height], as in the data, of the image as the model reads it.
        """
        answers = []
        for image, row in zip(inputs, probabilities, strict=True):
            height, width = image.shape[-2:]
            best = row[:, :-5].argmax(-1)
            score = row[np.arange(len(row)), best]
            objects = []
            for q in np.argsort(-score, kind="stable"):
                if score[q] >= SURE:
                    x, y, w, h = row[q, -4:].astype(float) * (width, height, width, height)
                    box = [round(side, 2) for side in (x - w / 2, y - h / 2, w, h)]
                    objects.append({"label": names[best[q]], "score": round(float(score[q]), 6), "box": box})
            answers.append({"objects": objects})
        return answers

    def augment(
        self, example: Example, generator: torch.Generator, steps: Sequence[Augment], examples: Sequence[Example]
    ) -> Example:
        """None: boxes would have to move with the pixels."""
        return Task.augment(self, example, generator, steps, examples)

    def preprocessing(self) -> dict[str, Any]:
        """As of images, with the number of rows."""
        return super().preprocessing() | {"queries": self.data.queries}


def to_shares(boxes: Sequence[Sequence[float]], height: int, width: int, name: str) -> Tensor:
    """Boxes ``[M, 4]`` as [x, y, width, height] in pixels to centre, width and height in shares of the image.

    Args:
        boxes: of one image.
        height: of the image.
        width: of the image.
        name: of the example, for errors.

    Raises:
        DataError: a box without area, or one that is not inside the image.

    Examples:
        >>> to_shares([[0, 0, 10, 10]], 20, 40, "a")
        tensor([[0.1250, 0.2500, 0.2500, 0.5000]])
    """
    for x, y, w, h in boxes:
        if w <= 0 or h <= 0:
            raise DataError(f"example '{name}' has the box {shown([x, y, w, h])}, without area", "give sides above 0")
        if x < 0 or y < 0 or x + w > width or y + h > height:
            raise DataError(
                f"example '{name}' has the box {shown([x, y, w, h])}, which is not inside its image of"
                f" {width}x{height}",
                "give [x, y, width, height] in pixels, from the top left",
            )
    given = torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4)
    sides = torch.tensor([width, height], dtype=torch.float64)
    return torch.cat([(given[:, :2] + given[:, 2:] / 2) / sides, given[:, 2:] / sides], -1).float()


def _found(row: np.ndarray) -> Found:
    """Each query's likeliest class of an object, with its probability at T = 1."""
    z = row[:, :-4].astype(np.float64)
    p = np.exp(z - z.max(-1, keepdims=True))
    p = (p / p.sum(-1, keepdims=True))[:, :-1]
    return Found(row[:, -4:].astype(np.float64), p.argmax(-1), p.max(-1))


def _kept_names(feature: Any) -> tuple[str, ...] | None:
    """The names of the classes that a hub data set keeps, where it does."""
    feature = getattr(feature, "feature", feature)  # a list of objects
    category = feature.get("category") if isinstance(feature, Mapping) else None
    category = getattr(category, "feature", category)
    names = getattr(category, "names", None)
    return None if names is None else tuple(names)
