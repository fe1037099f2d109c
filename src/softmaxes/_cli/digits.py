"""
Handwritten digits, 1797 images of 8 by 8 pixels, carried in ``digits.npz``.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine
Learning Repository, 1998, https://doi.org/10.24432/C50P49. Licence: CC BY 4.0,
https://creativecommons.org/licenses/by/4.0/.

Changes: the test set alone, as ``sklearn.datasets.load_digits`` returns it; pixels (0 to 16) and
labels (0 to 9) are stored as unsigned bytes, their values and their order unchanged.
"""

from __future__ import annotations

from importlib import resources
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["SOURCE", "Digits", "load"]

SOURCE = (
    "E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, 1998, UCI\n"
    "Machine Learning Repository, https://doi.org/10.24432/C50P49, licence CC BY 4.0."
)


class Digits(NamedTuple):
    """Features, shape (n, 65): pixels in [0, 1] and a constant 1; labels, shape (n,)."""

    features: NDArray[np.float64]
    labels: NDArray[np.intp]


def load() -> tuple[Digits, Digits]:
    """Load the training half (images 0, 2, 4, ...) and the held-out half (images 1, 3, 5, ...)."""
    with (
        resources.files(__package__).joinpath("digits.npz").open("rb") as file,
        np.load(file, allow_pickle=False) as data,
    ):
        pixels = data["images"].reshape(-1, 64) / 16.0
        labels = data["labels"].astype(np.intp)
    features = np.hstack([pixels, np.ones((len(pixels), 1))])
    return Digits(features[::2], labels[::2]), Digits(features[1::2], labels[1::2])
