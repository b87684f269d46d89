"""Fashion-MNIST at half size as Parquet files, for recipes: 10,000 training, 2,000 validation, 10,000 test images.

    python benchmarks/fashion.py ../shared/data/fashion_mnist runs/fashion-data

The training and validation images are the first of the official training file; a pixel is the mean of four.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def main() -> None:
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    target.mkdir(parents=True, exist_ok=True)
    train, test = (
        (_read(source / f"{name}-images-idx3-ubyte.gz", 16), _read(source / f"{name}-labels-idx1-ubyte.gz", 8))
        for name in ("train", "t10k")
    )
    for name, (images, labels), part in (
        ("train", train, slice(0, 10_000)), ("validation", train, slice(10_000, 12_000)), ("test", test, slice(None))
    ):  # fmt: skip
        pixels = images.reshape(-1, 14, 2, 14, 2).mean((2, 4)).round().astype(np.uint8)[part]
        columns = {"image": pa.array(pixels.tolist()), "label": pa.array(labels[part].tolist())}
        pq.write_table(pa.table(columns), target / f"{name}.parquet")


def _read(file: Path, header: int) -> np.ndarray:
    return np.frombuffer(gzip.decompress(file.read_bytes())[header:], np.uint8)


if __name__ == "__main__":
    main()
