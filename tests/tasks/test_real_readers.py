"""The real files of ../shared/data, counted; skipped where the folder is absent."""

from collections import Counter

import pytest

from reading import SPLITS, read
from setpoint.recipe import DataRecipe
from setpoint.tasks.audio import recordings
from setpoint.tasks.image_classification import ImageClassification
from setpoint.tasks.readers import read_splits

pytestmark = pytest.mark.shared


def sizes(splits):
    return {split: len(part) for split, part in splits.items()}


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_idx(shared, name):
    files = {split: str(shared / name / f"{split}-images-idx3-ubyte.gz") for split in ("train", "t10k")}
    got = read(files["train"], ("image", "label"), validation=None, test=files["t10k"])
    assert sizes(got) == {"train": 54_000, "validation": 6_000, "test": 10_000}
    assert Counter(got["test"]["label"]).keys() == set("0123456789")
    if name == "mnist":
        assert got["test"]["label"][:8] == list("72104149")  # as everybody's notebook shows
    else:
        assert set(Counter(got["test"]["label"]).values()) == {1000}


def test_pictures_in_an_archive(shared):
    folder = shared / "cifar10"
    data = DataRecipe(
        train=str(folder / "train.npz"), test=str(folder / "test.npz"), image="jpeg",
        shares={"train": 0.9, "validation": 0.1}, limit={"test": 200},
    )  # fmt: skip
    got = read_splits(data, ("image", "label"))
    assert sizes(got) == {"train": 45_000, "validation": 5_000, "test": 200}
    assert set(Counter(got["validation"]["label"]).values()) == {500}
    examples = ImageClassification(data).encode(ImageClassification(data).load().test, None)
    assert {tuple(example["pixel_values"].shape) for example in examples} == {(3, 32, 32)}


def test_recordings_by_speaker_or_by_the_official_rule(shared):
    path = shared / "fsdd/fsdd.npz"
    assert sizes(read(path, ("audio", "label"), label="digit")) == dict.fromkeys(SPLITS, 3_000)
    only = {"train": {"is_test": [False]}, "test": {"is_test": [True]}}
    got = read(path, ("audio", "label"), label="digit", validation=None, only=only)
    assert sizes(got) == {"train": 2_430, "validation": 270, "test": 300}
    assert set(Counter(got["test"]["digit"]).values()) == {30}
    lengths = [len(samples) for split in got.values() for samples, _ in recordings(split, "audio")]
    assert (len(lengths), min(lengths), max(lengths)) == (3_000, 1_148, 18_262)
    only = {"train": {"speaker": [0, 1, 2, 3]}, "validation": {"speaker": [4]}, "test": {"speaker": [5]}}
    got = read(path, ("audio", "label"), label="digit", only=only)
    assert sizes(got) == {"train": 2_000, "validation": 500, "test": 500}


def test_questions_by_article(shared):
    path, asked = shared / "squad_v1.1/dev-v1.1.json.gz", ("question", "context", "answers")
    whole = read(path, asked)["test"]
    assert len(whole) == 10_570
    assert sum(len(answers["text"]) for answers in whole["answers"]) == 34_726
    assert len(set(whole["context"])) == 2_067
    got = read(path, asked, validation=None, test=None, split_by="title")
    assert sizes(got) == {"train": 7_135, "validation": 701, "test": 2_734}
    contexts = [set(part["context"]) for part in got.values()]
    assert sum(map(len, contexts)) == len(set.union(*contexts)) == 2_067


def test_ratings(shared):
    folder, fields = shared / "movielens100k", {"columns": ["user", "item", "rating", "time"], "time": "time"}
    got = read(folder / "u.data.gz", ("user", "item", "rating", "time"), **fields)["train"]
    assert (len(got), len(set(got["user"])), len(set(got["item"]))) == (100_000, 943, 1_682)
    assert set(got["rating"]) == {1, 2, 3, 4, 5}
    fold = read(folder / "u1.test.gz", ("user", "item", "rating"), format="tsv", **fields)["test"]
    assert len(fold) == 20_000


def test_texts(shared):
    for name, count in (("wikitext2.valid", 3_760), ("wikitext2.test", 4_358), ("tinyshakespeare", 40_000)):
        assert len(read(shared / f"lm_text/{name}.txt.gz", ("text",))["train"]) == count
    folder = shared / "newsgroups20"
    got = read(folder / "train.jsonl.xz", ("text", "label"), test=str(folder / "test.jsonl.xz"))
    assert (len(got["train"]), len(got["test"]), len(set(got["train"]["label"]))) == (11_314, 7_532, 20)
