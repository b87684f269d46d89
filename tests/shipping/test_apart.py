"""A model in a process of its own: the same answers, whatever happens to the process."""

import os
import shutil
import signal

import pytest

from setpoint.errors import ModelError
from setpoint.shipping.apart import Apart
from setpoint.shipping.shipped import Shipped
from setpoint.shipping.versions import Served

pytestmark = pytest.mark.slow
SENTENCES = [["anna", "lives", "in", "rome"], ["bob"], "paris lives"]


def test_it_answers_as_here_and_outlives_its_process(ner_onnx, tmp_path):
    here, apart = Shipped.open(ner_onnx, threads=1), Apart.open(ner_onnx, threads=1)
    expected = here.predict(SENTENCES)
    assert apart.predict(SENTENCES) == expected
    with pytest.raises(RuntimeError, match="TypeError"):  # of the answering, there
        apart.answer([3], 1)
    assert apart.predict(SENTENCES) == expected
    first = apart._process
    os.kill(first.pid, signal.SIGTERM)  # as a service manager sends it to all processes of a service
    assert apart.predict(SENTENCES) == expected
    assert apart._process is first
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    assert apart.predict(SENTENCES) == expected
    assert apart._process is not first
    last = apart._process
    apart.close()
    assert last.exitcode == 0
    broken = tmp_path / "broken"
    shutil.copytree(ner_onnx, broken)
    (broken / "model.onnx").write_bytes(b"x")
    with pytest.raises(ModelError, match="broken/model.onnx' "):
        Apart.open(broken)


def test_a_promoted_version_has_a_process_and_the_old_one_goes(ner_onnx, ner_int8, tmp_path):
    shutil.copytree(ner_onnx, tmp_path / "v1")
    shutil.copytree(ner_int8, tmp_path / "v2")
    (tmp_path / "current").write_text("v1")
    served = Served(tmp_path, threads=1, apart=True)
    old = served.shipped._process
    assert served.answer([["bob"]])[0][0] == "v1"
    (tmp_path / "current").write_text("v2")
    assert served.refresh()
    assert served.answer([["bob"]]) == [("v2", Shipped.open(tmp_path / "v2", threads=1).predict([["bob"]])[0])]
    assert old.exitcode == 0
    served.close()
    assert served.shipped._process.exitcode == 0
