"""What transformers keeps beside a model of images, ``preprocessor_config.json``, as fields of a recipe; and back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import ValidationError
from transformers import AutoImageProcessor
from transformers.utils import cached_file

from setpoint.errors import ModelError
from setpoint.recipe_images import PixelRecipe, sides
from setpoint.tasks.pixels import to_pixels

NAME = "preprocessor_config.json"
SIZE, NORMAL = ("image_size", "resize", "resample"), ("mean", "std")
"""The fields that are given together, or taken together from a model."""


def read_processor(location: str, field: str) -> PixelRecipe | None:
    """How a model's pictures were prepared, by what lies beside it; None where nothing does.

    It is tried on two pictures whether the fields say all that transformers would do.

    Args:
        location: a hub id or a folder.
        field: names the model in errors.

    Raises:
        ModelError: the file cannot be read, or does what the fields cannot say.
    """
    folder = Path(location)
    try:
        there = (folder / NAME).is_file() if folder.is_dir() else _on_the_hub(location)
        if not there:
            return None
        processor = AutoImageProcessor.from_pretrained(location, backend="pil", trust_remote_code=False)
        found = _fields(processor.to_dict())
        same = _agree(processor, found)
    except ValidationError:  # of the fields
        same = False
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ImportError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ModelError(f"{NAME} of {field} '{location}' cannot be used ({reason})", _MEND) from None
    if not same:
        raise ModelError(
            f"{NAME} of {field} '{location}' prepares pictures as data.image_size, data.mean and their like cannot say",
            _MEND,
        )
    return found


_MEND = "set data.image_size, data.channels, data.mean and data.std to what the model is to get"


def _on_the_hub(location: str) -> bool:
    return cached_file(location, NAME, _raise_exceptions_for_missing_entries=False) is not None


def _fields(said: dict[str, Any]) -> PixelRecipe:
    """The fields for what an image processor says of itself, as far as there are such; else some ValueError or so."""
    fields: dict[str, Any] = {}
    if said.get("resample") is not None:
        fields["resample"] = Image.Resampling(said["resample"]).name.lower()
    if said.get("do_resize"):
        size = said["size"]
        fields["image_size"] = size["shortest_edge"] if "shortest_edge" in size else (size["height"], size["width"])
        if said.get("crop_pct"):  # ConvNeXt's
            side = size["shortest_edge"]
            fields |= {"resize": int(side / said["crop_pct"])} if side < 384 else {"image_size": (side, side)}
    if said.get("do_center_crop"):
        crop = said["crop_size"]["height"], said["crop_size"]["width"]
        first = fields.get("image_size")
        if first is not None and sides(first) != crop:
            fields |= {"image_size": crop, "resize": first}
    factor = 255 * said["rescale_factor"] if said.get("do_rescale") else 255.0  # of pixels in [0, 1]
    mean, std = ([*said["image_mean"]], [*said["image_std"]]) if said.get("do_normalize") else ([0.0] * 3, [1.0] * 3)
    if abs(factor - 1) > 1e-6:
        mean, std = [value / factor for value in mean], [value / factor for value in std]
    if any(mean) or any(value != 1 for value in std):
        fields |= {"mean": mean, "std": std}
    if said.get("do_convert_rgb") or "mean" in fields:
        fields["channels"] = 3 if said.get("do_convert_rgb") else len(fields["mean"])
    return PixelRecipe(**fields)


def _agree(processor: Any, found: PixelRecipe) -> bool:
    """Whether an image processor gives the pixels that its fields give, of a wide picture and of a high one."""
    noise = np.random.default_rng(0)
    for height, width in ((90, 150), (150, 90)):
        shape = (height, width) if found.channels == 1 else (height, width, 3)
        picture = Image.fromarray(noise.integers(0, 256, shape, dtype=np.uint8))
        expected = np.asarray(processor(picture, return_tensors="np")["pixel_values"][0])
        got = np.asarray(to_pixels(picture, "trial", found))
        if got.shape != expected.shape or not np.allclose(got, expected, atol=1e-4):
            return False
    return True


def take_over(data: PixelRecipe, models: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """What a recipe leaves open about pixels, as the first of its models that says so has it: fields of ``data``.

    Args:
        data: the recipe's fields.
        models: field and location of each model that comes with weights.

    Raises:
        ModelError: two models were trained on pixels that differ in what the recipe leaves open.
    """
    wanted = [*(SIZE if data.image_size is None else ()), *(NORMAL if data.mean is None else ())]
    wanted += ["channels"] if data.channels is None and wanted else []
    if not wanted:
        return {}
    said = [
        (f"{field} '{location}'", found.model_dump(include=set(wanted)))
        for field, location in models
        if (found := read_processor(location, field)) is not None
    ]
    if not said:
        return {}
    first, taken = said[0]
    for other, fields in said[1:]:
        for name in wanted:
            if fields[name] != taken[name]:
                raise ModelError(f"{other} takes {name} {fields[name]} of pictures and {first} {taken[name]}", _MEND)
    return taken


def processor_config(data: PixelRecipe) -> dict[str, Any]:
    """What ``preprocessor_config.json`` has to hold for transformers to prepare pictures in 8 bits alike."""
    how: dict[str, Any] = {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": data.channels == 3,
        "do_resize": data.image_size is not None,
        "do_center_crop": data.image_size is not None,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": data.mean is not None,
        "resample": int(Image.Resampling[data.resample.upper()]),
    }
    if data.image_size is not None:
        first = data.image_size if data.resize is None else data.resize
        how["size"] = {"shortest_edge": first} if isinstance(first, int) else dict(zip(_SIDES, first, strict=True))
        how["crop_size"] = dict(zip(_SIDES, sides(data.image_size), strict=True))
    if data.mean is not None and data.std is not None:
        how |= {"image_mean": list(data.mean), "image_std": list(data.std)}
    return how


_SIDES = ("height", "width")
