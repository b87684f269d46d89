"""Which version is served, and how the next takes its place."""

import shutil

import pytest

from setpoint.errors import ModelError
from setpoint.shipping.versions import Served, promoted


@pytest.fixture
def versions(ner_onnx, ner_int8, tmp_path):
    folder = tmp_path / "versions"
    shutil.copytree(ner_onnx, folder / "v1")
    shutil.copytree(ner_int8, folder / "v2")
    (folder / "current").write_text("v1\n")
    return folder


def test_a_folder_is_itself_or_its_current_version(ner_onnx, versions):
    assert promoted(ner_onnx) == ner_onnx
    assert promoted(versions) == versions / "v1"
    (versions / "current").unlink()
    with pytest.raises(ModelError, match="has neither setpoint.json nor current: give a folder that setpoint export"):
        promoted(versions)
    (versions / "current").symlink_to("v2")
    assert promoted(versions) == versions / "v2"


@pytest.mark.parametrize(
    "name", ["../v1", "/etc", "..", ".", "", "v1/../../x", "v1/", "a\\b", "x\ny", "current", "é", "x" * 200, "\x00"]
)
def test_a_version_cannot_lie_elsewhere(name, versions):
    (versions / "current").write_text(name)
    with pytest.raises(ModelError, match="current' names .*: let it name a folder beside it"):
        promoted(versions)


@pytest.mark.parametrize("target", ["../outside", "/tmp", "v1/../../outside"])
def test_nor_by_a_link(target, versions):
    (versions / "current").unlink()
    (versions / "current").symlink_to(target)
    with pytest.raises(ModelError, match="let it name a folder beside it"):
        promoted(versions)


def test_nor_by_a_version_that_is_a_link(versions):
    (versions / "v3").symlink_to("/tmp")
    (versions / "current").write_text("v3")
    with pytest.raises(ModelError, match="let it name a folder beside it"):
        promoted(versions)


def test_a_promoted_version_is_taken(versions):
    served = Served(versions)
    assert (served.version, served.shipped.manifest.dtype) == ("v1", "float32")
    assert not served.refresh()
    (versions / "current").write_text("v2")
    assert served.refresh()
    assert not served.refresh()
    assert (served.version, served.shipped.manifest.dtype) == ("v2", "int8")
    assert [version for version, _ in served.answer([["anna"], ["bob"]])] == ["v2", "v2"]


def test_a_version_that_cannot_be_taken_leaves_the_one_that_answers(versions, text_onnx, caplog):
    served = Served(versions)
    (versions / "v2/model.onnx").write_bytes(b"cut off")
    shutil.copytree(text_onnx, versions / "v3")
    for name, told in (
        ("v2", "bytes of"), ("v3", "has task text-classification where the served model has token-classification"),
        ("../x", "let it name a folder beside it"), ("v9", "has no setpoint.json"),
    ):  # fmt: skip
        (versions / "current").write_text(name)
        caplog.clear()
        assert [served.refresh() for _ in range(3)] == [False] * 3
        (record,) = caplog.records  # looked at three times, told once
        assert told in record.getMessage()
        assert record.getMessage().endswith("; version v1 stays")
    assert served.failures == 4
    assert served.version == "v1"
    assert served.answer([["anna"]])[0][0] == "v1"


def test_an_exported_folder_is_not_watched(ner_onnx):
    assert not Served(ner_onnx).refresh()
