import errno
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from setpoint.errors import RunError
from setpoint.files import read_json
from setpoint.run_folder import RunFolder


def test_a_stage_is_done_once_and_its_result_kept(tmp_path):
    calls = []

    def work():
        calls.append(1)
        return {"score": 0.5}

    for _ in range(2):
        with RunFolder(tmp_path / "run") as folder:
            assert folder.stage("teacher", {"seed": 1}, work) == {"score": 0.5}
    assert len(calls) == 1
    assert read_json(tmp_path / "run/stages/teacher.json")["made_from"] == {"seed": 1}


def test_a_stage_made_from_something_else_is_done_again(tmp_path):
    with RunFolder(tmp_path / "run") as folder:
        folder.stage("student", {"temperature": 4.0}, lambda: {"t": 4})
        assert folder.stage("student", {"temperature": 2.0}, lambda: {"t": 2}) == {"t": 2}


def test_a_costly_stage_is_refused_instead_and_the_difference_named(tmp_path):
    with RunFolder(tmp_path / "run") as folder:
        folder.stage("teacher", {"teacher": {"model": "a"}, "task": "x"}, dict, redo=False)
        with pytest.raises(RunError) as error:
            folder.stage("teacher", {"teacher": {"model": "b"}, "task": "x"}, dict, redo=False)
    assert str(error.value) == (
        f"run folder '{tmp_path / 'run'}' holds a teacher made from another 'teacher.model': "
        "start over with --fresh, or choose another folder with --run-dir"
    )


def test_a_stage_that_fails_leaves_no_mark(tmp_path):
    def fail():
        raise RuntimeError("power cut")

    with RunFolder(tmp_path / "run") as folder:
        folder.stage("student", 1, lambda: {"old": True})
        with pytest.raises(RuntimeError):
            folder.stage("student", 2, fail)
        assert folder.mark("student") is None


def test_what_was_begun_from_something_else_is_not_resumed(tmp_path):
    scratch = tmp_path / "run/checkpoints/student"

    def cut():
        (scratch / "checkpoint").write_text("half")
        raise RuntimeError("power cut")

    def found():
        return {"found": [file.name for file in scratch.iterdir() if file.name != "made_from.json"]}

    with RunFolder(tmp_path / "run") as folder:
        with pytest.raises(RuntimeError):
            folder.stage("student", {"lr": 1}, cut, scratch=scratch)
        assert folder.stage("student", {"lr": 1}, found, scratch=scratch) == {"found": ["checkpoint"]}
        assert not scratch.exists()
        with pytest.raises(RuntimeError):
            folder.stage("student", {"lr": 2}, cut, scratch=scratch)
        assert folder.stage("student", {"lr": 3}, found, scratch=scratch) == {"found": []}


HOLD = """
import sys
from setpoint.run_folder import RunFolder
with RunFolder(sys.argv[1]):
    print("open", flush=True)
    sys.stdin.read()
"""


def test_two_processes_in_one_folder_are_refused(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(RunError) as error, RunFolder(tmp_path / "run"):
            pass
        assert str(error.value) == (
            f"run folder '{tmp_path / 'run'}' is in use by process {holder.pid}: "
            "wait for it, or choose another with --run-dir"
        )
    with RunFolder(tmp_path / "run"):
        assert (tmp_path / "run/.lock").read_text() == f"process {os.getpid()}"


def test_starting_over_forgets_the_run_and_nothing_else(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with RunFolder(tmp_path) as folder:
        folder.stage("teacher", 1, dict, scratch=tmp_path / "checkpoints/teacher")
        for name in ("student", "student_hard", ".teacher.partial", "checkpoints/student"):
            (tmp_path / name).mkdir(parents=True, exist_ok=True)
        folder.clear()
        assert folder.mark("teacher") is None
    assert sorted(file.name for file in tmp_path.iterdir()) == [".lock", "thesis.tex"]


def test_starting_over_deletes_nothing_where_no_run_was(tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/years.txt").write_text("of work")
    for _ in range(2):
        with RunFolder(tmp_path) as folder, pytest.raises(RunError, match="holds 'logs' but no run, so --fresh will"):
            folder.clear()
    assert (tmp_path / "logs/years.txt").read_text() == "of work"


def test_a_run_that_was_killed_in_its_first_training_can_be_started_over(tmp_path):
    with RunFolder(tmp_path) as folder:
        with pytest.raises(ZeroDivisionError):
            folder.stage("teacher", 1, lambda: 1 / 0, scratch=tmp_path / "checkpoints/teacher")
        folder.clear()
    assert [file.name for file in tmp_path.iterdir()] == [".lock"]


def test_what_somebody_deleted_is_made_again(tmp_path):
    made = []

    def work():
        (tmp_path / "student").mkdir()
        made.append(1)

    with RunFolder(tmp_path) as folder:
        for _ in range(2):
            folder.stage("student", 1, work, output=tmp_path / "student")
        assert len(made) == 1
        (tmp_path / "student").rmdir()
        folder.stage("student", 1, work, output=tmp_path / "student")
        assert len(made) == 2


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"made_from": 1'])
def test_a_damaged_mark_is_none(tmp_path, content):
    with RunFolder(tmp_path) as folder:
        folder.stage("student", 1, dict)
        (tmp_path / "stages/student.json").write_text(content)
        assert folder.mark("student") is None
        assert folder.seconds() == {}
        assert folder.stage("student", 1, lambda: {"again": True}) == {"again": True}


@pytest.mark.parametrize("free", [100, 1 << 30])
@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("unexpected pos 64"), KeyboardInterrupt()]
)
def test_a_full_disk_is_one_sentence_whatever_the_library_says(tmp_path, monkeypatch, free, error):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=free))
    full = isinstance(error, OSError) or (free == 100 and isinstance(error, RuntimeError))
    with pytest.raises(RunError if full else type(error)) as raised, RunFolder(tmp_path):
        raise error
    if full:
        assert str(raised.value) == (
            f"the disk is full while writing run folder '{tmp_path}': make room and run the same command again;"
            " it continues"
        )


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written") as error, RunFolder(tmp_path / "file/run"):
        pass
    assert "--run-dir" in str(error.value)
