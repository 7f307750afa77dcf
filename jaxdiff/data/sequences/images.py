"""Images as sequences: each grey level of each channel is a token, read line by line."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Integer, UInt8, UInt16

from jaxdiff.data import bundled
from jaxdiff.data.pixels import Images
from jaxdiff.data.sequences.tokens import Tokens
from jaxdiff.errors import InputError


@dataclass(frozen=True)
class Pixels:
    """The tokeniser of images of one `shape` (H, W, C): its `vocab` tokens are grey levels in order."""

    vocab: int
    shape: tuple[int, int, int]

    def pixels(
        self, tokens: Integer[np.ndarray, "n l"]
    ) -> UInt8[np.ndarray, "n h w c"] | UInt16[np.ndarray, "n h w c"]:
        """The images of rows of tokens; InputError for tokens that are no grey level, such as a mask that was left."""
        tokens = np.asarray(tokens)
        bad = (tokens < 0) | (tokens >= self.vocab)
        if bad.any():
            raise InputError(
                f"{int(bad.sum())} of {tokens.size} tokens lie outside the {self.vocab} grey levels, the first "
                f"{int(tokens[bad][0])}; a mask is {self.vocab}: let the sampler remove all masks"
            )
        if tokens.ndim != 2 or tokens.shape[1] != np.prod(self.shape):
            raise InputError(f"got tokens of shape {tokens.shape}; expected (N, {np.prod(self.shape)}) for images")
        return tokens.astype(np.uint8 if self.vocab <= 256 else np.uint16).reshape(-1, *self.shape)


def digits(split: str = "all") -> Tokens:
    """scikit-learn's digits as 64 tokens of 17 levels, in 10 classes; splits and errors as `jaxdiff.data.digits`."""
    return from_images(bundled.digits(split))


def mnist_5k(split: str = "all", *, shrink: int = 1, levels: int | None = None) -> Tokens:
    """Five thousand MNIST digits as (28 / shrink)^2 tokens of `levels` (default: 256), in 10 classes; splits and errors
    as `jaxdiff.data.mnist_5k` and `from_images`."""
    return from_images(bundled.mnist_5k(split, shrink=shrink), levels=levels)


def from_images(images: Images, *, levels: int | None = None) -> Tokens:
    """The images as tokens (N, H W C), with their labels; `levels` merges grey levels into as many equal bins, and must
    not exceed theirs. `tokeniser.pixels` makes images of such rows. InputError for another number of levels."""
    have = images.levels
    levels = have if levels is None else levels
    if not 2 <= levels <= have:
        raise InputError(f"{images.name} has {have} grey levels and cannot have {levels}; give 2 to {have}")
    tokens = images.pixels.astype(np.int64) * levels // have
    return Tokens(
        images.name,
        tokens.reshape(len(images), -1).astype(np.int32),
        Pixels(levels, images.shape),
        images.labels,
        images.num_classes,
        images.class_names,
    )
