import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from setpoint.tasks.base import ALL
from setpoint.tasks.ranking_metrics import (
    RANKING_SCORES,
    mean_log_rank,
    rank_and_log_prob,
    ranking_scores,
    ranking_tables,
)

rows = st.integers(2, 30).flatmap(
    lambda n: st.tuples(
        st.lists(st.lists(st.integers(-3, 3), min_size=n, max_size=n), min_size=1, max_size=6), st.integers(0, n - 1)
    )
)  # whole numbers, so that there are ties


def brute_force(logits, label):
    """Every score of one row, by sorting: among equals the right item comes last."""
    order = sorted(range(len(logits)), key=lambda j: (-logits[j], j == label))
    rank = order.index(label) + 1
    gains = [1.0 if j == label else 0.0 for j in order]
    dcg = {k: sum(gain / math.log2(place + 2) for place, gain in enumerate(gains[:k])) for k in (5, 10)}
    found = {f"hr@{k}": float(sum(gains[:k])) for k in (1, 5, 10)} | {f"ndcg@{k}": dcg[k] for k in dcg}
    return found | {"mrr": 1 / rank}, rank, -math.log(sum(math.exp(z - logits[label]) for z in logits))


@given(rows)
def test_against_sorting_every_row(case):
    logits, label = case
    labels = torch.full((len(logits),), label)
    scored = [row[None].numpy() for row in rank_and_log_prob(torch.tensor(logits, dtype=torch.float64), labels)]
    each = [brute_force(row, label) for row in logits]
    scores = ranking_scores(scored)
    assert tuple(scores) == RANKING_SCORES
    for name, score in scores.items():
        assert score(ALL) == pytest.approx(np.mean([one[name] for one, _, _ in each]), abs=1e-12)
    found = ranking_tables(scored)
    assert found["median_rank"] == np.median([rank for _, rank, _ in each])
    assert found["log_loss"] == pytest.approx(-np.mean([log_prob for _, _, log_prob in each]), abs=1e-5)
    assert mean_log_rank(scored) == pytest.approx(np.mean([math.log(rank) for _, rank, _ in each]))


@given(rows, st.floats(0.1, 50))
def test_ranks_know_no_temperature(case, t):
    logits, label = torch.tensor(case[0], dtype=torch.float64), torch.full((len(case[0]),), case[1])
    assert torch.equal(rank_and_log_prob(logits, label)[:, 0], rank_and_log_prob(logits / t, label)[:, 0])


def test_a_model_that_tells_nothing_apart_earns_nothing():
    scored = [row[None].numpy() for row in rank_and_log_prob(torch.zeros(3, 11), torch.tensor([0, 5, 10]))]
    found = {name: score(ALL) for name, score in ranking_scores(scored).items()}
    assert found == {"ndcg@10": 0, "ndcg@5": 0, "hr@1": 0, "hr@5": 0, "hr@10": 0, "mrr": pytest.approx(1 / 11)}


@pytest.mark.parametrize("where", [0, 1])
def test_a_logit_that_is_no_number_is_no_hit(where):
    logits = torch.tensor([[3.0, 1.0, 2.0]])
    logits[0, where] = math.nan
    assert rank_and_log_prob(logits, torch.tensor([0]))[0, 0] == (3 if where == 0 else 2)


def test_masked_items_come_last():
    assert rank_and_log_prob(torch.tensor([[0.0, -math.inf, 1.0]]), torch.tensor([0]))[0, 0] == 2


def test_scores_of_some_examples():
    scored = [np.array([[rank, 0.0]]) for rank in (1.0, 2.0, 20.0)]
    score = ranking_scores(scored)["hr@1"]
    assert (score(slice(0, 2)), score(np.array([1, 2, 2])), score(np.array([0, 0]))) == (0.5, 0.0, 1.0)


def test_padding_is_ranked_without_harm():
    found = rank_and_log_prob(torch.zeros(1, 3, 4), torch.tensor([[-100, -100, 2]]))
    assert found.shape == (1, 3, 2)
    assert found.isfinite().all()
