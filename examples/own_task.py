"""A task of one's own, from data to report: is a handwritten digit odd? A new domain is a subclass of ``Task``."""

import numpy as np
import torch
from datasets import Dataset
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score, roc_auc_score
from transformers import AutoModelForImageClassification

from setpoint import Splits, Task, add_task, run
from setpoint.recipe_file import parse_recipe


class OddDigits(Task):
    name, metric, score_names, text = "odd-digits", "accuracy", ("accuracy", "auc"), False

    def load(self):  # three splits with an id each, and the classes of a row
        digits = load_digits()
        columns = {"id": [f"digit-{i}" for i in range(1797)], "image": digits.images / 16, "label": digits.target % 2}
        data = Dataset.from_dict(columns)
        return Splits(*(data.select(range(*ends)) for ends in ((0, 1000), (1000, 1300), (1300, 1797))), ("even", "odd"))

    def encode(self, split, processor):  # model inputs, and the label of each row: here one an example
        return [self._encoded(row["id"], row["image"], row["label"]) for row in split]

    def _encoded(self, name, image, label):
        return {"id": name, "pixel_values": torch.tensor(image, dtype=torch.float32)[None], "labels": label}

    def collate(self, processor):
        return lambda examples: {
            "pixel_values": torch.stack([example["pixel_values"] for example in examples]),
            "labels": torch.tensor([example["labels"] for example in examples]),
            "example_id": [example["id"] for example in examples],
        }

    def model_class(self):
        return AutoModelForImageClassification

    def scores(self, logits, labels, names):  # higher is better, of any part of the examples
        z, y = np.concatenate(logits), np.concatenate(labels)
        return {
            "accuracy": lambda part: float(accuracy_score(y[part], z[part].argmax(-1))),
            "auc": lambda part: float(roc_auc_score(y[part], z[part, 1] - z[part, 0])),
        }


add_task(OddDigits)
net = {"model_type": "setpoint-convnet"}
train = {"epochs": 4, "batch_size": 50, "learning_rate": 0.01}
recipe = {
    "name": "odd-digits", "task": "odd-digits", "data": {"dataset": "its own"}, "temperature": 2, "train": train,
    "teacher": {"model": {"kind": "config", "config": net | {"widths": [16, 32]}}, "train": train},
    "student": {"model": {"kind": "config", "config": net | {"widths": [4, 8]}}},
}  # fmt: skip
if __name__ == "__main__":
    print("accuracy of the student:", run(parse_recipe(recipe), "runs/odd-digits")["student"]["metrics"]["accuracy"])
