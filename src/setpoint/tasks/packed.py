"""Files that may be packed, unpacked as far as there is sense in it."""

from __future__ import annotations

import gzip
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path

UNREADABLE = (OSError, EOFError, zlib.error, lzma.LZMAError, UnicodeDecodeError)
"""What ``read_text`` raises; ``unpack`` too, but for the last."""
PACKED: dict[str, Callable[[Path], gzip.GzipFile | lzma.LZMAFile]] = {".gz": gzip.GzipFile, ".xz": lzma.LZMAFile}
"""How to open a packed file, by the end of its name."""
_CHUNK = 1 << 24


def allowance(path: Path) -> int:
    """The bytes that a packed file may unpack to: 1 GiB, or a hundred times its size, whichever is more.

    Data stay far below it; what does not was made to fill the memory.
    """
    return max(1 << 30, 100 * path.stat().st_size)


def unpack(path: Path) -> bytes:
    """The content of a file, unpacked where its name ends with ``.gz`` or ``.xz``.

    Raises one of ``UNREADABLE``; an OSError where it unpacks to more than its ``allowance``.
    """
    if path.suffix not in PACKED:
        return path.read_bytes()
    most, chunks, size = allowance(path), [], 0
    with PACKED[path.suffix](path) as file:
        while chunk := file.read(_CHUNK):
            chunks.append(chunk)
            size += len(chunk)
            if size > most:
                raise OSError(f"it unpacks to more than {most} bytes")
    return b"".join(chunks)


def read_text(path: Path) -> str:
    """A UTF-8 file, unpacked as by ``unpack``. Raises one of ``UNREADABLE``."""
    return unpack(path).decode("utf-8-sig")


def plain_name(path: Path) -> str:
    """The name of a file without the ending that says how it is packed.

    Examples:
        >>> plain_name(Path("a/x.jsonl.xz")), plain_name(Path("x.csv"))
        ('x.jsonl', 'x.csv')
    """
    return path.stem if path.suffix in PACKED else path.name


def split_lines(text: str) -> list[str]:
    r"""Lines as files have them; ``str.splitlines`` cuts at U+2028, U+0085 and more, which may be part of a text.

    Examples:
        >>> split_lines("a\r\nb\x85c\rd")
        ['a', 'b\x85c', 'd']
    """
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
