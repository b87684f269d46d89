"""Small convolutional networks as transformers models, for images that need no large one."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageClassification, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutputWithNoAttention


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

    def forward(
        self, pixel_values: Tensor, labels: Tensor | None = None, output_hidden_states: bool | None = None
    ) -> ImageClassifierOutputWithNoAttention:
        """Logits ``[B, C]`` of images ``[B, channels, H, W]``; the cross-entropy too where labels are given.

        With ``output_hidden_states`` there is what each stage gives too, ``[B, its width, height, breadth]``.
        """
        hidden, stages = pixel_values, []
        for index, stage in enumerate(self.stages):
            if index and min(hidden.shape[-2:]) >= 2:
                hidden = nn.functional.max_pool2d(hidden, 2)
            hidden = stage(hidden)
            stages.append(hidden)
        logits = self.classifier(self.dropout(hidden.mean((-2, -1))))
        return _output(self.config, logits, labels, stages, output_hidden_states)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.05)
            nn.init.zeros_(module.bias)
        elif not _kaiming(module):
            super()._init_weights(module)


class SmallResNetConfig(PreTrainedConfig):
    """Configuration of ``SmallResNetForImageClassification``.

    Args:
        num_channels: of the images.
        depth: residual blocks in each of the stages; n of them make 6n + 2 layers with three stages.
        widths: channels of each stage, which may not become fewer.
    """

    model_type = "setpoint-resnet"

    def __init__(
        self, num_channels: int = 3, depth: int = 3, widths: tuple[int, ...] = (16, 32, 64), **kwargs: object
    ) -> None:
        self.num_channels = num_channels
        self.depth = depth
        self.widths = list(widths)
        if depth < 1 or not self.widths or self.widths != sorted(self.widths):
            raise ValueError(f"depth {depth} and widths {self.widths} are no residual network: widths may only grow")
        super().__init__(**kwargs)


class _Block(nn.Module):
    """Two convolutions 3x3 beside a shortcut without weights: option A, the image thinned out and channels of 0."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride = stride
        new = width - channels
        self.new = (new // 2, new - new // 2)  # channels in front and behind

    def forward(self, hidden: Tensor) -> Tensor:
        """``[B, channels, H, W]`` to ``[B, width, H / stride, W / stride]``, rounded up."""
        inner = nn.functional.relu(self.bn1(self.conv1(hidden)))
        shortcut = hidden[..., :: self.stride, :: self.stride]
        if any(self.new):
            shortcut = nn.functional.pad(shortcut, (0, 0, 0, 0, *self.new))
        return nn.functional.relu(self.bn2(self.conv2(inner)) + shortcut)


class SmallResNetForImageClassification(PreTrainedModel):
    """The residual network for CIFAR of He et al. 2015 (arXiv:1512.03385, section 4.2), of 6n + 2 layers.

    A convolution 3x3; stages of n blocks, from the second on at half the side of the one before; global average
    pooling; a linear head. ResNet-20 has n = 3, ResNet-56 has n = 9. Modules have the names that weights for this
    network commonly have: ``conv1``, ``bn1``, ``layer1.0.conv1``, …, ``linear``.

    Examples:
        >>> config = SmallResNetConfig(depth=3, num_labels=10)
        >>> model = SmallResNetForImageClassification(config)
        >>> model(pixel_values=torch.zeros(2, 3, 32, 32)).logits.shape
        torch.Size([2, 10])
        >>> sum(len(weights.shape) > 1 for weights in model.parameters())  # layers
        20
    """

    config_class = SmallResNetConfig
    main_input_name = "pixel_values"

    def __init__(self, config: SmallResNetConfig) -> None:
        super().__init__(config)
        channels = config.widths[0]
        self.conv1 = nn.Conv2d(config.num_channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        for number, width in enumerate(config.widths, start=1):
            blocks = []
            for index in range(config.depth):
                blocks.append(_Block(channels, width, stride=2 if number > 1 and index == 0 else 1))
                channels = width
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
        self.linear = nn.Linear(channels, config.num_labels)
        self.post_init()

    def forward(
        self, pixel_values: Tensor, labels: Tensor | None = None, output_hidden_states: bool | None = None
    ) -> ImageClassifierOutputWithNoAttention:
        """Logits ``[B, C]`` of images ``[B, channels, H, W]``; the cross-entropy too where labels are given.

        With ``output_hidden_states`` there is what each stage gives too, ``[B, its width, height, breadth]``.
        """
        hidden, stages = nn.functional.relu(self.bn1(self.conv1(pixel_values))), []
        for number in range(len(self.config.widths)):
            hidden = self.get_submodule(f"layer{number + 1}")(hidden)
            stages.append(hidden)
        return _output(self.config, self.linear(hidden.mean((-2, -1))), labels, stages, output_hidden_states)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if not _kaiming(module):
            super()._init_weights(module)


def _output(
    config: PreTrainedConfig, logits: Tensor, labels: Tensor | None, stages: list[Tensor], wanted: bool | None
) -> ImageClassifierOutputWithNoAttention:
    """What transformers gives of a classifier: its loss where there are labels, what its stages give where wanted."""
    loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
    shown = config.output_hidden_states if wanted is None else wanted
    return ImageClassifierOutputWithNoAttention(
        loss=loss, logits=logits, hidden_states=tuple(stages) if shown else None
    )


def _kaiming(module: nn.Module) -> bool:
    """Draw the weights of a convolution or a linear layer as He et al. 2015 (arXiv:1502.01852) do, where it is one."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
        nn.init.zeros_(module.bias)
    return isinstance(module, nn.Conv2d | nn.Linear)


for _config, _model in (
    (SmallConvNetConfig, SmallConvNetForImageClassification),
    (SmallResNetConfig, SmallResNetForImageClassification),
):
    AutoConfig.register(_config.model_type, _config)
    AutoModelForImageClassification.register(_config, _model)
