"""A small detector in DETR's manner as a transformers model, for pictures that need no large one."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModelForObjectDetection, PreTrainedConfig, PreTrainedModel
from transformers.models.detr.modeling_detr import DetrObjectDetectionOutput


class SmallDetrConfig(PreTrainedConfig):
    """Configuration of ``SmallDetrForObjectDetection``.

    Args:
        num_channels: of the images.
        widths: channels of each stage of the backbone; each halves the sides.
        d_model: width of the decoder.
        decoder_layers: how many.
        decoder_attention_heads: of each.
        num_queries: objects that can be found at most; a square number spreads them evenly.
        dropout: in the decoder.
    """

    model_type = "setpoint-detr"

    def __init__(
        self,
        num_channels: int = 3,
        widths: tuple[int, ...] = (16, 32, 64),
        d_model: int = 64,
        decoder_layers: int = 2,
        decoder_attention_heads: int = 4,
        num_queries: int = 16,
        dropout: float = 0.0,
        **kwargs: object,
    ) -> None:
        self.num_channels, self.widths, self.d_model = num_channels, list(widths), d_model
        self.decoder_layers, self.decoder_attention_heads = decoder_layers, decoder_attention_heads
        self.num_queries, self.dropout = num_queries, dropout
        super().__init__(**kwargs)


class SmallDetrForObjectDetection(PreTrainedModel):
    """Convolutions, a transformer decoder whose queries look at them, and for each query a class and a box.

    A query has a place of its own, which is learnt and begins on a grid: it starts with what the convolutions see
    there, and its box is found from there. This makes learning quick (as in Zhu et al. 2021, arXiv:2010.04159,
    section 4). The last class is that there is no object.

    Examples:
        >>> model = SmallDetrForObjectDetection(SmallDetrConfig(widths=(4, 8), d_model=8, num_queries=4, num_labels=3))
        >>> output = model(pixel_values=torch.zeros(2, 3, 16, 16))
        >>> output.logits.shape, output.pred_boxes.shape
        (torch.Size([2, 4, 4]), torch.Size([2, 4, 4]))
    """

    config_class = SmallDetrConfig
    main_input_name = "pixel_values"

    def __init__(self, config: SmallDetrConfig) -> None:
        super().__init__(config)
        width, stages, channels = config.d_model, [], config.num_channels
        for out in config.widths:
            convolution = nn.Conv2d(channels, out, 3, stride=2, padding=1, bias=False)
            again = nn.Conv2d(out, out, 3, padding=1, bias=False)
            stages.append(
                nn.Sequential(convolution, nn.BatchNorm2d(out), nn.ReLU(), again, nn.BatchNorm2d(out), nn.ReLU())
            )
            channels = out
        self.backbone = nn.Sequential(*stages)
        self.projection = nn.Linear(channels, width)
        layer = nn.TransformerDecoderLayer(
            width, config.decoder_attention_heads, 2 * width, config.dropout, batch_first=True, norm_first=True
        )
        self.decoder = nn.TransformerDecoder(layer, config.decoder_layers, nn.LayerNorm(width))
        self.queries = nn.Embedding(config.num_queries, width)
        self.places = nn.Embedding(config.num_queries, 2)
        self.place_projection = nn.Linear(width, width)
        self.class_labels_classifier = nn.Linear(width, config.num_labels + 1)
        self.bbox_predictor = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4))
        self.post_init()

    def forward(self, pixel_values: Tensor, labels: object = None) -> DetrObjectDetectionOutput:
        """Logits ``[B, queries, C + 1]`` and boxes ``[B, queries, 4]`` of images ``[B, channels, H, W]``."""
        features = self.projection(self.backbone(pixel_values).movedim(1, -1))
        height, width = features.shape[1:3]
        memory = features.flatten(1, 2) + self.place_projection(
            sine(grid(height, width, features.device), self.config.d_model)
        )
        places = self.places.weight
        there = (2 * places.sigmoid() - 1).expand(len(features), 1, -1, -1)
        seen = functional.grid_sample(features.movedim(-1, 1), there, align_corners=False)[:, :, 0].transpose(1, 2)
        asked = self.queries.weight + self.place_projection(sine(places.sigmoid(), self.config.d_model))
        found = self.decoder(seen + asked, memory)
        offsets = self.bbox_predictor(found)
        centre, size = (offsets[..., :2] + places).sigmoid(), offsets[..., 2:].sigmoid()
        logits = self.class_labels_classifier(found)
        return DetrObjectDetectionOutput(logits=logits, pred_boxes=torch.cat([centre, size], -1))

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
            if module is self.bbox_predictor[-1]:  # boxes begin at the places, a quarter of the picture wide
                nn.init.zeros_(module.weight)
                module.bias[2:] = -math.log(3)
        elif module is self.places:
            side = math.ceil(math.sqrt(self.config.num_queries))
            spread = grid(side, side, module.weight.device)[: self.config.num_queries]
            module.weight.copy_(torch.logit(spread))
        else:
            super()._init_weights(module)


def grid(height: int, width: int, device: torch.device) -> Tensor:
    """The centres of the cells of a grid, row by row, ``[height · width, 2]`` as (x, y) in (0, 1).

    Examples:
        >>> grid(1, 2, torch.device("cpu"))
        tensor([[0.2500, 0.5000],
                [0.7500, 0.5000]])
    """
    y = (torch.arange(height, device=device) + 0.5) / height
    x = (torch.arange(width, device=device) + 0.5) / width
    return torch.stack([x.repeat(height), y.repeat_interleave(width)], -1)


def sine(places: Tensor, width: int) -> Tensor:
    """Places ``[..., 2]`` in (0, 1) as sines and cosines of ``width / 4`` frequencies, ``[..., width]``.

    The longest wave is twice the picture, so that no two places are alike, and the shortest a sixteenth of it: a finer
    one would make noise of places that are learnt.

    Examples:
        >>> sine(torch.zeros(1, 2), 8)
        tensor([[0., 0., 1., 1., 0., 0., 1., 1.]])
    """
    frequencies = math.pi * torch.logspace(0, 5, width // 4, base=2, device=places.device)
    angles = places[..., None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], -1).flatten(-2)


AutoConfig.register(SmallDetrConfig.model_type, SmallDetrConfig)
AutoModelForObjectDetection.register(SmallDetrConfig, SmallDetrForObjectDetection)
