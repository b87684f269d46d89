"""Speech as codes and back: log-mel frames, each replaced by the nearest of a codebook, and heard by Griffin-Lim."""

from __future__ import annotations

import base64
import hashlib
import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save
from scipy.io import wavfile
from sklearn.cluster import KMeans
from torch import Tensor
from transformers.audio_utils import mel_filter_bank

from setpoint.files import write_atomic

MELS = 40
FLOOR = 1e-6
"""Power below which a band counts as silent."""
MOST_FRAMES = 20_000
"""Training frames that a codebook is learnt from."""
ITERATIONS = 60


@dataclass(frozen=True)
class Frames:
    """How samples become frames: Hann windows of 32 ms every 16 ms, 40 mel bands, the log of their power.

    Attributes:
        rate: samples in a second.
    """

    rate: int

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        return max(self.rate * 16 // 1000, 1)

    @property
    def window(self) -> Tensor:
        """The window, ``[2 · hop]``."""
        return torch.hann_window(2 * self.hop)

    @cached_property
    def filters(self) -> Tensor:
        """The mel bands, ``[frequencies, MELS]``."""
        found = mel_filter_bank(self.hop + 1, MELS, 0.0, self.rate / 2, self.rate, norm="slaney", mel_scale="slaney")
        return torch.from_numpy(found).float()

    def spectrum(self, samples: Tensor) -> Tensor:
        """Complex, ``[frequencies, frames]``."""
        length = 2 * self.hop
        padded = torch.nn.functional.pad(samples, (0, max(length - len(samples), 0)))
        return torch.stft(padded, length, self.hop, window=self.window.to(samples), return_complex=True)

    def log_mel(self, samples: np.ndarray) -> np.ndarray:
        """Log-power in each mel band, ``[frames, MELS]``, of samples ``[N]`` in [-1, 1]."""
        power = self.spectrum(torch.from_numpy(samples).float()).abs().square()
        return (power.T @ self.filters).clamp(min=FLOOR).log().numpy()

    def heard(self, log_mel: np.ndarray, seed: int = 0) -> np.ndarray:
        """Samples that have about these frames: the bands spread back by the pseudo-inverse, phases by Griffin-Lim.

        Fewer than three frames, which no window fills, are a moment of silence.
        """
        if len(log_mel) < 3:
            return np.zeros(self.hop, dtype=np.float32)
        bands = torch.from_numpy(log_mel).float().exp()
        bands = torch.where(bands > 1.5 * FLOOR, bands, 0.0)
        power = (bands @ torch.linalg.pinv(self.filters)).clamp(min=0).T
        return griffin_lim(power.sqrt(), self, seed=seed).numpy()


def griffin_lim(magnitude: Tensor, frames: Frames, iterations: int = ITERATIONS, seed: int = 0) -> Tensor:
    """Samples whose spectrum has about this magnitude; phases begin at random and come from the samples found so far.

    The distance of the magnitudes never rises. Source: Griffin & Lim 1984, "Signal estimation from modified short-time
    Fourier transform", IEEE Transactions on Acoustics, Speech and Signal Processing 32(2).

    Args:
        magnitude: ``[frequencies, frames]``.
        frames: how they were made.
        iterations: more bring the magnitudes nearer.
        seed: of the first phases.
    """
    generator = torch.Generator().manual_seed(seed)
    phase = torch.rand(magnitude.shape, generator=generator, dtype=magnitude.dtype) * 2 * torch.pi
    spectrum, samples = torch.polar(magnitude, phase), torch.zeros(0)
    for _ in range(iterations + 1):
        samples = torch.istft(spectrum, 2 * frames.hop, frames.hop, window=frames.window.to(magnitude))
        spectrum = torch.polar(magnitude, frames.spectrum(samples).angle())
    return samples


def learn_codebook(frames: np.ndarray, codes: int, file: Path | None) -> np.ndarray:
    """The centres ``[codes, MELS]`` of clusters of frames ``[N, MELS]``; those of the file, where it has them of these.

    Args:
        frames: all of the training split.
        codes: how many.
        file: where they are kept; None for nowhere.
    """
    chosen = frames[:: -(-len(frames) // MOST_FRAMES)]
    digest = np.frombuffer(
        hashlib.sha256(np.ascontiguousarray(chosen).tobytes() + bytes(str(codes), "ascii")).digest(), np.uint8
    )
    if file is not None and file.exists():
        kept = load_file(file)
        if np.array_equal(kept["frames_sha256"], digest):
            return kept["codebook"]
    found = KMeans(codes, n_init=1, max_iter=50, random_state=0).fit(chosen).cluster_centers_.astype(np.float32)
    if file is not None and file.parent.is_dir():
        write_atomic(file, save({"codebook": found, "frames_sha256": digest}))
    return found


def nearest(frames: np.ndarray, codebook: np.ndarray) -> np.ndarray:
    """The number of the nearest centre of each frame, ``[N]``.

    Examples:
        >>> nearest(np.array([[0.0, 1.0], [3.0, 3.0]]), np.array([[0.0, 0.0], [4.0, 4.0]]))
        array([0, 1])
    """
    apart = np.square(codebook).sum(-1) - 2 * frames @ codebook.T
    return apart.argmin(-1)


def wav(samples: np.ndarray, rate: int) -> str:
    """Samples ``[N]`` in [-1, 1] as a ``data:`` URI, made louder so that the loudest is 0.9."""
    loudest = max(float(np.abs(samples).max(initial=0.0)), 1e-9)
    file = io.BytesIO()
    wavfile.write(file, rate, np.round(samples / loudest * 0.9 * 32767).astype(np.int16))
    return f"data:audio/wav;base64,{base64.b64encode(file.getvalue()).decode()}"
