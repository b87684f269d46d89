"""The tasks, by the name a recipe gives them."""

from setpoint.recipe import TASK_NAMES, DataRecipe
from setpoint.tasks.audio_classification import AudioClassification
from setpoint.tasks.base import Task
from setpoint.tasks.image_classification import ImageClassification
from setpoint.tasks.image_generation import ImageGeneration
from setpoint.tasks.language_modelling import LanguageModelling
from setpoint.tasks.multi_label_classification import MultiLabelClassification
from setpoint.tasks.object_detection import ObjectDetection
from setpoint.tasks.question_answering import QuestionAnswering
from setpoint.tasks.rating_prediction import RatingPrediction
from setpoint.tasks.sequential_recommendation import SequentialRecommendation
from setpoint.tasks.speech_recognition import SpeechRecognition
from setpoint.tasks.speech_synthesis import SpeechSynthesis
from setpoint.tasks.text_classification import TextClassification
from setpoint.tasks.text_regression import TextRegression
from setpoint.tasks.token_classification import TokenClassification

TASKS: dict[str, type[Task]] = {
    task.name: task
    for task in (
        TokenClassification,
        TextClassification,
        MultiLabelClassification,
        TextRegression,
        ImageClassification,
        QuestionAnswering,
        LanguageModelling,
        ImageGeneration,
        SpeechSynthesis,
        SequentialRecommendation,
        RatingPrediction,
        AudioClassification,
        SpeechRecognition,
        ObjectDetection,
    )
}


def add_task(task: type[Task]) -> None:
    """Make a task of one's own known, so that recipes may name it.

    Args:
        task: a subclass of ``Task``.

    Raises:
        ValueError: there is another of its name.

    Examples:
        >>> add_task(TextClassification)  # as good as done
        >>> class Another(TextClassification):
        ...     pass
        >>> add_task(Another)
        Traceback (most recent call last):
            ...
        ValueError: there is a task 'text-classification' already: give it another name
    """
    if TASKS.setdefault(task.name, task) is not task:
        raise ValueError(f"there is a task '{task.name}' already: give it another name")
    if task.name not in TASK_NAMES:
        TASK_NAMES.append(task.name)


def make_task(name: str, data: DataRecipe) -> Task:
    """The task of a recipe."""
    return TASKS[name](data)
