"""A small convolutional network as a transformers model, for images that need no large one."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageClassification, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput


class SmallConvNetConfig(PreTrainedConfig):
    """Configuration of ``SmallConvNetForImageClassification``.

    Args:
        num_channels: of the images.
        widths: channels of each stage; stages are separated by 2x2 max-pooling, while a side has two pixels left.
        dropout: before the head.
    """

    model_type = "setpoint-convnet"

    def __init__(
        self, num_channels: int = 1, widths: tuple[int, ...] = (32, 64, 128), dropout: float = 0.0, **kwargs: object
    ) -> None:
        self.num_channels = num_channels
        self.widths = list(widths)
        self.dropout = dropout
        super().__init__(**kwargs)


class SmallConvNetForImageClassification(PreTrainedModel):
    """Stages of convolution 3x3, batch norm and ReLU; global average pooling; a linear head.

    Examples:
        >>> model = SmallConvNetForImageClassification(SmallConvNetConfig(widths=(4, 8), num_labels=10))
        >>> model(pixel_values=torch.zeros(2, 1, 8, 8)).logits.shape
        torch.Size([2, 10])
    """

    config_class = SmallConvNetConfig
    main_input_name = "pixel_values"

    def __init__(self, config: SmallConvNetConfig) -> None:
        super().__init__(config)
        stages = []
        channels = config.num_channels
        for width in config.widths:
            stages.append(
                nn.Sequential(nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
            )
            channels = width
        self.stages = nn.ModuleList(stages)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(channels, config.num_labels)
        self.post_init()

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> ImageClassifierOutput:
        """Logits ``[B, C]`` of images ``[B, channels, H, W]``; the cross-entropy too where labels are given."""
        hidden = pixel_values
        for index, stage in enumerate(self.stages):
            if index and min(hidden.shape[-2:]) >= 2:
                hidden = nn.functional.max_pool2d(hidden, 2)
            hidden = stage(hidden)
        logits = self.classifier(self.dropout(hidden.mean((-2, -1))))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return ImageClassifierOutput(loss=loss, logits=logits)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.05)
            nn.init.zeros_(module.bias)
        else:
            super()._init_weights(module)


AutoConfig.register(SmallConvNetConfig.model_type, SmallConvNetConfig)
AutoModelForImageClassification.register(SmallConvNetConfig, SmallConvNetForImageClassification)
