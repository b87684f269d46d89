import json
import math

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Sequence, Value
from datasets import Image as Picture
from PIL import Image
from transformers import AutoModelForObjectDetection, TrainingArguments

from setpoint import pipeline
from setpoint.errors import DataError, ModelError
from setpoint.objective import DistillationObjective
from setpoint.recipe import DataRecipe
from setpoint.recipe_file import parse_recipe
from setpoint.shipping.export import export
from setpoint.shipping.shipped import Shipped
from setpoint.targets.teacher import FrozenTeacher
from setpoint.tasks import make_task
from setpoint.tasks.average_precision import Objects
from setpoint.tasks.object_detection import ObjectDetection, to_shares
from setpoint.training import DistillationTrainer

Q = 4
OWN = {"model_type": "setpoint-detr", "widths": [4, 8], "d_model": 8, "decoder_layers": 1, "num_queries": Q}
YOLOS = {
    "model_type": "yolos", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
    "image_size": [24, 24], "patch_size": 8, "num_detection_tokens": Q, "use_mid_position_embeddings": False,
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip
RESNET = {
    "model_type": "resnet", "embedding_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1], "layer_type": "basic",
    "out_features": ["stage2"],
}  # fmt: skip
DETR = {
    "model_type": "detr",
    "backbone_config": RESNET, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "num_queries": Q,
}  # fmt: skip


def row(random, number):
    """A picture of 24x24 with up to two bright squares, red or blue."""
    pixels, boxes, names = random.integers(0, 60, (24, 24, 3)), [], []
    for half in range(number % 3):
        side, x = int(random.integers(6, 11)), int(random.integers(0, 2)) + 12 * half
        y, red = int(random.integers(0, 24 - side)), bool(random.integers(2))
        pixels[y : y + side, x : x + side, 0 if red else 2] = 250
        boxes.append([x, y, side, side])
        names.append("red" if red else "blue")
    return Image.fromarray(pixels.astype(np.uint8)), {"bbox": boxes, "category": names}


def write(folder, count=24):
    for number, split in enumerate(("train", "validation", "test")):
        lines = []
        for i in range(count):
            picture, objects = row(np.random.default_rng((number, i)), i)
            picture.save(folder / f"{split}-{i}.png")
            lines.append(json.dumps({"image": f"{split}-{i}.png", "objects": objects}) + "\n")
        (folder / f"{split}.jsonl").write_text("".join(lines))
    return {split: str(folder / f"{split}.jsonl") for split in ("train", "validation", "test")} | {"queries": Q}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write(tmp_path_factory.mktemp("data"))


def model(config, seed=0):
    from transformers import AutoConfig

    fields = {name: value for name, value in config.items() if name != "model_type"}
    torch.manual_seed(seed)
    return AutoModelForObjectDetection.from_config(
        AutoConfig.for_model(config["model_type"], **fields, num_labels=2)
    ).eval()


def test_objects_are_read_and_their_boxes_are_shares_of_the_image(files):
    task = make_task("object-detection", DataRecipe(**files))
    assert isinstance(task, ObjectDetection)
    splits = task.load()
    assert splits.labels == ("blue", "red", "no object")
    assert splits.head == ("blue", "red")
    examples = task.encode(splits.train, None)
    _, objects = row(np.random.default_rng((0, 5)), 5)
    example = examples[5]
    for (x, y, w, h), name, box, label in zip(
        objects["bbox"], objects["category"], example["task_boxes"].tolist(), example["task_classes"], strict=True
    ):
        assert box == pytest.approx([(x + w / 2) / 24, (y + h / 2) / 24, w / 24, h / 24])
        assert splits.labels[label] == name
    assert example["labels"] == [0] * Q
    batch = task.collate(None)(examples[:3])
    assert batch["task_classes"].tolist()[0] == [-100, -100]
    assert batch["task_boxes"].shape == (3, 2, 4)
    assert batch["pixel_values"].shape == (3, 3, 24, 24)


def test_boxes_follow_a_resize_and_cutting_is_refused(files):
    plain, resized = (
        (task, task.encode(task.load().train, None))
        for task in (ObjectDetection(DataRecipe(**files, **more)) for more in ({}, {"image_size": [12, 36]}))
    )
    assert resized[1][2]["pixel_values"].shape == (3, 12, 36)
    assert torch.equal(plain[1][2]["task_boxes"], resized[1][2]["task_boxes"])
    for how in ({"image_size": 12}, {"image_size": [12, 12], "resize": [16, 16]}):
        with pytest.raises(DataError, match=r"cuts images, which boxes do not follow: give .* \[height, width\] alone"):
            ObjectDetection(DataRecipe(**files, **how)).load()


def test_a_hub_data_set_with_names_of_classes(tmp_path):
    feature = Features({
        "image": Picture(),
        "objects": {"bbox": Sequence(Sequence(Value("float32"))), "category": Sequence(ClassLabel(names=["b", "a"]))},
    })  # fmt: skip
    rows = []
    for i in range(4):
        picture, objects = row(np.random.default_rng(i), 1 + i)
        rows.append({"image": picture, "objects": {**objects, "category": [0] * len(objects["bbox"])}})
    made = Dataset.from_list(rows, features=feature)
    DatasetDict(train=made, validation=made, test=made).save_to_disk(tmp_path / "set")
    task = ObjectDetection(DataRecipe(dataset=str(tmp_path / "set"), validation="test", queries=Q))
    splits = task.load()
    assert splits.labels == ("b", "a", "no object")
    assert task.encode(splits.test, None)[0]["task_classes"].tolist() == [0]


def test_shapes_are_always_the_same_and_their_boxes_fit():
    task = ObjectDetection(DataRecipe(dataset="shapes", limit={"train": 20, "validation": 5, "test": 5}))
    splits = task.load()
    assert splits.labels == ("circle", "square", "triangle", "no object")
    examples = task.encode(splits.train, None)
    assert {len(example["task_classes"]) for example in examples} == {1, 2, 3, 4}
    again = ObjectDetection(DataRecipe(dataset="shapes", limit={"train": 20, "validation": 5, "test": 5}))
    assert again.load().train["image"][7].tobytes() == splits.train["image"][7].tobytes()
    assert splits.train["boxes"][0] == [[19, 16, 25, 26], [0, 4, 20, 16], [5, 34, 24, 22], [43, 9, 17, 19]]
    # A square fills its box with one colour, and no pixel beside it has that colour.
    for example, boxes, ids in zip(examples, splits.train["boxes"], splits.train["classes"], strict=True):
        if len(boxes) == 1 and ids[0] == 1:
            x, y, w, h = map(int, boxes[0])
            inside = example["pixel_values"][:, y : y + h, x : x + w].flatten(1)
            assert (inside == inside[:, :1]).all()
            same = (example["pixel_values"] == inside[:, 0, None, None]).all(0)
            assert int(same.sum()) == w * h


@pytest.mark.parametrize(
    ("objects", "said"),
    [
        (
            {"bbox": [[0, 0, 0, 5]], "category": ["red"]},
            "has the box [0.0, 0.0, 0.0, 5.0], without area: give sides above 0",
        ),
        (
            {"bbox": [[20, 0, 5, 5]], "category": ["red"]},
            "is not inside its image of 24x24: give [x, y, width, height]",
        ),
        ({"bbox": [[-1, 0, 5, 5]], "category": ["red"]}, "is not inside its image"),
        ({"bbox": [[0, 0, 5]], "category": ["red"]}, "give bbox and category, two lists of one length"),
        ({"bbox": [[0, 0, 5, 5]], "category": []}, "give bbox and category, two lists of one length"),
        ({"bbox": [[0, 0, 5, float("nan")]], "category": ["red"]}, "give bbox and category"),
        (
            {"bbox": [[0, 0, 5, 5]] * 5, "category": ["red"] * 5},
            "has 5 objects where data.queries is 4: raise data.queries",
        ),
        ([1], "in column 'objects': give bbox and category"),
    ],
)
def test_objects_that_cannot_be_are_refused_in_a_sentence(tmp_path, objects, said):
    files = write(tmp_path, 4)
    lines = (tmp_path / "train.jsonl").read_text().splitlines()
    changed = json.loads(lines[2]) | {"objects": objects}
    (tmp_path / "train.jsonl").write_text("\n".join([*lines[:2], json.dumps(changed), *lines[3:]]))
    task = ObjectDetection(DataRecipe(**files, labels=["red", "blue"]))
    with pytest.raises(DataError) as caught:
        task.encode(task.load().train, None)
    assert said in str(caught.value)
    assert "train-2" in str(caught.value)


def test_a_class_that_training_has_not_and_no_class_at_all(tmp_path):
    files = write(tmp_path, 4)
    with pytest.raises(DataError, match="has the label 'blue', which is none of red, green"):
        ObjectDetection(DataRecipe(**files, labels=["red", "green"])).load()
    only = "\n".join(json.dumps({"image": "train-0.png", "objects": {"bbox": [], "category": []}}) for _ in range(3))
    (tmp_path / "train.jsonl").write_text(only)
    with pytest.raises(DataError, match=r"data\.train has no object"):
        ObjectDetection(DataRecipe(**files)).load()


def test_boxes_touching_the_edges_are_inside():
    assert to_shares([[0, 0, 24, 24]], 24, 24, "a").tolist() == [[0.5, 0.5, 1.0, 1.0]]
    assert to_shares([], 24, 24, "a").shape == (0, 4)


@pytest.mark.parametrize("config", [OWN, YOLOS, DETR], ids=["own", "yolos", "detr"])
def test_any_detector_of_the_kind_is_read(files, config):
    task = ObjectDetection(DataRecipe(**files))
    splits = task.load()
    batch = task.collate(None)(task.encode(splits.train, None)[:3])
    detector = model(config)
    output = detector(pixel_values=batch["pixel_values"])
    read = task.logits(output, batch)
    assert read.shape == (3, Q, 3 + 4)
    assert torch.equal(read[..., 3:], output.pred_boxes)
    again = FrozenTeacher(detector, splits.labels, reading=task)(batch)
    torch.testing.assert_close(again, read.detach().flatten(0, 1))


def test_models_that_do_not_fit_are_refused(files):
    task = ObjectDetection(DataRecipe(**files))
    task.load()
    output = {"logits": torch.zeros(1, 5, 3), "pred_boxes": torch.zeros(1, 5, 4)}
    with pytest.raises(ModelError, match=r"the model has 5 queries where data\.queries is 4: give both the same"):
        task.logits(output, {})
    output = {"logits": torch.zeros(1, 4, 2), "pred_boxes": torch.zeros(1, 4, 4)}
    with pytest.raises(ModelError, match="has 2 outputs a query where the data have 2 classes: give a detector whose"):
        task.logits(output, {})


def test_rows_are_the_teachers_put_in_the_students_order(files):
    task = ObjectDetection(DataRecipe(**files))
    task.load()
    random = torch.Generator().manual_seed(0)
    z, boxes = torch.randn(2, Q, 3, generator=random).double(), torch.rand(2, Q, 4, generator=random).double()
    logits, batch = torch.cat([z, boxes], -1), {"task_classes": torch.tensor([[0], [1]]), "task_boxes": boxes[:, :1]}
    shuffled = logits[:, [2, 0, 3, 1]].flatten(0, 1)
    rows = task.loss_rows(logits, batch, shuffled)
    assert torch.equal(rows.teacher_logits, z.flatten(0, 1))
    assert rows.beside.abs().max() < 1e-12
    p = z.softmax(-1).flatten(0, 1)
    assert torch.allclose(rows.weight, 0.1 + 0.9 * p[:, :2].sum(-1))
    assert task.loss_rows(logits, batch, None).teacher_logits is None
    assert sorted(rows.labels[:Q].tolist()) == [0, 2, 2, 2]
    alike = task.agreement([row.numpy() for row in logits], [row.numpy() for row in logits.flip(1)], ("a", "b", "none"))
    assert alike == {"top1": 1.0, "kl": pytest.approx(0, abs=1e-12)}


def _trained(folder, files, batch_size, accumulation):
    """A YOLOS, which has no batch norm, after one step of plain SGD on eight pictures, taught by another."""
    task = ObjectDetection(DataRecipe(**files))
    splits = task.load()
    arguments = TrainingArguments(
        str(folder), max_steps=1, per_device_train_batch_size=batch_size, gradient_accumulation_steps=accumulation,
        optim="sgd", learning_rate=0.1, lr_scheduler_type="constant", max_grad_norm=0.0, save_strategy="no",
        report_to="none", disable_tqdm=True, remove_unused_columns=False, use_cpu=True, seed=0,
    )  # fmt: skip
    student = model(YOLOS, seed=1)
    trainer = DistillationTrainer(
        model=student, args=arguments, objective=DistillationObjective(temperature=2.0, alpha=0.5), reading=task,
        targets=FrozenTeacher(model(YOLOS, seed=2), splits.labels, reading=task),
        train_dataset=task.encode(splits.train, None)[:8], data_collator=task.collate(None),
    )  # fmt: skip
    trainer.train()
    return student.state_dict()


def test_a_step_is_the_same_however_it_is_cut_into_batches(tmp_path, files):
    whole = _trained(tmp_path, files, 8, 1)
    before = model(YOLOS, seed=1).state_dict()
    assert max((whole[name] - before[name]).abs().max() for name in whole) > 1e-3
    for size, count in ((2, 4), (1, 8)):
        parts = _trained(tmp_path, files, size, count)
        for name, value in whole.items():
            torch.testing.assert_close(parts[name], value, atol=2e-6, rtol=1e-4)


def test_the_loss_of_a_split_is_the_mean_over_queries():
    task = ObjectDetection(DataRecipe(dataset="shapes", queries=2))
    box = np.array([[0.5, 0.5, 0.2, 0.2], [0.1, 0.1, 0.1, 0.1]], np.float32)
    logits = np.array([[0.0, 2.0], [0.0, 0.0]], np.float32)
    there = Objects(box[:1], np.array([0]))
    expected = (-math.log(1 / (1 + math.exp(2))) + 0.1 * math.log(2)) / 2
    assert task.loss([np.concatenate([logits, box], 1)], [there]) == pytest.approx(expected, rel=1e-5)


def test_answers_are_the_objects_that_are_likely_with_boxes_in_pixels():
    task = ObjectDetection(DataRecipe(dataset="shapes", queries=3))
    rows = np.array([
        [0.6, 0.1, 0.3, 0.5, 0.5, 0.25, 0.5], [0.05, 0.9, 0.05, 0.25, 0.25, 0.5, 0.5], [0.4, 0.1, 0.5, 0, 0, 1, 1],
    ])  # fmt: skip
    (answer,) = task.answers([torch.zeros(3, 20, 40)], [rows], ("cat", "dog"))
    assert answer["objects"] == [
        {"label": "dog", "score": 0.9, "box": [0, 0, 20, 10]},
        {"label": "cat", "score": 0.6, "box": [15, 5, 10, 10]},
    ]


def recipe(files, teacher=OWN, student=OWN, **changes):
    train = {"epochs": 2, "batch_size": 8, "learning_rate": 5e-3}
    raw = {
        "name": "boxes", "task": "object-detection", "data": files,
        "teacher": {"model": {"kind": "config", "config": teacher}, "train": train | {"epochs": 6}},
        "student": {"model": {"kind": "config", "config": student}},
        "temperature": 2, "targets": {"dtype": "float32"}, "train": train,
    }  # fmt: skip
    return parse_recipe(raw | changes)


@pytest.fixture(scope="module")
def run(tmp_path_factory, files):
    folder = tmp_path_factory.mktemp("run") / "run"
    return pipeline.run(recipe(files), folder), folder


def test_from_recipe_to_report(run):
    metrics, folder = run
    assert metrics["metric"] == "map"
    assert metrics["beside"] == ["map_50"]
    for who in ("teacher", "student", "student_hard"):
        found = metrics[who]["metrics"]
        assert 0 <= found["map"] <= found["map_50"] <= 1
        assert set(found["classes"]) == {"blue", "red"}
    assert 0 <= metrics["student"]["agreement"]["top1"] <= 1
    logged = json.loads((folder / "stages/student-seed-0.json").read_text())["result"]["log"]
    losses = [entry["train_loss"] for entry in logged if "train_loss" in entry]
    assert losses
    assert all(map(math.isfinite, losses))
    assert "no object" in (folder / "report.md").read_text()
    assert (folder / "report.html").is_file()


def test_a_shipped_student_answers_as_the_run_computes(run):
    shipped = Shipped.open(export(run[1], "safetensors")[0])
    picture, _ = row(np.random.default_rng(0), 2)
    (rows,) = shipped.probabilities(_logits(shipped, picture))
    assert np.allclose(rows[:, :3].sum(-1), 1)
    (answer,) = shipped.predict([picture])
    assert len(answer["objects"]) == int((rows[:, :2].max(-1) >= 0.5).sum())


@pytest.mark.slow
def test_onnx_gives_the_same(run):
    pytest.importorskip("onnxruntime")
    shipped = [Shipped.open(export(run[1], format)[0]) for format in ("safetensors", "onnx")]
    picture, _ = row(np.random.default_rng(0), 2)
    rows = [one.probabilities(_logits(one, picture))[0] for one in shipped]
    assert np.allclose(*rows, atol=1e-4)


def _logits(shipped, picture):
    examples = shipped.task.encode_inputs([shipped.read(picture, "input 0")], None)
    return [shipped.source(shipped.collate(examples)).numpy()]


@pytest.mark.slow
@pytest.mark.parametrize(("teacher", "student"), [(YOLOS, OWN), (DETR, YOLOS)], ids=["yolos-own", "detr-yolos"])
def test_models_of_transformers_teach_and_learn(tmp_path, files, teacher, student):
    metrics = pipeline.run(recipe(files, teacher, student, hard_baseline=False), tmp_path / "run")
    assert 0 <= metrics["student"]["metrics"]["map"] <= 1
