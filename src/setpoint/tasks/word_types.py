"""What kinds of words there are: softness and agreement differ between them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence


def word_types(
    sentences: Sequence[Sequence[str]], labels: Sequence[Sequence[int]], names: Sequence[str], known: Collection[str]
) -> dict[str, list[list[bool]]]:
    """For each type and sentence, which of its words are of that type; a word may be of several.

    Args:
        sentences: the words.
        labels: their labels.
        names: of the labels; words are told apart as outside and inside entities where one is ``O``.
        known: the words of the training split.

    Examples:
        >>> found = word_types([["Rome", "in", "1955"]], [[1, 0, 0]], ("O", "B-LOC"), {"in", "Rome"})
        >>> found["numbers"], found["words unseen in training"]
        ([[False, False, True]], [[False, False, True]])
    """
    outside = names.index("O") if "O" in names else None
    rules: dict[str, Callable[[int, str, int], bool]] = {
        "first words": lambda place, word, label: place == 0,
        "capitalised words": lambda place, word, label: word[:1].isupper(),
        "numbers": lambda place, word, label: any(character.isdigit() for character in word),
        "words unseen in training": lambda place, word, label: word not in known,
    }
    if outside is not None:
        rules["words in an entity"] = lambda place, word, label: label != outside
        rules["words outside entities"] = lambda place, word, label: label == outside
    return {
        name: [
            [rule(place, *word_and_label) for place, word_and_label in enumerate(zip(words, tags, strict=True))]
            for words, tags in zip(sentences, labels, strict=True)
        ]
        for name, rule in rules.items()
    }
