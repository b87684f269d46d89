"""The project's own small networks for sound: padding says nothing, in no mode."""

import pytest
import torch
from transformers import AutoModelForAudioClassification, AutoModelForCTC

from setpoint.audio import (
    AudioCTCConfig,
    AudioCTCForCTC,
    AudioNetConfig,
    AudioNetForAudioClassification,
    name_vocabulary,
)

LENGTHS = (1, 7, 12, 5)


def batch(bands=10, padding=0.0, longest=12):
    """Spectrograms of several lengths, padded with what is given, and their mask."""
    generator = torch.Generator().manual_seed(0)
    each = [torch.randn(n, bands, generator=generator) for n in LENGTHS]
    values = torch.full((len(each), longest, bands), padding)
    for row, value in zip(values, each, strict=True):
        row[: len(value)] = value
    return each, values, (torch.arange(longest) < torch.tensor(LENGTHS)[:, None]).long()


def net(seed=0, **config):
    torch.manual_seed(seed)
    model = AudioNetForAudioClassification(AudioNetConfig(num_mel_bins=10, widths=(4, 6), num_labels=3, **config))
    for norm in model.norms:  # statistics and weights that do something
        torch.nn.init.uniform_(norm.bias)
        torch.nn.init.uniform_(norm.running_mean)
    return model


def ctc(seed=0, **config):
    torch.manual_seed(seed)
    return AudioCTCForCTC(AudioCTCConfig(num_mel_bins=10, channels=3, hidden_size=8, num_labels=5, **config)).eval()


@pytest.mark.parametrize(("padding", "longest"), [(0.0, 12), (7.0, 12), (7.0, 29)])
def test_a_recording_has_the_logits_it_has_alone(padding, longest):
    model = net().eval()
    each, values, mask = batch(padding=padding, longest=longest)
    together = model(values, mask).logits
    alone = torch.cat([model(one[None]).logits for one in each])
    torch.testing.assert_close(together, alone)
    assert not torch.allclose(together[0], together[1], atol=1e-2)


def test_padding_counts_in_no_statistic_of_a_training_step():
    def step(padding, longest):
        model, (_, values, mask) = net().train(), batch(padding=padding, longest=longest)
        model(values, mask).logits.square().sum().backward()
        return model

    one, other = step(0.0, 12), step(5.0, 40)
    for name, buffer in one.named_buffers():
        torch.testing.assert_close(buffer, other.get_buffer(name), msg=name)
    for name, weight in one.named_parameters():
        torch.testing.assert_close(weight.grad, other.get_parameter(name).grad, msg=name)


def test_the_statistics_are_those_of_the_frames_that_are_there():
    model, (each, values, mask) = net(), batch()
    model.train().norms[0].momentum = 1.0  # the statistics of this very step
    model(values, mask)
    frames = torch.cat([model.convolutions[0](one[None, None])[0].movedim(1, 0) for one in each])  # [frames, C, F]
    mean = frames.mean((0, 2))
    torch.testing.assert_close(model.norms[0].running_mean, mean.detach())


@pytest.mark.parametrize("subsampling", [1, 2, 4])
@pytest.mark.parametrize(("padding", "longest"), [(0.0, 12), (7.0, 12), (7.0, 31)])
def test_a_recording_has_the_frames_it_has_alone(subsampling, padding, longest):
    model = ctc(subsampling=subsampling)
    each, values, mask = batch(padding=padding, longest=longest)
    together = model(values, mask).logits
    assert together.shape == (len(each), -(-longest // subsampling), 5)
    for one, logits in zip(each, together, strict=True):
        alone = model(one[None]).logits[0]
        assert len(alone) == -(-len(one) // subsampling)
        torch.testing.assert_close(logits[: len(alone)], alone)


@pytest.mark.parametrize(("make", "auto"), [(net, AutoModelForAudioClassification), (ctc, AutoModelForCTC)])
def test_a_saved_network_says_the_same_again(make, auto, tmp_path):
    model = make().eval()
    model.save_pretrained(tmp_path)
    _, values, mask = batch()
    torch.testing.assert_close(auto.from_pretrained(tmp_path).eval()(values, mask).logits, model(values, mask).logits)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [({"subsampling": 3}, "subsampling is 3: give 1, 2, 4"), ({"kernel_size": 4}, "kernel_size is 4: give an odd")],
)
def test_shapes_that_do_not_fit_are_refused(config, sentence):
    with pytest.raises(ValueError, match=sentence):
        AudioCTCConfig(**config)


def test_a_vocabulary_is_named_by_the_file_beside_a_model(tmp_path):
    (tmp_path / "vocab.json").write_text('{"<pad>": 0, "|": 1, "a": 3}')
    config = AudioNetConfig(num_labels=2, vocab_size=4)  # of a head of CTC, whose labels nobody has named
    name_vocabulary(config, str(tmp_path))
    assert config.id2label == {0: "<pad>", 1: "|", 2: "LABEL_2", 3: "a"}
    named = AudioNetConfig(id2label={0: "x", 1: "y"}, label2id={"x": 0, "y": 1}, vocab_size=2)
    name_vocabulary(named, str(tmp_path))
    assert named.id2label == {0: "x", 1: "y"}
