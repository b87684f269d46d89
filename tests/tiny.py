"""The smallest named-entity job there is: sentences whose entities can be told by the word, and a BERT to match."""

import torch
from transformers import BertConfig, BertForTokenClassification

from setpoint.pretraining import train_tokenizer

NAMES = {"PER": ["anna", "bob", "carla"], "LOC": ["paris", "rome", "oslo"]}
TAGS = ["O", "B-LOC", "B-PER"]
SMALL = {
    "model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
    "max_position_embeddings": 32,
}  # fmt: skip


def sentences(n, offset=0):
    lines = []
    for i in range(offset, offset + n):
        person, place = NAMES["PER"][i % 3], NAMES["LOC"][(i // 3) % 3]
        words = [(person, "B-PER"), ("lives", "O"), ("in", "O"), (place, "B-LOC")][: 2 + i % 3]
        lines += [f"{word} {tag}" for word, tag in words] + [""]
    return "\n".join(lines)


def save_teacher(folder, labels=("B-PER", "O", "B-LOC")):
    """A BERT that knows nothing yet; its head has the labels in another order than the data, unless told otherwise."""
    tokenizer = train_tokenizer([sentences(30).replace("B-", "").replace("\n", " ")], vocab_size=120)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32, id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
    )  # fmt: skip
    model = BertForTokenClassification(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def ner_recipe(folder, teacher):
    """A recipe for the tiny teacher, as plain data, beside data written into a folder."""
    for split, n, offset in (("train", 48, 0), ("dev", 12, 48), ("test", 12, 60)):
        (folder / f"{split}.conll").write_text(sentences(n, offset))
    return {
        "name": "tiny",
        "task": "token-classification",
        "data": {"train": "./train.conll", "validation": "./dev.conll", "test": "./test.conll", "max_length": 16},
        "teacher": {"model": str(teacher), "train": {"epochs": 6, "batch_size": 8, "learning_rate": 5e-3}},
        "student": {"model": {"kind": "config", "config": SMALL}},
        "temperature": 2,
        "targets": {"dtype": "float32", "shard_examples": 20},
        "train": {"epochs": 3, "batch_size": 8, "learning_rate": 3e-3},
        "seeds": [0],
    }
