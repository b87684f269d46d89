"""A label for each image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from datasets import Dataset
from torch import Tensor
from transformers import AutoModelForImageClassification

import setpoint.vision  # noqa: F401 - registers the project's own small network
from setpoint.recipe_images import Augment, PixelRecipe, pixel_settings
from setpoint.tasks.augment import augmented
from setpoint.tasks.base import Batch, Collate, Example, Rows, Scores, Splits, Task
from setpoint.tasks.checks import check_shapes, is_file_content, pick
from setpoint.tasks.classification_metrics import class_answer, classification_scores, classification_tables
from setpoint.tasks.image_processor import NAME, processor_config, take_over
from setpoint.tasks.labels import as_names, class_names, feature_names, to_ids
from setpoint.tasks.pixels import pictures_of, to_pixels, white_of
from setpoint.tasks.readers import read_splits


class ImageClassification(Task):
    """Images with labels; a row for each image."""

    name: ClassVar[str] = "image-classification"
    metric: ClassVar[str] = "accuracy"
    score_names: ClassVar[tuple[str, ...]] = ("accuracy", "f1", "mcc")
    text: ClassVar[bool] = False
    augments: ClassVar[tuple[str, ...]] = ("shift", "flip", "mixup", "cutmix")

    def load(self) -> Splits:
        """Read and check images and labels."""
        data = self.data
        raw = read_splits(data, ("image", "label"))
        kept = feature_names(raw["train"], data.label)
        names = {
            split: as_names(dataset[data.label], feature_names(dataset, data.label)) for split, dataset in raw.items()
        }
        labels = class_names(data.labels, kept, names["train"])
        splits = {}
        for split, dataset in raw.items():
            # The column as it is: reading it here would decode every picture and pack it again.
            images = dataset.select_columns(["id", data.image]).rename_columns({data.image: "image"})
            splits[split] = images.add_column("label", to_ids(names[split], labels, split))
        return Splits(splits["train"], splits["validation"], splits["test"], labels)

    def encode(self, split: Dataset, processor: Any) -> list[Example]:
        """Pixels ``[channels, H, W]``, in [0, 1] unless ``data`` normalises them."""
        names, pixels = split["id"][:], read_images(split, self.data)
        check_shapes([tuple(image.shape) for image in pixels], names)
        return [
            {"id": name, "pixel_values": image, "labels": label}
            for name, image, label in zip(names, pixels, split["label"], strict=True)
        ]

    def input_columns(self) -> dict[str, str]:
        """An image."""
        return {"image": self.data.image}

    def read_input(self, value: Any, where: str) -> Tensor:
        """Pixels as ``encode`` makes them, of a picture, the bytes of a file of one, an array or nested lists."""
        image = value if is_file_content(value) else pick(value, self.input_columns(), where)[0]
        return to_pixels(image, where, self.data)

    def input_length(self, value: Any) -> int:
        """An image has no text."""
        return 0

    def encode_inputs(self, inputs: Sequence[Any], processor: Any) -> list[Example]:
        """Images without labels; they must be of one size."""
        names = [f"input {i}" for i in range(len(inputs))]
        check_shapes([tuple(image.shape) for image in inputs], names)
        return [{"id": name, "pixel_values": image, "labels": 0} for name, image in zip(names, inputs, strict=True)]

    def answers(self, inputs: Sequence[Any], probabilities: Rows, names: tuple[str, ...]) -> list[dict[str, Any]]:
        """The label of each image, its probability, and those of all."""
        return [class_answer(row[0], names) for row in probabilities]

    def collate(self, processor: Any) -> Collate:
        """Stack images of one size."""

        def collate(examples: list[Example]) -> Batch:
            return {
                "pixel_values": torch.stack([example["pixel_values"] for example in examples]),
                "labels": torch.tensor([example["labels"] for example in examples]),
                "example_id": [example["id"] for example in examples],
            }

        return collate

    def model_class(self) -> Any:
        """The Auto class with a head over the whole image."""
        return AutoModelForImageClassification

    def scores(self, logits: Rows, labels: Rows, names: tuple[str, ...]) -> Scores:
        """Accuracy, macro F1, Matthews correlation."""
        return classification_scores(logits, labels, names)

    def tables(self, logits: Rows, labels: Rows, names: tuple[str, ...]) -> dict[str, Any]:
        """The table over classes."""
        return classification_tables(logits, labels, names)

    def augment(
        self, example: Example, generator: torch.Generator, steps: Sequence[Augment], examples: Sequence[Example]
    ) -> Example:
        """The image after some steps of ``data.augment``; its label is still the first image's where two are mixed."""
        return example | {"pixel_values": augmented(example["pixel_values"], steps, examples, generator)}

    def take_over(self, models: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """Size, colours and normalisation that ``data`` leaves open, as a model with weights has them."""
        return take_over(self.data, models)

    def model_files(self) -> dict[str, Any]:
        """How transformers prepares pictures alike."""
        return {NAME: processor_config(self.data)}

    def preprocessing(self) -> dict[str, Any]:
        """As any task's, with what is done to pictures; where that is nothing, no more, as in stores from before."""
        return super().preprocessing() | pixel_settings(self.data).model_dump(mode="json", exclude_defaults=True)


def read_images(split: Dataset, how: PixelRecipe) -> list[Tensor]:
    """Pixels ``[channels, H, W]`` of each picture of the column ``image``, as ``to_pixels`` makes them.

    Raises:
        DataError: naming the first example whose picture cannot be read.
    """
    names, white = split["id"][:], white_of(split.features["image"])
    pictures = zip(pictures_of(split, names), names, strict=True)
    return [to_pixels(picture, name, how, white) for picture, name in pictures]
