"""A factorisation machine with a small network beside it, as a transformers model, for rows of categories."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from setpoint.errors import ModelError


class FactorisationConfig(PreTrainedConfig):
    """Configuration of ``FactorisationForClassification``.

    Args:
        fields: F, the categories of an example, such as user and item.
        buckets: embeddings of each field; fewer than the data's buckets make a smaller model of more collisions.
        width: of an embedding.
        hidden: widths of the network's layers; none for a factorisation machine alone.
        dropout: of embeddings, and after each layer.
    """

    model_type = "setpoint-factorisation"

    def __init__(
        self,
        fields: int = 2,
        buckets: int = 16384,
        width: int = 16,
        hidden: tuple[int, ...] = (32,),
        dropout: float = 0.0,
        **kwargs: object,
    ) -> None:
        self.fields = fields
        self.buckets = buckets
        self.width = width
        self.hidden = list(hidden)
        self.dropout = dropout
        super().__init__(**kwargs)


class FactorisationForClassification(PreTrainedModel):
    """Logits = bias of each category + W·(products of each two embeddings, their concatenation through a network).

    The sum of the products of each two embeddings is ½((Σv)² − Σv²), number by number. For a user and an item it is
    u ⊙ v, and the model is NeuMF with one set of embeddings; without a network, a factorisation machine with an output
    for each class. Each field has embeddings of its own.
    Source: Rendle 2010 (ICDM); Guo et al. 2017 (DeepFM), arXiv:1703.04247; He et al. 2017 (NCF), arXiv:1708.05031; the
    pooled products are those of He and Chua 2017 (NFM), arXiv:1708.05027.

    Examples:
        >>> model = FactorisationForClassification(FactorisationConfig(buckets=10, width=4, num_labels=5))
        >>> model(features=torch.tensor([[3, 9], [3, 0]])).logits.shape
        torch.Size([2, 5])
    """

    config_class = FactorisationConfig
    main_input_name = "features"

    def __init__(self, config: FactorisationConfig) -> None:
        super().__init__(config)
        rows = config.fields * config.buckets
        self.bias = nn.Embedding(rows, config.num_labels)
        self.embedding = nn.Embedding(rows, config.width)
        layers: list[nn.Module] = []
        width = config.fields * config.width
        for hidden in config.hidden:
            layers += [nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(config.dropout)]
            width = hidden
        self.network = nn.Sequential(*layers)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(config.width + (width if layers else 0), config.num_labels)
        self.post_init()

    def forward(self, features: Tensor, labels: Tensor | None = None) -> SequenceClassifierOutput:
        """Logits ``[B, C]`` of the buckets ``[B, F]`` of each example; the cross-entropy too where labels are given.

        Raises:
            ModelError: the examples have another number of features.
        """
        fields, buckets = self.config.fields, self.config.buckets
        if features.shape[-1] != fields:
            raise ModelError(
                f"the model has {fields} fields where examples have {features.shape[-1]} features",
                f"set fields to {features.shape[-1]} in its config",
            )
        rows = features % buckets + buckets * torch.arange(fields, device=features.device)
        vectors = self.dropout(self.embedding(rows))
        pooled = (vectors.sum(-2).square() - vectors.square().sum(-2)) / 2
        parts = [pooled, self.network(vectors.flatten(-2))] if self.config.hidden else [pooled]
        logits = self.bias(rows).sum(-2) + self.classifier(torch.cat(parts, -1))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if module is self.bias:
            nn.init.zeros_(module.weight)
        elif module is self.embedding:
            nn.init.normal_(module.weight, std=0.1)
        elif isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
        else:
            super()._init_weights(module)


AutoConfig.register(FactorisationConfig.model_type, FactorisationConfig)
AutoModelForSequenceClassification.register(FactorisationConfig, FactorisationForClassification)
