"""The tasks, by the name a recipe gives them."""

from setpoint.recipe import DataRecipe
from setpoint.tasks.base import Task
from setpoint.tasks.image_classification import ImageClassification
from setpoint.tasks.text_classification import TextClassification
from setpoint.tasks.token_classification import TokenClassification

TASKS: dict[str, type[Task]] = {
    task.name: task for task in (TokenClassification, TextClassification, ImageClassification)
}


def make_task(name: str, data: DataRecipe) -> Task:
    """The task of a recipe."""
    return TASKS[name](data)
