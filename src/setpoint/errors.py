"""Every error a user can cause or meet, as one tree.

::

    SetpointError            exit 2
    + RecipeError            a field of the recipe is unknown, missing, ill-typed or out of range
    + TemperatureError       a temperature that is not a finite number above 0
    + DataError              a file, a split, a line or a label
    + ModelError             teacher, student or tokenizer do not exist or do not fit each other
    + TargetError            the teacher's logits, live or stored
      - FingerprintError     a store that was built for something else
    + LossError              a loss that is not a number
    + RunError               the run folder: in use, or not writable
      - Interrupted          exit 130: stopped by the user; the same command resumes

The message of each is one sentence that names the field, the value and the mend. The command line prints it on stderr
and leaves with ``exit_code``; a library user catches ``SetpointError``.
"""


class SetpointError(Exception):
    """Base of all errors that Setpoint raises on purpose.

    Examples:
        >>> str(SetpointError("data.train 'x.conll' does not exist", "give the path of a readable file"))
        "data.train 'x.conll' does not exist: give the path of a readable file"
    """

    exit_code = 2

    def __init__(self, problem: str, mend: str) -> None:
        super().__init__(f"{problem}: {mend}")
        self.problem = problem
        self.mend = mend


class SetpointWarning(UserWarning):
    """Something a user should know of, though the work goes on."""


class RecipeError(SetpointError):
    """A field of the recipe is unknown, missing, ill-typed or out of range."""


class TemperatureError(SetpointError, ValueError):
    """A temperature that is not a finite number above 0."""


class DataError(SetpointError):
    """A file, a split, a line or a label."""


class ModelError(SetpointError):
    """Teacher, student or tokenizer do not exist or do not fit each other."""


class TargetError(SetpointError):
    """The teacher's logits, live or stored."""


class FingerprintError(TargetError):
    """A target store that was built for something else."""


class LossError(SetpointError):
    """A loss that is not a finite number; ``row`` counts the valid rows of the batch.

    Attributes:
        row: the first row whose loss is not finite.
    """

    def __init__(self, problem: str, mend: str, row: int) -> None:
        super().__init__(problem, mend)
        self.row = row


class RunError(SetpointError):
    """The run folder is in use or not writable."""


class Interrupted(RunError):
    """Stopped by the user; the same command resumes."""

    exit_code = 130
