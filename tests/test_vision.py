import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from transformers import AutoConfig, AutoModelForImageClassification

from setpoint.vision import (
    SmallConvNetConfig,
    SmallConvNetForImageClassification,
    SmallResNetConfig,
    SmallResNetForImageClassification,
)


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


# ---------------------------------------------------------------------------------------------------- residual


def residual(seed=0, **fields):
    torch.manual_seed(seed)
    config = {"depth": 2, "widths": (4, 6, 11), "num_channels": 2, "num_labels": 3} | fields
    return SmallResNetForImageClassification(SmallResNetConfig(**config))


def trained(model, side):
    """The model in float64 with batch norm statistics and weights that are no longer 0 and 1."""
    model = model.double().train()
    for _ in range(3):
        model(pixel_values=torch.randn(8, model.config.num_channels, side, side).double() + 0.5)
    for name, value in model.named_parameters():
        if ".bn" in name or name.startswith("bn"):
            value.data += 0.3 * torch.randn_like(value)
    return model.eval()


def convolved(image, weight, stride):
    """A convolution 3x3 of ``[channels, H, W]`` with one pixel of 0 around, in NumPy."""
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(image, ((0, 0), (1, 1), (1, 1))), (3, 3), axis=(1, 2))
    return np.einsum("ihwkl,oikl->ohw", windows, weight)[:, ::stride, ::stride]


def normed(image, weights, name):
    mean, var, scale, shift = (weights[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
    return ((image - mean[:, None, None]) / np.sqrt(var + 1e-5)[:, None, None]) * scale[:, None, None] + shift[
        :, None, None
    ]


def residual_by_hand(image, weights, depth, widths):
    """Section 4.2 and option A of section 3.3, a stage at a time; what each stage gives, and the logits."""
    hidden = np.maximum(normed(convolved(image, weights["conv1.weight"], 1), weights, "bn1"), 0)
    stages = []
    for stage, width in enumerate(widths, start=1):
        for block in range(depth):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            inner = np.maximum(
                normed(convolved(hidden, weights[f"{name}.conv1.weight"], stride), weights, f"{name}.bn1"), 0
            )
            inner = normed(convolved(inner, weights[f"{name}.conv2.weight"], 1), weights, f"{name}.bn2")
            short = np.zeros_like(inner)
            front = (width - len(hidden)) // 2
            for channel in range(len(hidden)):
                short[front + channel] = hidden[channel, ::stride, ::stride]
            hidden = np.maximum(inner + short, 0)
        stages.append(hidden)
    return stages, weights["linear.weight"] @ hidden.mean((1, 2)) + weights["linear.bias"]


@pytest.mark.parametrize("side", [8, 7])
def test_the_residual_network_is_that_of_the_paper(side):
    model = trained(residual(), side)
    image = np.random.default_rng(0).normal(size=(2, side, side))
    weights = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    stages, logits = residual_by_hand(image, weights, 2, (4, 6, 11))
    output = model(pixel_values=torch.from_numpy(image)[None], output_hidden_states=True)
    np.testing.assert_allclose(output.logits[0].detach(), logits, rtol=1e-9)
    assert len(output.hidden_states) == 3
    for got, expected in zip(output.hidden_states, stages, strict=True):
        np.testing.assert_allclose(got[0].detach(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("depth", "layers", "weights"), [(3, 20, 0.27e6), (9, 56, 0.85e6)])
def test_it_has_the_layers_and_weights_of_the_papers_table(depth, layers, weights):
    model = residual(depth=depth, widths=(16, 32, 64), num_channels=3, num_labels=10)
    assert sum(value.ndim > 1 for value in model.parameters()) == layers == 6 * depth + 2
    assert sum(value.numel() for value in model.parameters()) == pytest.approx(weights, rel=0.02)


def test_new_weights_are_of_the_variance_of_he():
    model = residual(depth=1, widths=(64, 64, 128), num_channels=64)
    for name in ("conv1", "layer2.0.conv2", "layer3.0.conv2"):
        weight = model.get_submodule(name).weight
        assert float(weight.detach().var()) == pytest.approx(2 / (weight.shape[0] * 9), rel=0.05)
        assert abs(float(weight.detach().mean())) < 0.01
    assert torch.equal(model.linear.bias, torch.zeros(3))


@pytest.mark.parametrize("network", [network, residual])
def test_what_its_stages_give_is_there_where_it_is_wanted(network, tmp_path):
    model = network().eval()
    images = torch.randn(2, model.config.num_channels, 8, 8)
    plain, full = model(pixel_values=images), model(pixel_values=images, output_hidden_states=True)
    assert plain.hidden_states is None
    sides = [(8, 8), (4, 4), (2, 2)][: len(model.config.widths)]
    expected = [(2, width, *side) for width, side in zip(model.config.widths, sides, strict=True)]
    assert [tuple(stage.shape) for stage in full.hidden_states] == expected
    assert torch.equal(plain.logits, full.logits)
    model.config.output_hidden_states = True
    assert len(model(pixel_values=images).hidden_states) == len(sides)
    assert model(pixel_values=images, output_hidden_states=False).hidden_states is None


def test_the_auto_classes_know_the_residual_network(tmp_path):
    model = trained(residual(), 8).float()
    model.save_pretrained(tmp_path)
    again = AutoModelForImageClassification.from_pretrained(tmp_path)
    assert isinstance(again, SmallResNetForImageClassification)
    images = torch.randn(2, 2, 8, 8)
    assert torch.equal(again.eval()(pixel_values=images).logits, model.eval()(pixel_values=images).logits)
    made = AutoModelForImageClassification.from_config(AutoConfig.for_model("setpoint-resnet", depth=1))
    assert [*dict(made.named_children())] == ["conv1", "bn1", "layer1", "layer2", "layer3", "linear"]


@pytest.mark.parametrize("fields", [{"depth": 0}, {"widths": []}, {"widths": [8, 4]}])
def test_what_is_no_residual_network_is_refused(fields):
    with pytest.raises(ValueError, match="are no residual network"):
        SmallResNetConfig(**fields)


def cifar():
    """The functions of ``benchmarks/cifar_teacher.py``."""
    path = Path(__file__).parents[1] / "benchmarks/cifar_teacher.py"
    spec = importlib.util.spec_from_file_location("cifar_teacher", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.shared
@pytest.mark.parametrize("name", ["resnet20", "resnet56"])
def test_published_weights_give_the_logits_that_were_computed_from_them(shared, name):
    """By another program, kept as float16; the whole test file is in the benchmark's output."""
    script = cifar()
    pixels, labels = script.images("test", 0, 200)
    with np.load(shared / "cifar10/teacher_logits_resnet.npz", allow_pickle=False) as file:
        expected = file[f"{name}_test"][:200].astype(np.float32)
    got = script.logits(script.teacher(name), pixels)
    np.testing.assert_allclose(got, expected, atol=1e-2, rtol=0)
    assert (got.argmax(-1) == labels).mean() > 0.75
