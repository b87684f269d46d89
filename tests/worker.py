"""Commands, runs and searches in processes of their own; the last two may kill themselves at a given moment.

They are forked from a server that has imported everything once: the imports are what takes long in such a test.
"""

import importlib
import multiprocessing
import os
import signal
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import torch
import yaml

STUDY = "setpoint.tuning.study:SharedStudy."
STUDENT = "setpoint.tuning.student:"
POPULATION = "setpoint.tuning.population:Population."

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(["setpoint.pipeline", "seqeval.metrics", "sklearn.datasets"])


class Worker:
    """A process that does ``work(*arguments)``, what it says going to files."""

    def __init__(self, work, *arguments):
        self.said = Path(tempfile.mkdtemp())
        self.process = _server.Process(target=_begin, args=(str(self.said), work, *arguments), daemon=True)
        self.process.start()

    def wait(self):
        """Its exit code, and what it said on stdout and on stderr."""
        self.process.join(300)
        assert self.process.exitcode is not None, "it hangs"
        return self.process.exitcode, *((self.said / name).read_text() for name in ("1", "2"))


def _begin(said, work, *arguments):
    for stream in (1, 2):
        os.dup2(os.open(f"{said}/{stream}", os.O_WRONLY | os.O_CREAT), stream)
    torch.set_num_threads(1)
    work(*arguments)


def command(*arguments, cwd=".", ctrl_c=(STUDY + "report", 0)):
    """What ``setpoint ARGUMENTS`` leaves: returncode, stdout, stderr; Ctrl-C comes at a call, where one is given."""
    code, out, err = Worker(_command, [str(one) for one in arguments], str(cwd), *ctrl_c).wait()
    return SimpleNamespace(returncode=code, stdout=out, stderr=err)


def start(recipe, folder, moment=STUDY + "report", calls=0, parts=10):
    """A worker of a search; it dies at that call of what ``moment`` names, where one is given."""
    return Worker(_tune, str(recipe), str(folder), moment, calls, parts)


def start_run(recipe, folder, moment, calls):
    """A run; it dies at that call of what ``moment`` names, where one is given."""
    return Worker(_run, str(recipe), str(folder), moment, calls)


def end(worker):
    """What it said, once it has done its work."""
    code, out, err = worker.wait()
    assert code == 0, err[-3000:]
    return out.strip()


def die(worker):
    """Wait for its death at its moment."""
    code, _, err = worker.wait()
    assert code == -signal.SIGKILL, err[-3000:]


def written(tmp_path, raw):
    """The path of a recipe."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(raw))
    return recipe


def _command(arguments, folder, moment, calls):
    from setpoint.cli import main

    def ctrl_c():
        raise KeyboardInterrupt

    if calls:
        _lay_bomb(moment, calls, ctrl_c)
    os.chdir(folder)
    sys.argv = ["setpoint", *arguments]
    main()


def _tune(recipe, folder, moment, calls, parts):
    from setpoint import pipeline
    from setpoint.recipe_file import load_recipe
    from setpoint.tuning import student

    student.PARTS = parts
    _lay_bomb(moment, calls)
    print(pipeline.tune(load_recipe(recipe), folder).verdict.sentence)


def _run(recipe, folder, moment, calls):
    from setpoint import pipeline

    _lay_bomb(moment, calls)
    pipeline.run(recipe, folder)


def _kill():
    os.kill(os.getpid(), signal.SIGKILL)


def _lay_bomb(moment, calls, blow=_kill):
    """Put in the place of a function one that blows up when it is called for the ``calls``-th time."""
    module, _, path = moment.partition(":")
    *owners, name = path.split(".")
    owner = importlib.import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    real, count = getattr(owner, name), 0

    def bomb(*args, **kwargs):
        nonlocal count
        count += 1
        if count == calls:
            blow()
        return real(*args, **kwargs)

    setattr(owner, name, bomb)
