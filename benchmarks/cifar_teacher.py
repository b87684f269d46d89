"""The ResNets of ../shared/data/cifar10 as folders that transformers loads, and their accuracy on its test images.

    python benchmarks/cifar_teacher.py --out runs/cifar

writes ``runs/cifar/resnet20`` and ``runs/cifar/resnet56``: config.json, model.safetensors and the normalisation in
preprocessor_config.json. The accuracies are by the README there 81.04 % and 83.22 %.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import AutoModelForImageClassification

import setpoint.vision  # noqa: F401 - registers the architecture
from setpoint.files import write_json
from setpoint.models import load_model, name_classes, save_model
from setpoint.recipe import ConfigModel

DATA = Path(__file__).parents[2] / "shared" / "data" / "cifar10"
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DEPTHS = {"resnet20": 3, "resnet56": 9}


def teacher(name: str, data: Path = DATA) -> torch.nn.Module:
    """One of the two networks with its weights, in evaluation mode."""
    config = {"model_type": "setpoint-resnet", "depth": DEPTHS[name]}
    spec = ConfigModel(config=config, weights=str(data / f"{name}.safetensors"))
    model = load_model(spec, AutoModelForImageClassification, NAMES, field=name)
    name_classes(model, NAMES, name)
    return model.eval()


def images(split: str, first: int, last: int, data: Path = DATA) -> tuple[torch.Tensor, np.ndarray]:
    """Normalised pixels ``[B, 3, 32, 32]`` of some images, and their classes."""
    with np.load(data / f"{split}.npz", allow_pickle=False) as file:
        content, offsets, labels = file["jpeg"], file["offsets"], file["label"]
    files = [content[offsets[i] : offsets[i + 1]].tobytes() for i in range(first, min(last, len(labels)))]
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(one))) for one in files]).astype(np.float32) / 255
    normal = (pixels - np.float32(MEAN)) / np.float32(STD)
    return torch.from_numpy(normal.transpose(0, 3, 1, 2).copy()), labels[first:last]


def logits(model: torch.nn.Module, pixels: torch.Tensor) -> np.ndarray:
    with torch.inference_mode():
        return np.concatenate([model(pixel_values=part).logits.numpy() for part in pixels.split(250)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    pixels, labels = images("test", 0, 10_000)
    with np.load(DATA / "teacher_logits_resnet.npz", allow_pickle=False) as file:
        published = {name: file[f"{name}_test"].astype(np.float32) for name in DEPTHS}
    for name in DEPTHS:
        model = teacher(name)
        save_model(model, None, out / name)
        settings = {
            "image_processor_type": "CLIPImageProcessor", "do_resize": False, "do_center_crop": False,
            "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": MEAN, "image_std": STD,
        }  # fmt: skip
        write_json(out / name / "preprocessor_config.json", settings)
        found = logits(model, pixels)
        accuracy = (found.argmax(-1) == labels).mean()
        print(
            f"{out / name}: accuracy {accuracy:.2%} of {len(labels):,} test images, logits within"
            f" {np.abs(found - published[name]).max():.2g} of those published (float16, up to"
            f" {np.abs(published[name]).max():.3g})",
            flush=True,
        )


if __name__ == "__main__":
    main()
