"""setpoint.json: what an exported folder is, and what its files have to be for it to be opened."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError

from setpoint.errors import ModelError
from setpoint.files import read_json, sha256_file
from setpoint.recipe_images import PixelRecipe
from setpoint.recipe_values import Count, Part, Positive, Text

NAME = "setpoint.json"
FORMAT = 1
"""Of the manifest: a version of Setpoint opens the formats it knows, and no other."""
SUFFIXES = {".json", ".safetensors", ".onnx", ".txt", ".model", ".jinja"}
"""Of the files that are loaded: none of them can hold code."""
BESIDE = {NAME, "README.md", ".gitattributes", "version.json"}
"""Files that may lie beside those of the manifest; nobody loads them."""


def _file_name(name: str) -> str:
    """A name in the folder itself, of a kind that is known."""
    if Path(name).name != name or "\\" in name or name.startswith(".") or Path(name).suffix not in SUFFIXES:
        raise ValueError("is no file of an exported folder")
    return name


FileName = Annotated[str, AfterValidator(_file_name)]


class FileRecord(Part):
    """What a file has to be."""

    bytes: int
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Parity(Part):
    """How near the shipped model is to the student in PyTorch, on rows of the validation split.

    They are computed in batches of several sizes, with padding.
    """

    largest: float
    """The largest difference between two logits."""
    scale: float
    """The largest logit."""
    agreement: float
    """Share of the rows with the same top class."""
    rows: int
    """How many rows were compared."""


class Measured(Part):
    """The headline metric on the validation split."""

    metric: str
    value: float
    """Of the shipped model."""
    pytorch: float
    """Of the student in PyTorch."""
    examples: int


class Manifest(Part):
    """All that is known of an exported student."""

    format: Literal[1] = 1
    name: str
    """Of the recipe."""
    fingerprint: str
    """Digest of the recipe."""
    seed: int
    """Of the run's distilled students the one that was exported."""
    task: str
    labels: tuple[Text, ...]
    """The classes of a row, in the order of the logits; empty where only the tokenizer knows them."""
    outputs: tuple[Text, ...] | None = None
    """The names of what the model's head gives, where those are not the classes; empty where it has no names."""
    columns: dict[Text, Text]
    """The fields of an input, and the column of each in tables."""
    max_length: Count | None
    """Tokens after which a text is cut."""
    fields: dict[Text, bool | int] = {}  # noqa: RUF012 - pydantic copies it
    """Other fields of the recipe's ``data`` that its task needs to answer."""
    image_shape: tuple[int, ...] | None
    """Channels, height and width of an image, as the model reads it."""
    pixels: PixelRecipe | None = None
    """How a picture becomes that."""
    model: Literal["model.onnx", "model.safetensors"]
    inputs: tuple[str, ...]
    """The names of the model's inputs."""
    dtype: Literal["float32", "int8"]
    temperature: Positive
    """What the logits are divided by to give probabilities; fitted on the validation split."""
    parity: Parity
    validation: Measured
    setpoint: str
    """The version that wrote it."""
    files: dict[FileName, FileRecord]


def read_manifest(folder: str | Path) -> Manifest:
    """The manifest of an exported folder; its files are not looked at.

    Raises:
        ModelError: there is none, or one that this version does not know, or one that is damaged.
    """
    path = Path(folder) / NAME
    try:
        content = read_json(path)
    except OSError:
        raise ModelError(f"'{folder}' has no {NAME}", "give a folder that setpoint export wrote") from None
    except (ValueError, RecursionError):
        content = None
    known = isinstance(content, dict) and content.get("format")
    if isinstance(known, int) and known > FORMAT:
        raise ModelError(f"'{path}' has format {known}, which is newer than this Setpoint", "upgrade setpoint")
    try:
        manifest = Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "all of it"
        raise ModelError(f"'{path}' is damaged ({field}: {_reason(first)})", "export the run again") from None
    if manifest.model not in manifest.files:
        raise ModelError(f"'{path}' is damaged (files: no {manifest.model})", "export the run again")
    return manifest


def _reason(error: Any) -> str:
    return " ".join(str(error["msg"]).removeprefix("Value error, ").split())


def record_files(folder: Path) -> dict[str, FileRecord]:
    """What the files of a folder are, for its manifest."""
    return {
        file.name: FileRecord(bytes=file.stat().st_size, sha256=sha256_file(file))
        for file in sorted(folder.iterdir())
        if file.name not in BESIDE
    }


def check_files(folder: Path, manifest: Manifest) -> None:
    """Refuse a folder whose files are not those of its manifest.

    Raises:
        ModelError: naming the first that is missing, damaged, or in nobody's list.
    """
    for name, record in manifest.files.items():
        file = folder / name
        if not file.is_file():
            raise ModelError(f"'{file}' is missing", "export the run again")
        size = file.stat().st_size
        if size != record.bytes:
            raise ModelError(f"'{file}' has {size:,} bytes of {record.bytes:,}", "export or copy it again")
        if sha256_file(file) != record.sha256:
            raise ModelError(f"'{file}' is damaged, its SHA-256 is another", "export or copy it again")
    there = {file.name for file in folder.iterdir() if file.is_file()}
    unknown = sorted(there - BESIDE - set(manifest.files))
    if unknown:
        raise ModelError(f"'{folder}' holds '{unknown[0]}', which is none of the export's files", "remove it")
