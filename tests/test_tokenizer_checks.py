"""A student that would read other tokens than it should is refused before anything is trained."""

import pytest

from setpoint import pipeline
from setpoint.errors import RecipeError
from setpoint.pretraining import train_tokenizer
from setpoint.recipe_file import parse_recipe
from setpoint.tokenizer_checks import check_tokenizers
from tiny import SMALL, ner_recipe, save_teacher

CONFIG = {"kind": "config", "config": SMALL}
TEXT = {"text": "./train.conll", "objective": "masked", "train": {"epochs": 1}}
OTHER = "gives the student another tokenizer than its teacher's, while the rows of token-classification are of tokens"


@pytest.fixture
def folder(tmp_path, teacher_folder):
    """Two models and their tokenizers, ``other`` of other words; and ``bare``, a model without a tokenizer."""
    for name in ("other", "bare", "same"):
        save_teacher(tmp_path / name)
    train_tokenizer(["quite different words " * 9], vocab_size=60).save_pretrained(tmp_path / "other")
    for file in (tmp_path / "bare").glob("token*"):
        file.unlink()
    return tmp_path


def recipe(folder, student, teacher=None):
    raw = ner_recipe(folder, folder / "same")
    raw["student"] = {key: str(folder / value) if isinstance(value, str) else value for key, value in student.items()}
    if teacher is not None:
        raw["teacher"] = teacher
    return parse_recipe(raw, folder=folder)


@pytest.mark.parametrize(
    ("student", "field"),
    [
        ({"model": CONFIG, "tokenizer": "other"}, "student.tokenizer"),
        ({"model": CONFIG, "pretrain": TEXT | {"new_tokenizer": True}}, "student.pretrain.new_tokenizer"),
        ({"model": {"kind": "shrunk", "layers": 1, "vocabulary": {"most": 100}}}, "student.model.vocabulary"),
    ],
)
def test_where_rows_are_of_tokens_a_student_has_its_teachers(folder, student, field):
    found = recipe(folder, student)
    with pytest.raises(RecipeError) as error:
        check_tokenizers(found, of_tokens=True)
    assert str(error.value) == f"recipe field '{field}' {OTHER}: remove it"
    check_tokenizers(found, of_tokens=False)


@pytest.mark.parametrize("of_tokens", [True, False])
@pytest.mark.parametrize(
    "student", [{"model": CONFIG}, {"model": CONFIG, "tokenizer": "same"}, {"model": "same"}, {"model": "bare"}]
)
def test_the_teachers_own_words_are_right(folder, student, of_tokens):
    check_tokenizers(recipe(folder, student), of_tokens=of_tokens)


def test_a_tokenizer_yet_to_be_learnt_is_none_that_a_student_has(folder):
    teacher = {"model": CONFIG, "new_tokenizer": 290, "train": {"epochs": 1}}
    with pytest.raises(RecipeError, match=r"'student.tokenizer' gives the student another tokenizer"):
        check_tokenizers(recipe(folder, {"model": CONFIG, "tokenizer": "same"}, teacher), of_tokens=True)


def test_a_model_with_weights_reads_by_its_own_tokenizer(folder):
    found = recipe(folder, {"model": "other"})
    begins = f"recipe field 'student.model' is '{folder}/other', which comes with another tokenizer than the teacher's"
    for of_tokens, mend in (
        (True, "give a student of the teacher's tokenizer"),
        (False, f"set student.tokenizer to '{folder}/other'"),
    ):
        with pytest.raises(RecipeError) as error:
            check_tokenizers(found, of_tokens=of_tokens)
        assert str(error.value) == f"{begins}: {mend}"
    check_tokenizers(recipe(folder, {"model": "other", "tokenizer": "other"}), of_tokens=False)


def test_it_is_said_before_the_teacher_is_trained(folder):
    with pytest.raises(RecipeError, match=r"comes with another tokenizer"):
        pipeline.run(recipe(folder, {"model": "other"}), folder / "run")
    assert not (folder / "run/stages").exists()
