"""Small networks for sound as transformers models: one label for a recording, and CTC's for each of its frames.

Both read log-mel spectrograms ``[B, T, F]`` and the mask ``[B, T]`` of what is no padding, and what stands in the
padding, or how long it is, changes nothing of what they say.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForAudioClassification, AutoModelForCTC, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput, SequenceClassifierOutput
from transformers.utils import cached_file

from setpoint.files import read_json


class AudioNetConfig(PreTrainedConfig):
    """Configuration of ``AudioNetForAudioClassification``.

    Args:
        num_mel_bins: of the spectrograms.
        widths: channels of each stage; each halves time and frequency.
        dropout: before the head.
    """

    model_type = "setpoint-audionet"

    def __init__(
        self, num_mel_bins: int = 40, widths: tuple[int, ...] = (32, 64, 128), dropout: float = 0.0, **kwargs: object
    ) -> None:
        self.num_mel_bins = num_mel_bins
        self.widths = list(widths)
        self.dropout = dropout
        super().__init__(**kwargs)


class AudioNetForAudioClassification(PreTrainedModel):
    """Stages of convolution 3x3 by steps of 2, batch norm and ReLU; the mean over time; a linear head.

    Examples:
        >>> model = AudioNetForAudioClassification(AudioNetConfig(num_mel_bins=8, widths=(4, 8), num_labels=10)).eval()
        >>> model(input_values=torch.zeros(2, 7, 8), attention_mask=torch.ones(2, 7)).logits.shape
        torch.Size([2, 10])
    """

    config_class = AudioNetConfig
    main_input_name = "input_values"

    def __init__(self, config: AudioNetConfig) -> None:
        super().__init__(config)
        before = [1, *config.widths]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=2, padding=1, bias=False) for a, b in zip(before, config.widths, strict=False)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for width in config.widths)
        bands = config.num_mel_bins
        for _ in config.widths:
            bands = -(-bands // 2)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(bands * config.widths[-1], config.num_labels)
        self.post_init()

    def forward(
        self, input_values: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None
    ) -> SequenceClassifierOutput:
        """Logits ``[B, C]`` of spectrograms ``[B, T, F]``; the cross-entropy too where labels are given."""
        mask = input_values.new_ones(input_values.shape[:2]) if attention_mask is None else attention_mask
        mask = mask.to(input_values.dtype)
        hidden = (input_values * mask[..., None]).unsqueeze(1)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            mask = mask[:, ::2]
            hidden = nn.functional.relu(_normalised(norm, convolution(hidden), mask)) * mask[:, None, :, None]
        pooled = hidden.sum(2) / mask.sum(1).clamp(min=1)[:, None, None]
        logits = self.classifier(self.dropout(pooled.flatten(1)))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        _start(module) or super()._init_weights(module)


def _normalised(norm: nn.Module, hidden: Tensor, mask: Tensor) -> Tensor:
    """Batch norm of ``[B, C, T, F]``; in training padding counts in no statistic."""
    if not norm.training:
        return norm(hidden.flatten(2)).reshape(hidden.shape)
    there, by_time = mask.bool(), hidden.movedim(2, 1)
    result = torch.zeros_like(by_time)
    result[there] = norm(by_time[there]).to(result.dtype)
    return result.movedim(1, 2)


class AudioCTCConfig(PreTrainedConfig):
    """Configuration of ``AudioCTCForCTC``.

    Args:
        num_mel_bins: of the spectrograms.
        subsampling: columns of the spectrogram in a frame: 1, 2, 4 and so on.
        channels: of the first convolutions, over time and frequency.
        hidden_size: channels of the blocks.
        num_hidden_layers: how many blocks there are.
        kernel_size: frames that a block's convolution sees.
        dropout: in each block and before the head.
    """

    model_type = "setpoint-audioctc"

    def __init__(
        self,
        num_mel_bins: int = 40,
        subsampling: int = 2,
        channels: int = 16,
        hidden_size: int = 64,
        num_hidden_layers: int = 4,
        kernel_size: int = 9,
        dropout: float = 0.0,
        **kwargs: object,
    ) -> None:
        if subsampling < 1 or subsampling & (subsampling - 1):
            raise ValueError(f"subsampling is {subsampling}: give 1, 2, 4 or another power of two")
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is {kernel_size}: give an odd number")
        self.num_mel_bins = num_mel_bins
        self.subsampling = subsampling
        self.channels = channels
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.kernel_size = kernel_size
        self.dropout = dropout
        super().__init__(**kwargs)


class _Block(nn.Module):
    """A residual block over frames ``[B, T, H]``: depthwise convolution over time, then two linear layers."""

    def __init__(self, config: AudioCTCConfig) -> None:
        super().__init__()
        width, kernel = config.hidden_size, config.kernel_size
        self.over_time = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        seen = self.over_time((hidden * mask).transpose(1, 2)).transpose(1, 2)
        return hidden + self.dropout(self.down(nn.functional.gelu(self.up(self.norm(seen)))))


class AudioCTCForCTC(PreTrainedModel):
    """Convolutions 3x3 that thin out time and frequency, residual blocks over time, and a linear head on each frame.

    T columns of a spectrogram have ``ceil(T / subsampling)`` frames.

    Examples:
        >>> model = AudioCTCForCTC(AudioCTCConfig(num_mel_bins=8, hidden_size=16, num_labels=5)).eval()
        >>> model(input_values=torch.zeros(2, 7, 8), attention_mask=torch.ones(2, 7)).logits.shape
        torch.Size([2, 4, 5])
    """

    config_class = AudioCTCConfig
    main_input_name = "input_values"

    def __init__(self, config: AudioCTCConfig) -> None:
        super().__init__(config)
        strides = [2] * (config.subsampling.bit_length() - 1) or [1]
        before, bands = [1, *[config.channels] * len(strides)], config.num_mel_bins
        self.convolutions = nn.ModuleList(
            nn.Conv2d(c, config.channels, 3, stride=(stride, 2), padding=1)
            for c, stride in zip(before, strides, strict=False)
        )
        for _ in strides:
            bands = -(-bands // 2)
        self.projection = nn.Linear(bands * config.channels, config.hidden_size)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(self, input_values: Tensor, attention_mask: Tensor | None = None) -> CausalLMOutput:
        """Logits ``[B, frames, C]`` of spectrograms ``[B, T, F]``."""
        mask = input_values.new_ones(input_values.shape[:2]) if attention_mask is None else attention_mask
        mask = mask.to(input_values.dtype)
        hidden = (input_values * mask[..., None]).unsqueeze(1)
        for convolution in self.convolutions:
            mask = mask[:, :: convolution.stride[0]]  # type: ignore[index]
            hidden = nn.functional.relu(convolution(hidden)) * mask[:, None, :, None]
        frames = self.projection(hidden.transpose(1, 2).flatten(2))
        for block in self.blocks:
            frames = block(frames, mask[..., None])
        return CausalLMOutput(logits=self.classifier(self.dropout(self.norm(frames))))

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        _start(module) or super()._init_weights(module)


def name_vocabulary(config: PreTrainedConfig, location: str) -> None:
    """Name the classes of a CTC head as the tokenizer beside it does, where its configuration has no names for them.

    The head has ``vocab_size`` outputs, however many labels the configuration of a model of transformers tells of.
    """
    size = getattr(config, "vocab_size", None) or config.num_labels
    if len(config.id2label) == size and config.id2label != {i: f"LABEL_{i}" for i in range(size)}:
        return
    file = cached_file(location, "vocab.json", _raise_exceptions_for_missing_entries=False)
    there = {} if file is None else {number: str(name) for name, number in read_json(Path(file)).items()}
    names = {number: there.get(number, f"LABEL_{number}") for number in range(size)}
    config.update({"id2label": names, "label2id": {name: number for number, name in names.items()}})


def _start(module: nn.Module) -> bool:
    """New weights of convolutions and linear layers; whether it was one."""
    if isinstance(module, nn.Conv2d | nn.Conv1d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
    else:
        return False
    if module.bias is not None:
        nn.init.zeros_(module.bias)
    return True


AutoConfig.register(AudioNetConfig.model_type, AudioNetConfig)
AutoModelForAudioClassification.register(AudioNetConfig, AudioNetForAudioClassification)
AutoConfig.register(AudioCTCConfig.model_type, AudioCTCConfig)
AutoModelForCTC.register(AudioCTCConfig, AudioCTCForCTC)
