"""Small files to read, and what is said of them."""

import gzip
import json
import lzma

import pytest

from setpoint.errors import DataError
from setpoint.recipe import DataRecipe
from setpoint.tasks.readers import read_splits

SPLITS = ("train", "validation", "test")


def write(path, content):
    """A file of text or bytes, packed as its name says."""
    content = content if isinstance(content, bytes) else content.encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes({".gz": gzip.compress, ".xz": lzma.compress}.get(path.suffix, bytes)(content))
    return str(path)


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def read(path, asked, /, **fields):
    """A file as all three splits."""
    return read_splits(DataRecipe(**dict.fromkeys(SPLITS, str(path)) | fields), asked)


def rows(dataset):
    return [{name: value for name, value in row.items() if name != "id"} for row in dataset]


def message(call, /, *args, **fields):
    with pytest.raises(DataError) as caught:
        call(*args, **fields)
    assert "\n" not in str(caught.value)
    return str(caught.value)
