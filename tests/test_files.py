import errno
import hashlib
import os
import stat

import pytest

from setpoint.files import read_json, sha256_file, write_atomic, write_json


def test_writes_text_and_bytes_as_they_are(tmp_path):
    write_atomic(tmp_path / "text", "温度 T²\n")
    write_atomic(str(tmp_path / "bytes"), b"\x00\xff\r\n")
    assert (tmp_path / "text").read_bytes() == "温度 T²\n".encode()
    assert (tmp_path / "bytes").read_bytes() == b"\x00\xff\r\n"


def test_a_file_is_replaced_and_readable_by_others(tmp_path):
    write_atomic(tmp_path / "x", "a long old content")
    write_atomic(tmp_path / "x", "new")
    assert (tmp_path / "x").read_text() == "new"
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o644
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize("step", ["fsync", "chmod", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()], ids=["full", "interrupt"])
def test_a_failure_in_the_middle_leaves_the_old_file(tmp_path, monkeypatch, step, error):
    write_atomic(tmp_path / "x", "old")

    def fail(*_):
        raise error

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(type(error)):
        write_atomic(tmp_path / "x", "new")
    assert (tmp_path / "x").read_text() == "old"
    assert os.listdir(tmp_path) == ["x"]


def test_the_content_is_on_disk_before_the_name(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace

    def traced_fsync(handle):
        done.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else f"content {os.fstat(handle).st_size}")
        fsync(handle)

    def traced_replace(*names):
        done.append("name")
        replace(*names)

    monkeypatch.setattr(os, "fsync", traced_fsync)
    monkeypatch.setattr(os, "replace", traced_replace)
    write_atomic(tmp_path / "x", b"12345")
    assert done == ["content 5", "name", "folder"]


def test_json_keeps_order_and_letters_and_has_null_for_what_is_no_number(tmp_path):
    value = {"z": [1, 2.5, float("nan")], "a": (float("inf"), {"–": -float("inf")}), "t": True, "n": None}
    write_json(tmp_path / "x.json", value)
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert text.startswith('{\n  "z": [\n    1,\n    2.5,\n    null\n')
    assert text.endswith("}\n")
    assert "–" in text
    read = read_json(tmp_path / "x.json")
    assert read == {"z": [1, 2.5, None], "a": [None, {"–": None}], "t": True, "n": None}
    assert list(read) == ["z", "a", "t", "n"]


def test_what_json_cannot_hold_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "x.json", 1)
    with pytest.raises(TypeError):
        write_json(tmp_path / "x.json", {"x": object()})
    assert read_json(tmp_path / "x.json") == 1


@pytest.mark.parametrize("size", [0, 1, 1_000_003])
def test_checksum(tmp_path, size):
    (tmp_path / "x").write_bytes(b"s" * size)
    assert sha256_file(tmp_path / "x") == hashlib.sha256(b"s" * size).hexdigest()
