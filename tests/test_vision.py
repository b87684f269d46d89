import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from transformers import AutoConfig, AutoModelForImageClassification

from setpoint.vision import SmallConvNetConfig, SmallConvNetForImageClassification


def network(seed=0, **fields):
    torch.manual_seed(seed)
    return SmallConvNetForImageClassification(SmallConvNetConfig(**{"widths": (4, 8), "num_labels": 3} | fields))


def test_the_auto_classes_know_it(tmp_path):
    config = AutoConfig.for_model("setpoint-convnet", widths=[4], num_labels=5)
    model = AutoModelForImageClassification.from_config(config)
    assert isinstance(model, SmallConvNetForImageClassification)
    model.save_pretrained(tmp_path)
    assert isinstance(AutoModelForImageClassification.from_pretrained(tmp_path), SmallConvNetForImageClassification)


def test_a_saved_network_is_the_same_batch_norm_statistics_included(tmp_path):
    model = network(num_channels=2, dropout=0.25)
    images = torch.randn(6, 2, 8, 8)
    model.train()(pixel_values=images)  # moves the statistics away from where they start
    model.save_pretrained(tmp_path)
    assert [f.name for f in tmp_path.glob("*.safetensors")] == ["model.safetensors"]
    again = SmallConvNetForImageClassification.from_pretrained(tmp_path)
    assert again.config.widths == [4, 8]
    assert again.dropout.p == 0.25
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    assert torch.equal(again.eval()(pixel_values=images).logits, model.eval()(pixel_values=images).logits)


def test_it_computes_what_its_description_says():
    """Against NumPy: convolution 3x3, batch norm in eval mode, ReLU, pooling between stages, mean, linear."""
    model = network(num_channels=2).double().eval()
    model.train()(pixel_values=torch.randn(8, 2, 6, 6).double())
    model.eval()
    image = np.random.default_rng(0).normal(size=(2, 6, 6))
    hidden = image
    for index, (conv, norm, _) in enumerate(model.stages):
        if index:
            c, h, w = hidden.shape
            hidden = hidden[:, : h // 2 * 2, : w // 2 * 2].reshape(c, h // 2, 2, w // 2, 2).max((2, 4))
        padded = np.pad(hidden, ((0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
        hidden = np.einsum("ihwkl,oikl->ohw", windows, conv.weight.detach().numpy())
        mean, var = norm.running_mean.numpy(), norm.running_var.numpy()
        scale, shift = norm.weight.detach().numpy(), norm.bias.detach().numpy()
        hidden = (hidden - mean[:, None, None]) / np.sqrt(var + norm.eps)[:, None, None]
        hidden = np.maximum(hidden * scale[:, None, None] + shift[:, None, None], 0)
    expected = model.classifier.weight.detach().numpy() @ hidden.mean((1, 2)) + model.classifier.bias.detach().numpy()
    logits = model(pixel_values=torch.from_numpy(image)[None]).logits[0].detach().numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-10)


@pytest.mark.parametrize("side", [1, 2, 3, 9])
def test_images_too_small_to_pool_are_not_pooled(side):
    model = network(widths=(4, 4, 4, 4, 4))
    assert model(pixel_values=torch.randn(2, 1, side, side)).logits.shape == (2, 3)


def test_the_loss_is_the_cross_entropy_and_there_is_none_without_labels():
    model = network().eval()
    images, labels = torch.randn(4, 1, 8, 8), torch.tensor([0, 2, 1, 1])
    output = model(pixel_values=images, labels=labels)
    by_hand = -output.logits.log_softmax(-1)[torch.arange(4), labels].mean()
    assert torch.allclose(output.loss, by_hand)
    assert model(pixel_values=images).loss is None


def test_the_same_seed_gives_the_same_weights():
    first, second, other = network(0).state_dict(), network(0).state_dict(), network(1).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["classifier.weight"], other["classifier.weight"])


def test_it_learns_digits():
    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    labels = torch.tensor(labels)
    model = network(widths=(16, 32), num_labels=10)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    for epoch in range(8):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - epoch / 8)  # falling, so that the last steps do not decide
        for batch in order[:1400].split(64):
            optimizer.zero_grad()
            model(pixel_values=images[batch], labels=labels[batch]).loss.backward()
            optimizer.step()
    held_out = order[1400:]
    predicted = model.eval()(pixel_values=images[held_out]).logits.argmax(-1)
    assert (predicted == labels[held_out]).float().mean() > 0.95
