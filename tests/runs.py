"""Folders of finished runs, written without any training."""

import json


def record(scores, parameters=1000, metric="f1", support=40, **more):
    seeds = dict(scores)
    mean = sum(seeds.values()) / len(seeds)
    table = {"O": {"precision": mean, "recall": mean, "f1": mean, "support": support}}
    return {
        "metrics": {metric: mean, "tokens": table}, "parameters": parameters, "bytes": 4 * parameters,
        "latency_ms": 1.5, "agreement": {"top1": 0.97, "kl": 0.05},
        "seeds": {seed: {"metrics": {metric: score}} for seed, score in seeds.items()},
    } | more  # fmt: skip


def finished_run(folder, scores, *, parameters=1000, task="token-classification", metric="f1", test="digest",
                 recipe=None, support=40, labels=("O", "B-PER"), **changes):  # fmt: skip
    """A folder with what ``compare`` and ``model_card`` read of a run; gives the metrics it holds."""
    (folder / "stages").mkdir(parents=True)
    metrics = {
        "name": folder.name, "task": task, "metric": metric, "temperature": "T = 4",
        "teacher": record({"0": 0.9}, 56_000, metric, support),
        "student": record(scores, parameters, metric, support), "gain": None,
    } | changes  # fmt: skip
    metrics["teacher"].pop("seeds")
    recipe = {
        "name": folder.name, "task": task, "seeds": [int(seed) for seed in scores],
        "teacher": {"model": {"kind": "pretrained", "model": "some/where/bert-base"}, "others": []},
        "temperature": {"policy": "constant", "temperature": 4.0},
    } | (recipe or {})  # fmt: skip
    made_from = {"test": test, "data": {"labels": labels}}
    mark = {"made_from": made_from, "seconds": 1.0, "result": {}}
    for name, content in (("metrics", metrics), ("recipe", recipe), ("stages/evaluation", mark)):
        (folder / f"{name}.json").write_text(json.dumps(content))
    return metrics
