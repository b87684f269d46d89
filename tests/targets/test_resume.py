"""A build that is stopped, at whatever moment and however, continues to the same bytes."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from setpoint import TargetStore
from setpoint.errors import TargetError
from targets.conformance import LABELS, MADE_FROM, collate, examples

DATA = examples(n=10)
CALLS = [2, 2, 2, 1]  # teacher batches of at most 2, in shards of 3


class Teacher:
    """Its logits depend on the whole batch, so a resumed build with other batches would give other bytes.

    ``stop_at`` is the call at which it stops the build, by whatever ``how`` does.
    """

    labels = LABELS

    def __init__(self, stop_at=None, how=None):
        self.calls, self.stop_at, self.how = 0, stop_at, how

    def __call__(self, batch):
        if self.calls == self.stop_at:
            self.how()
        self.calls += 1
        rows = batch["labels"] != -100
        return (batch["input_ids"].sum() + torch.arange(rows.sum() * 4)).reshape(-1, 4) / 7


def build(path, teacher=None):
    return TargetStore.build(path, teacher or Teacher(), DATA, collate, MADE_FROM, shard_examples=3, batch_size=2)


def content(path):
    return {file.name: file.read_bytes() for file in Path(path).iterdir()}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    teacher = Teacher()
    build(folder, teacher)
    assert teacher.calls == sum(CALLS)
    return content(folder)


def stopper(error):
    def stop(*_):
        raise error

    return stop


def check_resumes(path, unbroken, kept):
    """The store refuses to be read; building again asks the teacher for the missing shards only."""
    with pytest.raises(TargetError, match=r"is not finished|there is no target store"):
        TargetStore.open(path)
    teacher = Teacher()
    store = build(path, teacher)
    assert content(path) == unbroken
    assert teacher.calls == sum(CALLS[kept:])
    assert len(store) == 10


@pytest.mark.parametrize("error", [RuntimeError("crash"), KeyboardInterrupt()], ids=["crash", "interrupt"])
@pytest.mark.parametrize("call", range(sum(CALLS)))
def test_stopped_in_the_teacher(tmp_path, unbroken, call, error):
    with pytest.raises(type(error)):
        build(tmp_path, Teacher(call, stopper(error)))
    check_resumes(tmp_path, unbroken, kept=call // 2)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("write", range(9))  # shard, manifest, shard, manifest, ..., manifest marked complete
def test_stopped_at_each_file(tmp_path, unbroken, monkeypatch, write, after):
    replace, writes = os.replace, []

    def stopping(*names):
        writes.append(names)
        if len(writes) == write + 1:
            if after:
                replace(*names)
            raise KeyboardInterrupt
        replace(*names)

    monkeypatch.setattr(os, "replace", stopping)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path)
    monkeypatch.undo()
    if (write, after) == (8, True):
        assert content(tmp_path) == unbroken
        return
    check_resumes(tmp_path, unbroken, kept=min((write + after) // 2, 4))


def test_building_again_asks_the_teacher_for_nothing(tmp_path, unbroken):
    build(tmp_path)
    teacher = Teacher()
    build(tmp_path, teacher)
    assert teacher.calls == 0
    assert content(tmp_path) == unbroken


def test_rebuilding_an_early_shard_forgets_no_later_one(tmp_path, unbroken):
    build(tmp_path)
    for name in ("shard-00000.arrow", "shard-00002.arrow"):
        (tmp_path / name).write_bytes(b"damaged")
    with pytest.raises(RuntimeError):
        build(tmp_path, Teacher(2, stopper(RuntimeError())))  # in the second of the two
    teacher = Teacher()
    build(tmp_path, teacher)
    assert teacher.calls == CALLS[2]
    assert content(tmp_path) == unbroken


@pytest.mark.parametrize("sync", [0, 1, 2, 5, 9, 14])
def test_a_full_disk_is_one_sentence_and_resumable(tmp_path, unbroken, monkeypatch, sync):
    fsync, syncs = os.fsync, []

    def full(handle):
        syncs.append(handle)
        if len(syncs) > sync:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)
    kept = sync // 4  # a shard takes four: its file and folder, the manifest and folder
    with pytest.raises(TargetError) as raised:
        build(tmp_path)
    monkeypatch.undo()
    assert str(raised.value) == (
        f"the disk is full while writing target store '{tmp_path}' ({kept} finished shards are kept): "
        "make room and run the same command again; it continues"
    )
    assert raised.value.exit_code == 2
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(TargetError):
        TargetStore.open(tmp_path)
    build(tmp_path)
    assert content(tmp_path) == unbroken


def test_other_errors_of_the_disk_keep_their_name(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", stopper(OSError(errno.EIO, "input/output error")))
    with pytest.raises(OSError, match="input/output error"):
        build(tmp_path)


KILLED = textwrap.dedent("""
    import os, signal, sys
    from targets.test_resume import Teacher, build

    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    def in_teacher(folder, call):
        build(folder, Teacher(call, die))

    def in_write(folder, sync):
        fsync, seen = os.fsync, []
        def dying(handle):
            seen.append(handle)
            if len(seen) > sync:
                die()
            fsync(handle)
        os.fsync = dying
        build(folder)

    moments = [(in_teacher, 0), (in_teacher, 3), (in_teacher, 6), (in_write, 0), (in_write, 2), (in_write, 13)]
    for number, (where, when) in enumerate(moments):
        child = os.fork()  # one import of torch for all of them
        if child == 0:
            where(os.path.join(sys.argv[1], str(number)), when)
            os._exit(0)
        print(os.waitpid(child, 0)[1])
""")


@pytest.mark.slow
def test_kill_9(tmp_path, unbroken):
    tests = Path(__file__).resolve().parents[1]
    ran = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(tests), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ran.stdout.split() == [str(int(signal.SIGKILL))] * 6
    assert any(file.name.endswith(".tmp") for file in tmp_path.glob("*/.*"))  # the test does catch half-written files
    for number, kept in enumerate([0, 1, 3, 0, 0, 3]):
        check_resumes(tmp_path / str(number), unbroken, kept)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes root")
def test_a_disk_that_is_really_full(tmp_path, unbroken):
    room = 4 * 4096  # some of the files, not all
    mount = ["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this machine does not let us mount")
    try:
        with pytest.raises(TargetError, match=r"the disk is full .* \([1-3] finished shards are kept\)"):
            build(tmp_path)
        assert not list(tmp_path.glob(".*"))
        subprocess.run(["mount", "-o", "remount,size=1m", str(tmp_path)], check=True)
        build(tmp_path)
        assert content(tmp_path) == unbroken
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_the_reference_build_depends_on_its_batches(tmp_path, unbroken):
    """Without this the comparisons above could not fail: other batches do give other bytes."""
    TargetStore.build(tmp_path, Teacher(), DATA, collate, MADE_FROM, shard_examples=3, batch_size=3)
    assert content(tmp_path) != unbroken
    assert np.isfinite(TargetStore.open(tmp_path).all_logits()).all()
