"""Connectionist temporal classification: the loss of frames against a transcript that does not say what is where."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

BLANK = 0
"""The class of a frame that says nothing."""


def ctc_loss(
    logits: Float[Tensor, "B L C"], frames: Int[Tensor, " B"], targets: Int[Tensor, "B U"], lengths: Int[Tensor, " B"]
) -> Float[Tensor, " B"]:
    r"""−log p(transcript) of each example in nats, where p is summed over all ways of laying it along the frames.

    .. math:: -\log \sum_{\pi \in \mathcal{B}^{-1}(y)} \prod_{t=1}^{n} p_t(\pi_t)

    :math:`\mathcal{B}` removes repeats and then blanks. An example with fewer frames than any such way needs (its
    letters, and a blank between equal ones) has no probability at all; its loss and its gradient are 0.

    Args:
        logits: ``[B, L, C]``, class 0 being the blank; what stands beyond an example's frames is not read.
        frames: how many of the L are an example's, at least 1.
        targets: the letters, ``[B, U]``, none of them 0; what stands beyond ``lengths`` is not read.
        lengths: how many letters there are.

    Source: Graves et al. 2006, "Connectionist temporal classification", ICML.

    Examples:
        >>> one = torch.log(torch.tensor([[[0.5, 0.5], [0.25, 0.75]]]))  # "a" is said by a-, -a or aa
        >>> round(float(ctc_loss(one, torch.tensor([2]), torch.tensor([[1]]), torch.tensor([1])).exp()), 4)
        1.1429
    """
    wide = logits if logits.dtype == torch.float64 else logits.float()
    found: Tensor = nn.functional.ctc_loss(
        wide.log_softmax(-1).transpose(0, 1), targets, frames, lengths, BLANK, reduction="none", zero_infinity=True
    )
    return found
