"""Which tokenizer a student has beside its teacher's: what a recipe says of it that cannot be, or cannot be meant."""

from __future__ import annotations

from typing import Any

from setpoint.errors import ModelError, RecipeError
from setpoint.models import load_tokenizer
from setpoint.recipe import Recipe, TeacherRecipe
from setpoint.targets.fingerprint import digest_tokenizer


def check_tokenizers(recipe: Recipe, *, of_tokens: bool) -> None:
    """Refuse a student that would read other tokens than it should.

    A model with weights reads rubbish through another tokenizer than its own, and says nothing. Where rows are of
    tokens, a student with a tokenizer of its own has other rows than its teacher.

    Args:
        recipe: of a task on texts.
        of_tokens: whether its rows are of tokens.

    Raises:
        RecipeError: it would.
    """
    student = recipe.student
    if of_tokens:
        given = {
            "student.model.vocabulary": student.model.kind == "shrunk" and student.model.vocabulary is not None,
            "student.pretrain.new_tokenizer": student.pretrain is not None and student.pretrain.new_tokenizer,
            "student.tokenizer": student.tokenizer is not None and _differs(student.tokenizer, recipe.teacher),
        }
        for name, there in given.items():
            if there:
                raise RecipeError(
                    f"recipe field '{name}' gives the student another tokenizer than its teacher's, while the rows of"
                    f" {recipe.task} are of tokens",
                    "remove it",
                )
    if student.model.kind == "pretrained" and student.tokenizer is None:
        location = student.model.model
        if _has_other_words(location, recipe.teacher):
            raise RecipeError(
                f"recipe field 'student.model' is '{location}', which comes with another tokenizer than the teacher's",
                "give a student of the teacher's tokenizer" if of_tokens else f"set student.tokenizer to '{location}'",
            )


def _differs(location: str, teacher: TeacherRecipe) -> bool:
    """Whether a location has another tokenizer than the teacher, which it always has where that is yet to be learnt."""
    own = _of_teacher(teacher)
    return own is None or digest_tokenizer(load_tokenizer(location, "student.tokenizer")) != digest_tokenizer(own)


def _has_other_words(location: str, teacher: TeacherRecipe) -> bool:
    """Whether a model comes with a tokenizer whose entries are not the teacher's, whatever was added to either."""
    try:
        its = load_tokenizer(location)
    except ModelError:  # it comes with none
        return False
    own = _of_teacher(teacher)
    return own is None or _words(its) != _words(own)


def _of_teacher(teacher: TeacherRecipe) -> Any | None:
    """The teacher's tokenizer; None where that is yet to be learnt."""
    if teacher.new_tokenizer is not None or (teacher.pretrain is not None and teacher.pretrain.new_tokenizer):
        return None
    location = teacher.tokenizer or (teacher.model.model if teacher.model.kind == "pretrained" else None)
    if location is None:  # one is learnt with its pre-training; or there is none, which is refused later
        return None
    return load_tokenizer(location, "teacher.model" if teacher.tokenizer is None else "teacher.tokenizer")


def _words(tokenizer: Any) -> dict[str, int]:
    added = tokenizer.get_added_vocab()
    return {word: at for word, at in tokenizer.get_vocab().items() if word not in added}
