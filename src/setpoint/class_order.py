"""The classes of a model's head: their names, and their order, which is brought to that of the data."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from transformers import AutoModelForCTC, PreTrainedModel

from setpoint.errors import ModelError
from setpoint.surgery import head_modules

UNNAMED = r"LABEL_\d+"
"""What transformers calls classes that were given no names."""


def match_classes(model_labels: Mapping[int, str], labels: Sequence[str], who: str) -> list[int] | None:
    """For each data label its column in a model's logits, matched by name; None where the order is the same.

    Args:
        model_labels: ``config.id2label``. Names such as LABEL_0 are no names; then only the count is compared.
        labels: the data's class names, in order.
        who: names the model in the error.

    Raises:
        ModelError: the two sets of labels differ.

    Examples:
        >>> match_classes({0: "yes", 1: "no"}, ("no", "yes"), "teacher")
        [1, 0]
    """
    names = [model_labels[index] for index in sorted(model_labels)]
    if len(names) != len(labels):
        raise ModelError(
            f"the {who} has {len(names)} classes where the data have {len(labels)}",
            f"give a {who} with the labels {', '.join(labels[:12])}",
        )
    if all(re.fullmatch(UNNAMED, name) for name in names):
        return None
    different = sorted(set(names) ^ set(labels))
    if different:
        raise ModelError(
            f"the labels of {who} and data differ in {', '.join(map(repr, different[:6]))}",
            f"give a {who} with the labels of the data, or set data.labels",
        )
    order = [names.index(label) for label in labels]
    return None if order == list(range(len(labels))) else order


def name_classes(model: PreTrainedModel, names: Sequence[str] | None, who: str) -> None:
    """Give the classes of a trained model their names, where its configuration has none.

    Raises:
        ModelError: nobody has named them, so that their order is a guess; or there are not as many names as classes.
    """
    classes = model.config.id2label
    if len(classes) == 1:  # of one output there is no order
        return
    if names is None:
        if all(re.fullmatch(UNNAMED, name) for name in classes.values()):
            raise ModelError(
                f"the {who} has no names for its {len(classes)} classes, only {', '.join(list(classes.values())[:3])}",
                f"set {who}.labels to their names in its order",
            )
        return
    if len(names) != len(classes):
        raise ModelError(f"{who}.labels names {len(names)} classes of {len(classes)}", "name each of them")
    model.config.update(label_fields(names))


def order_classes(model: PreTrainedModel, labels: Sequence[str] | None, who: str) -> PreTrainedModel:
    """Bring a model's head into the order of the data's labels, in place; a head without names stays as it is.

    Raises:
        ModelError: the two sets of labels differ, or the head cannot be reordered.
    """
    if labels is None:
        return model
    order = match_classes(model.config.id2label, labels, who)
    if order is not None:
        outputs = [
            module
            for name, head in head_modules(model).items()
            for module in head.modules()
            if isinstance(module, nn.Linear) and module.out_features == len(labels)
            if "bbox" not in name  # four numbers of a box are no four classes
        ]
        if not outputs:
            raise ModelError(
                f"the {who} has its labels in another order, and no linear head to reorder",
                f"set data.labels to [{', '.join(model.config.id2label.values())}]",
            )
        moved = list(outputs[-1].parameters())
        if outputs[-1] is model.get_output_embeddings():  # what goes in is numbered likewise; the two may be one
            moved += [w for w in model.get_input_embeddings().parameters() if all(w is not other for other in moved)]
        for parameter in moved:
            parameter.data = parameter.data[order].clone()
    model.config.update(label_fields(labels))
    return model


def label_fields(labels: Sequence[str] | None, model_class: Any = None) -> dict[str, Any]:
    """The names of classes; and the size of a new head of CTC, whose first class is the blank."""
    if labels is None:
        return {}
    ctc = {"vocab_size": len(labels), "pad_token_id": 0} if model_class is AutoModelForCTC else {}
    return {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}} | ctc
