from setpoint.insight.terminal import print_run

TABLE = {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 4}
RECORD = {"metrics": {"f1": 0.5, "tokens": {"[red]": TABLE}}, "parameters": 10, "bytes": 40, "latency_ms": 1.0}
RUN = {
    "name": "tiny", "metric": "f1", "temperature": "T = 2", "teacher": RECORD, "student": RECORD, "gain": None,
}  # fmt: skip


def said(capsys, tmp_path, **changes):
    print_run(RUN | changes, tmp_path)
    return " ".join(capsys.readouterr().out.split())


def test_a_run_says_what_its_search_found_and_how(capsys, tmp_path):
    sentences, how = ["T = 2 is best.", "It is flat [bold]."], "6 students learned from the same batches: one by one."
    words = said(capsys, tmp_path, tuning={"sentences": sentences, "how": how})
    assert f"T = 2 is best. It is flat [bold]. {how} Report:" in words
    assert "flat [bold]. Report:" in said(capsys, tmp_path, tuning={"sentences": sentences, "how": None})
    assert "flat [bold]. Report:" in said(capsys, tmp_path, tuning={"sentences": sentences})  # of an older run
    assert "compare with. Report:" in said(capsys, tmp_path)


def test_a_class_name_is_no_markup(capsys, tmp_path):
    assert "[red]" in said(capsys, tmp_path)
