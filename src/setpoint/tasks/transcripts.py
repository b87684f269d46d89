"""Transcripts: the characters they are written in, the frames that say them, and how far one is from another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from setpoint.errors import DataError
from setpoint.tasks.checks import shown

BLANK = "<pad>"
"""The name of the class that says nothing, as tokenizers for wav2vec 2.0 have it."""
WORD_END = "|"
"""The name of what stands between words, as there."""


def vocabulary(listed: Sequence[str] | None, texts: Iterable[str]) -> tuple[str, ...]:
    """The classes of a frame: the blank, what stands between words, and the characters.

    Args:
        listed: ``data.labels``; whatever its first entry is called, it is the blank.
        texts: the training transcripts, for where nothing is listed.

    Raises:
        DataError: there is no character.

    Examples:
        >>> vocabulary(None, ["two one", "one"])
        ('<pad>', '|', 'e', 'n', 'o', 't', 'w')
    """
    if listed is not None:
        return tuple(listed)
    found = {character for text in texts for character in text} - {" ", WORD_END}
    if not found:
        raise DataError("data.train has no transcript with a letter in it", "give transcripts in data.text")
    return (BLANK, WORD_END, *sorted(found))


def spelt(text: str, names: Sequence[str], split: str) -> list[int]:
    """The classes of a transcript's characters, one between words; spaces around it, and more than one, do not count.

    Raises:
        DataError: a character that is no class.

    Examples:
        >>> spelt(" one  no ", ("<pad>", "|", "e", "n", "o"), "train")
        [4, 3, 2, 1, 3, 4]
    """
    known = {name: number for number, name in enumerate(names) if number}
    found = []
    for character in WORD_END.join(text.split()):
        if character not in known:
            raise DataError(
                f"data.{split} has the character {shown(character)} in a transcript, which no training transcript has"
                if character != WORD_END
                else f"data.{split} has a transcript of several words, and data.labels has no '{WORD_END}'",
                "mend the transcripts, or list every character in data.labels, the blank first",
            )
        found.append(known[character])
    return found


def written(classes: Iterable[int], names: Sequence[str]) -> str:
    """The text that classes spell.

    Examples:
        >>> written([4, 3, 2, 1, 3, 4], ("<pad>", "|", "e", "n", "o"))
        'one no'
    """
    return " ".join("".join(names[number] for number in classes).replace(WORD_END, " ").split())


def frames_needed(target: list[int]) -> int:
    """The fewest frames in which a transcript can be said.

    Examples:
        >>> frames_needed([3, 3, 5]), frames_needed([])
        (4, 0)
    """
    return len(target) + sum(a == b for a, b in pairwise(target))


def collapsed(path: list[int]) -> list[int]:
    """The transcript that a class for each frame says: repeats removed, then blanks.

    Examples:
        >>> collapsed([0, 3, 3, 0, 3, 5, 5])
        [3, 3, 5]
    """
    return [now for before, now in zip([0, *path], path, strict=False) if now not in (before, 0)]


def edits(said: Sequence[object], true: Sequence[object]) -> int:
    """The fewest insertions, deletions and substitutions that make one sequence the other.

    Source: Levenshtein 1966; the table of Wagner and Fischer 1974, row by row.

    Examples:
        >>> edits("kitten", "sitting"), edits(["one", "two"], ["two"])
        (3, 1)
    """
    before = list(range(len(true) + 1))
    for place, one in enumerate(said, start=1):
        row = [place]
        for column, other in enumerate(true, start=1):
            row.append(min(before[column] + 1, row[-1] + 1, before[column - 1] + (one != other)))
        before = row
    return before[-1]
