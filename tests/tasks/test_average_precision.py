import contextlib
import io

import numpy as np
import pytest

from setpoint.tasks.average_precision import AveragePrecision, Found, Objects, iou


def made(seed, pictures=25, classes=3):
    random = np.random.default_rng(seed)
    found, objects = [], []
    for _ in range(pictures):
        there = random.integers(0, 5)
        boxes = np.column_stack([random.uniform(0.2, 0.8, (there, 2)), random.uniform(0.1, 0.4, (there, 2))])
        kinds = random.integers(0, classes, there)
        near = boxes + random.normal(0, 0.02, boxes.shape)
        others = np.column_stack([random.uniform(0.2, 0.8, (6, 2)), random.uniform(0.1, 0.4, (6, 2))])
        seen = np.where(random.random(there) < 0.8, kinds, random.integers(0, classes, there))
        labels = np.concatenate([seen, random.integers(0, classes, 6)])
        found.append(Found(np.concatenate([near, others]), labels, random.random(there + 6).round(2)))  # some alike
        objects.append(Objects(boxes, kinds))
    return found, objects


def by_coco(found, objects, classes, numbers):
    coco, evaluation = pytest.importorskip("pycocotools.coco"), pytest.importorskip("pycocotools.cocoeval")

    def corner(boxes):
        return np.column_stack([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, 2:]]).tolist()

    annotations, detections = [], []
    for i, n in enumerate(numbers):
        for box, label in zip(corner(objects[n].boxes), objects[n].classes, strict=True):
            annotations.append({"id": len(annotations) + 1, "image_id": i, "category_id": int(label), "bbox": box,
                                "area": box[2] * box[3], "iscrowd": 0})  # fmt: skip
        for box, label, score in zip(corner(found[n].boxes), found[n].classes, found[n].scores, strict=True):
            detections.append({"image_id": i, "category_id": int(label), "bbox": box, "score": float(score)})
    with contextlib.redirect_stdout(io.StringIO()):
        there = coco.COCO()
        there.dataset = {"images": [{"id": i} for i in range(len(numbers))], "annotations": annotations,
                         "categories": [{"id": c} for c in range(classes)]}  # fmt: skip
        there.createIndex()
        run = evaluation.COCOeval(there, there.loadRes(detections), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run.stats[0], run.stats[1]


@pytest.mark.parametrize("seed", range(4))
def test_it_is_what_pycocotools_gives_for_all_and_for_any_part(seed):
    found, objects = made(seed)
    ours = AveragePrecision(found, objects, 3)
    for part in (slice(None), slice(seed, None, 3), np.array([3, 3, 7, 1, 0, 0, 0])):
        expected = by_coco(found, objects, 3, np.arange(25)[part])
        assert (ours(part), ours(part, 0.5)) == pytest.approx(expected, abs=1e-9)


def test_by_hand():
    """Two objects; the surest detection is right, the second wrong, the third right at an IoU below 0.75."""
    there = Objects(np.array([[0.2, 0.2, 0.2, 0.2], [0.7, 0.7, 0.2, 0.2]]), np.array([0, 0]))
    boxes = np.array([[0.2, 0.2, 0.2, 0.2], [0.2, 0.7, 0.1, 0.1], [0.73, 0.7, 0.2, 0.2]])  # IoU of the last: 17/23
    found = Found(boxes, np.zeros(3, int), np.array([0.9, 0.8, 0.7]))
    assert iou(boxes[2:], there.boxes[1:])[0, 0] == pytest.approx(17 / 23)
    low = (51 * 1 + 50 * 2 / 3) / 101  # recall up to a half with precision 1, then 2/3
    table = AveragePrecision([found], [there], 1).by_class(slice(None))[:, 0]
    assert table == pytest.approx([low] * 5 + [51 / 101] * 5)


def test_an_object_is_found_once_and_its_class_counts():
    box = np.array([[0.5, 0.5, 0.2, 0.2]])
    twice = Found(np.repeat(box, 2, 0), np.zeros(2, int), np.array([0.9, 0.8]))
    assert AveragePrecision([twice], [Objects(box, np.array([0]))], 2)(slice(None)) == 1.0  # the other comes after it
    assert AveragePrecision([twice], [Objects(box, np.array([1]))], 2)(slice(None)) == 0.0
    none = Objects(np.zeros((0, 4)), np.zeros(0, int))
    assert AveragePrecision([twice], [none], 2)(slice(None)) == 0.0
    nothing = Found(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0))
    assert AveragePrecision([nothing], [Objects(box, np.array([0]))], 2)(slice(None)) == 0.0


def test_the_order_of_pictures_without_ties_does_not_matter():
    found, objects = made(9)
    found = [
        Found(f.boxes, f.classes, f.scores + 1e-6 * np.arange(len(f.scores)) + 1e-4 * i) for i, f in enumerate(found)
    ]
    ours = AveragePrecision(found, objects, 3)
    assert ours(slice(None)) == pytest.approx(ours(np.random.default_rng(0).permutation(25)), abs=1e-12)
    assert ours(slice(None)) < ours(slice(None), 0.5)
