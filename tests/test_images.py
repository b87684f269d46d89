"""Images from recipe to shipped student: sizes, normalisation, views and mixing, with any model of transformers."""

import json

import numpy as np
import pytest
import torch
from datasets import Dataset
from datasets import Image as Picture
from PIL import Image
from transformers import AutoModelForImageClassification, ConvNextConfig, ResNetConfig, ViTConfig, pipeline

from setpoint import pipeline as line
from setpoint import teachers
from setpoint.errors import ModelError, RecipeError
from setpoint.job import open_job
from setpoint.recipe_file import parse_recipe
from setpoint.run_folder import RunFolder
from setpoint.shipping.export import export
from setpoint.shipping.shipped import Shipped
from setpoint.stages import make_trainer

LABELS = ["dark", "light"]
VIT = {
    "model_type": "vit", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
    "image_size": 12, "patch_size": 4, "num_channels": 3,
}  # fmt: skip
RESNET = {
    "model_type": "resnet", "embedding_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1], "layer_type": "basic",
    "num_channels": 3,
}  # fmt: skip
OWN = {"model_type": "setpoint-resnet", "depth": 1, "widths": [4, 8]}
TRAIN = {"epochs": 2, "batch_size": 16, "learning_rate": 1e-2}


def write(folder, count=40, seed=0):
    """Coloured pictures of several sizes, dark or light, as Parquet files of pictures."""
    random = np.random.default_rng(seed)
    for split in ("train", "validation", "test"):
        rows = []
        for i in range(count):
            height, width = random.integers(14, 24, 2)
            low = 0 if i % 2 == 0 else 128
            pixels = random.integers(low, low + 128, (height, width, 3))
            rows.append({"image": Image.fromarray(pixels.astype(np.uint8)), "label": LABELS[i % 2]})
        Dataset.from_list(rows).cast_column("image", Picture()).to_parquet(folder / f"{split}.parquet")


def recipe(folder, **changes):
    files = {split: str(folder / f"{split}.parquet") for split in ("train", "validation", "test")}
    data = files | {"image_size": 12, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]}
    raw = {
        "name": "pictures", "task": "image-classification", "data": data,
        "teacher": {"model": {"kind": "config", "config": VIT}, "train": TRAIN},
        "student": {"model": {"kind": "config", "config": OWN}},
        "train": TRAIN, "hard_baseline": False, "targets": {"dtype": "float32"},
    }  # fmt: skip
    for name, value in changes.items():
        raw[name] = raw[name] | value if isinstance(value, dict) and name in raw else value
    return parse_recipe(raw, folder=folder)


def rows_of(folder):
    """Some rows of the test split."""
    return [dict(row) for row in Dataset.from_parquet(str(folder / "test.parquet")).select(range(6))]


def opened(made, folder, name="run"):
    with RunFolder(folder / name) as run_folder:
        return open_job(made, run_folder)


def by_hand(image):
    """Shorter side to 12, the centre cut out, normalised: by Pillow and NumPy alone."""
    scale = 12 / min(image.size)
    image = image.resize((int(image.width * scale + 1e-9), int(image.height * scale + 1e-9)), Image.BILINEAR)
    left, top = (image.width - 12) // 2, (image.height - 12) // 2
    pixels = np.asarray(image.crop((left, top, left + 12, top + 12))) / 255
    return ((pixels - [0.5, 0.4, 0.3]) / [0.2, 0.25, 0.3]).transpose(2, 0, 1)


@pytest.mark.parametrize(
    ("teacher", "student"), [(VIT, RESNET), pytest.param(RESNET, VIT, marks=pytest.mark.slow)], ids=["vit", "resnet"]
)
def test_models_of_transformers_teach_and_learn(tmp_path, teacher, student):
    write(tmp_path)
    made = recipe(
        tmp_path,
        teacher={"model": {"kind": "config", "config": teacher}},
        student={"model": {"kind": "config", "config": student}},
        train=TRAIN | {"epochs": 4},
    )
    metrics = line.run(made, tmp_path / "run")
    assert metrics["teacher"]["metrics"]["accuracy"] > 0.9
    assert metrics["student"]["metrics"]["accuracy"] > 0.9
    kinds = [
        json.loads((tmp_path / "run" / p / "config.json").read_text())["model_type"]
        for p in ("teacher", "student/seed-0")
    ]
    assert kinds == [teacher["model_type"], student["model_type"]]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run, whose pictures are of several sizes and whose views are mixed."""
    folder = tmp_path_factory.mktemp("pictures")
    write(folder)
    made = recipe(
        folder, data={"augment": [{"pixels": 2}, {"kind": "flip"}, {"kind": "mixup", "alpha": 0.4}], "views": 3}
    )
    metrics = line.run(made, folder / "run")
    assert metrics["student"]["metrics"]["accuracy"] > 0.9
    return folder / "run"


@pytest.mark.parametrize("form", ["onnx", "safetensors"])
def test_what_is_done_to_pictures_is_shipped(run, tmp_path, form):
    place, manifest, _ = export(run, form, out=tmp_path / "student")
    assert manifest.image_shape == (3, 12, 12)
    assert manifest.pixels.image_size == 12
    assert manifest.pixels.mean == (0.5, 0.4, 0.3)
    shipped = Shipped.open(place)
    rows = rows_of(run.parent)
    model = AutoModelForImageClassification.from_pretrained(run / "student/seed-0").eval()
    pixels = torch.tensor(np.stack([by_hand(row["image"]) for row in rows]), dtype=torch.float32)
    with torch.inference_mode():
        expected = (model(pixel_values=pixels).logits / manifest.temperature).softmax(-1)
    answers = shipped.predict(rows)
    for answer, shares in zip(answers, expected, strict=True):
        assert list(answer["probabilities"].values()) == pytest.approx(shares.tolist(), abs=1e-5)
    assert shipped.predict([np.asarray(row["image"]).tolist() for row in rows]) == answers


def test_a_pipeline_of_transformers_prepares_pictures_alike(run, tmp_path):
    """Of the student as the run left it, and of the exported folder."""
    place, _, _ = export(run, "safetensors", out=tmp_path / "student")
    for folder in (run / "student/seed-0", place):
        pipe = pipeline("image-classification", str(folder))
        model = AutoModelForImageClassification.from_pretrained(folder).eval()
        for row in rows_of(run.parent):
            found = {one["label"]: one["score"] for one in pipe(row["image"])}
            with torch.inference_mode():
                pixels = torch.tensor(by_hand(row["image"])[None], dtype=torch.float32)
                shares = model(pixel_values=pixels).logits.softmax(-1)[0].tolist()
            assert [found[label] for label in LABELS] == pytest.approx(shares, abs=1e-5)


def test_the_next_run_takes_over_what_its_teacher_was_trained_with(run, tmp_path):
    """The teacher's folder says how its pictures were prepared, and the run's recipe keeps it."""
    write(tmp_path)
    plain = {"image_size": None, "mean": None, "std": None}
    made = recipe(tmp_path, data=plain)
    made = made.model_copy(update={"teacher": parse_recipe(
        made.model_dump() | {"teacher": {"model": str(run / "teacher")}}).teacher})  # fmt: skip
    job = opened(made, tmp_path)
    assert job.recipe.data.mean == (0.5, 0.4, 0.3)
    assert (job.recipe.data.image_size, job.recipe.data.resize) == (12, None)
    first = job.encoded("test", None)[0]["pixel_values"]
    np.testing.assert_allclose(first, by_hand(rows_of(tmp_path)[0]["image"]), atol=1e-6)


def test_a_student_that_was_trained_otherwise_than_its_teacher_is_refused(run, tmp_path):
    write(tmp_path)
    for name, config in (("teacher", ConvNextConfig), ("student", ViTConfig)):
        sizes = {"hidden_sizes": [4, 4], "depths": [1, 1], "num_stages": 2} if config is ConvNextConfig else VIT
        sizes = {key: value for key, value in sizes.items() if key != "model_type"}
        model = AutoModelForImageClassification.from_config(config(**sizes, id2label=dict(enumerate(LABELS))))
        model.save_pretrained(tmp_path / name)
        half = {"image_processor_type": "ViTImageProcessor", "size": 12}
        mean = {"image_mean": [0.5] * 3} if name == "teacher" else {"image_mean": [0.0] * 3}
        (tmp_path / name / "preprocessor_config.json").write_text(json.dumps(half | mean))
    models = {"teacher": {"model": "./teacher"}, "student": {"model": "./student"}}
    raw = recipe(tmp_path, data={"image_size": None, "mean": None, "std": None}).model_dump() | models
    with pytest.raises(ModelError, match=r"student.model '.*/student' takes mean .0.0, 0.0, 0.0. of pictures and"):
        opened(parse_recipe(raw, folder=tmp_path), tmp_path)
    raw["data"] |= {"mean": (0.0,) * 3, "std": (1.0,) * 3}  # now the recipe says so
    assert opened(parse_recipe(raw, folder=tmp_path), tmp_path).recipe.data.image_size == (12, 12)


# ---------------------------------------------------------------------------------------------------- views and mixing


def mixing(folder, kind="mixup", views=2, **changes):
    return recipe(folder, data={"augment": [{"kind": "flip"}, {"kind": kind}], "views": views}, **changes)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_the_store_holds_what_the_teacher_says_of_each_mixed_view(tmp_path, kind):
    write(tmp_path, 12)
    job = opened(mixing(tmp_path, kind, teacher={"train": TRAIN | {"epochs": 0.1}}), tmp_path)
    line.stages.train_teacher(job)
    teacher = teachers.load_teacher(job)
    store = teachers.prepare_targets(job, teacher)
    plain = {e["id"]: e["pixel_values"] for e in job.encoded("train", None)}
    views = [job.training_data(None)[i] for i in range(24)]  # made anew
    batch = job.task.collate(None)(views)
    torch.testing.assert_close(store(batch), teacher.source(batch), rtol=1e-5, atol=1e-5)
    names = [view["id"].split("#")[0] for view in views]
    changed = [not torch.equal(view["pixel_values"], plain[name]) for view, name in zip(views, names, strict=True)]
    assert sum(changed) > 12
    # And what it says is of the mixed image, not of the first one.
    unmixed = teacher.source(batch | {"pixel_values": torch.stack([plain[name] for name in names])})
    assert float((store(batch) - unmixed).abs().max()) > 1e-3


@pytest.mark.parametrize("views", [2, None])
def test_mixed_examples_have_no_label_and_labels_alone_are_learnt_without_mixing(tmp_path, views):
    write(tmp_path, 12)
    job = opened(mixing(tmp_path, views=views, targets={"kind": "store" if views else "live"}), tmp_path)
    model = AutoModelForImageClassification.from_config(ResNetConfig(
        embedding_size=4, hidden_sizes=[4], depths=[1], num_labels=2, num_channels=3))  # fmt: skip

    def fixed(batch):
        return torch.zeros(len(batch["labels"]), 2)

    how = job.recipe.train
    for targets, labelled in ((fixed, False), (None, True)):
        objective = line.stages.DistillationObjective(4.0, alpha=0.5 if targets else 0.0)
        trainer = make_trainer(job, model, None, how, objective, targets, 0, tmp_path / "scratch")
        data = trainer.train_dataset
        assert len(data) == 12 * (views or 1)
        batch = job.task.collate(None)([data[i] for i in range(12)])
        assert bool(trainer._labelled(batch).all()) == labelled
        assert bool(trainer._labelled(batch).any()) == labelled
        held_out = job.task.collate(None)(job.encoded("validation", None))
        assert bool(trainer._labelled(held_out).all())
        # What is flipped alone is an example or its mirror image.
        plain = [e["pixel_values"] for e in job.encoded("train", None)]
        own = [any(torch.equal(p, one) or torch.equal(p.flip(-1), one) for one in plain) for p in batch["pixel_values"]]
        assert all(own) == labelled


def test_a_live_teacher_sees_the_mixed_images_of_the_student(tmp_path):
    write(tmp_path, 12)
    made = mixing(tmp_path, "cutmix", None, targets={"kind": "live"}, hard_baseline=True)
    metrics = line.run(made, tmp_path / "run")
    assert {"student", "student_hard"} <= metrics.keys()
    assert "Training rows and others" not in (tmp_path / "run/report.md").read_text()


def test_mixing_for_what_learns_from_labels_is_refused(tmp_path):
    write(tmp_path, 12)
    for policy in ("meta", "annealing", "continuation"):
        with pytest.raises(RecipeError) as caught:
            opened(mixing(tmp_path, temperature={"policy": policy}), tmp_path)
        assert str(caught.value) == (
            "recipe field 'data.augment' mixes examples, which then have no label, and temperature.policy is"
            f" {policy}: leave mixup and cutmix out, or give a policy that does not learn from labels"
        )
    opened(recipe(tmp_path, data={"augment": {"kind": "flip"}, "views": 2}, temperature={"policy": "meta"}), tmp_path)


def test_students_that_are_trained_together_do_not_mix(tmp_path):
    write(tmp_path, 12)
    job = opened(mixing(tmp_path, tune={"population": True}), tmp_path)
    with pytest.raises(RecipeError, match="trains students together while data.augment mixes examples"):
        line.check_search(job)
