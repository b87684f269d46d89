"""Names of any kind as numbers of buckets, the same on every machine and in every process."""

from __future__ import annotations

import hashlib


def bucket(name: str, field: str, buckets: int) -> int:
    """The bucket of a name, from 0 to below ``buckets``.

    A keyed hash (BLAKE2b), so that names which share a bucket in one field need not in another. Python's ``hash`` would
    be another one in each process. Of n names in B buckets a share of 1 − exp(−n / B) is not alone in theirs.

    Args:
        name: what is hashed.
        field: the key: what kind of name it is.
        buckets: how many there are.

    Examples:
        >>> bucket("42", "user", 1000), bucket("42", "item", 1000)
        (561, 483)
    """
    key = hashlib.blake2b(field.encode(), digest_size=16).digest()  # a key has 64 bytes at most
    digest = hashlib.blake2b(name.encode(), digest_size=8, key=key).digest()
    return int.from_bytes(digest) % buckets
