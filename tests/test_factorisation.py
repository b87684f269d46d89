import itertools

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from setpoint.errors import ModelError
from setpoint.factorisation import FactorisationConfig, FactorisationForClassification


def model(**fields):
    torch.manual_seed(0)
    made = FactorisationForClassification(
        FactorisationConfig(**{"fields": 3, "buckets": 7, "width": 4, "hidden": (6, 5), "num_labels": 3} | fields)
    )
    for weight in made.parameters():
        torch.nn.init.normal_(weight)
    return made.double().eval()


FEATURES = torch.tensor([[0, 6, 3], [5, 5, 5]])


@pytest.mark.parametrize("hidden", [(), (6, 5)])
def test_against_the_sum_over_pairs(hidden):
    """Rendle's definition, field by field, on weights of these numbers."""
    made = model(hidden=hidden)
    weights = made.state_dict()
    for row, found in zip(FEATURES.tolist(), made(features=FEATURES).logits, strict=True):
        places = [7 * field + number for field, number in enumerate(row)]
        vectors = [weights["embedding.weight"][place] for place in places]
        parts = [sum(a * b for a, b in itertools.combinations(vectors, 2))]
        if hidden:
            deep = torch.cat(vectors)
            for layer in ("0", "3"):
                deep = (weights[f"network.{layer}.weight"] @ deep + weights[f"network.{layer}.bias"]).clamp(min=0)
            parts.append(deep)
        wanted = weights["classifier.weight"] @ torch.cat(parts) + weights["classifier.bias"]
        wanted = wanted + sum(weights["bias.weight"][place] for place in places)
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_each_field_has_embeddings_of_its_own():
    made = model()
    made(features=torch.tensor([[2, 4, 4]])).logits.sum().backward()
    touched = made.embedding.weight.grad.abs().sum(-1).nonzero().flatten().tolist()
    assert touched == [2, 7 + 4, 14 + 4]


def test_fewer_buckets_than_the_data_have_share_them():
    made = model()
    torch.testing.assert_close(made(features=FEATURES + 7 * 100).logits, made(features=FEATURES).logits)


def test_another_number_of_features_is_refused():
    with pytest.raises(ModelError, match="the model has 3 fields where examples have 2 features: set fields to 2"):
        model()(features=FEATURES[:, :2])


def test_it_is_saved_and_loaded(tmp_path):
    made = model()
    made.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path).double().eval()
    torch.testing.assert_close(again(features=FEATURES).logits, made(features=FEATURES).logits, rtol=1e-5, atol=1e-5)


def test_it_begins_near_nothing():
    """No rating is likelier than another before anything is learnt."""
    torch.manual_seed(0)
    fresh = FactorisationForClassification(FactorisationConfig(buckets=50, num_labels=5)).eval()
    logits = fresh(features=torch.randint(0, 50, (20, 2))).logits
    assert logits.abs().max() < 0.5
    assert (fresh.bias.weight == 0).all()
