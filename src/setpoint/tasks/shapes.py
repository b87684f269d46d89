"""Pictures of coloured shapes on noise, drawn from a seed: objects to detect without any download."""

from __future__ import annotations

import io
from functools import cache
from typing import Any

import numpy as np
from datasets import Dataset
from PIL import Image, ImageDraw

from setpoint.tasks.folders import to_dataset
from setpoint.tasks.formats import SPLITS, Split

SIDE = 64
NAMES = ("circle", "square", "triangle")
COUNTS = dict(zip(SPLITS, (2000, 300, 500), strict=True))


@cache
def shapes(image: str = "image", objects: str = "objects") -> dict[Split, Dataset]:
    """2000, 300 and 500 pictures of 64x64 with one to four shapes each, and their boxes; always the same.

    Colours say nothing of the shape; shapes overlap by a quarter of the smaller box at most.

    Args:
        image: the name of the column of pictures.
        objects: that of the column of ``bbox`` and ``category``.
    """
    made = {}
    for number, (split, count) in enumerate(COUNTS.items()):
        rows = [draw(np.random.default_rng((number, i))) for i in range(count)]
        values: dict[str, list[Any]] = {
            "image": [_file(picture) for picture, _ in rows],
            "objects": [there for _, there in rows],
        }
        names = [f"{i}" for i in range(count)]
        made[split] = to_dataset(values, {"image": image, "objects": objects}, names, split).remove_columns("id")
    return made


def draw(random: np.random.Generator) -> tuple[Image.Image, dict[str, list[Any]]]:
    """A picture, and its objects.

    Examples:
        >>> picture, objects = draw(np.random.default_rng(0))
        >>> picture.size, len(objects["bbox"]) == len(objects["category"])
        ((64, 64), True)
    """
    ground = random.integers(0, 160, 3) + random.integers(0, 96, (SIDE, SIDE, 3))
    picture = Image.fromarray(ground.astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    boxes: list[list[int]] = []
    wanted, tries = random.integers(1, 5), 0
    while len(boxes) < wanted and tries < 50:
        tries += 1
        w = int(random.integers(12, 27))
        h = int(np.clip(w + random.integers(-4, 5), 12, 27))
        x, y = int(random.integers(0, SIDE - w)), int(random.integers(0, SIDE - h))
        if not any(_covers((x, y, w, h), box) for box in boxes):
            boxes.append([x, y, w, h])
    categories = [NAMES[random.integers(len(NAMES))] for _ in boxes]
    for (x, y, w, h), name in zip(boxes, categories, strict=True):
        colour, right, low = tuple(random.integers(0, 256, 3).tolist()), x + w - 1, y + h - 1
        if name == "circle":
            pen.ellipse((x, y, right, low), fill=colour)
        elif name == "square":
            pen.rectangle((x, y, right, low), fill=colour)
        else:
            pen.polygon([(x, low), (right, low), ((x + right) // 2, y)], fill=colour)
    return picture, {"bbox": [[float(side) for side in box] for box in boxes], "category": categories}


def _covers(a: tuple[int, int, int, int], b: list[int]) -> bool:
    """Whether two boxes share more than a quarter of the smaller one."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return width > 0 and height > 0 and 4 * width * height > min(a[2] * a[3], b[2] * b[3])


def _file(picture: Image.Image) -> dict[str, bytes]:
    content = io.BytesIO()
    picture.save(content, "bmp")  # the same bytes from every version of every library
    return {"bytes": content.getvalue()}
