"""A data set of images is what its files say: whole grey levels 0..L-1, and perhaps a class for each.

A model sees x = 2 p / (L - 1) - 1 in [-1, 1]; the map is exact at both ends and inverted exactly by rounding, so that a
picture that goes through the model's space comes back bit for bit."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8, UInt16

from jaxdiff.data.rows import check_classes, checked_labels, held_out_rows, read_only
from jaxdiff.errors import InputError


def to_model(pixels: UInt8[np.ndarray, "..."] | UInt16[np.ndarray, "..."], levels: int) -> Float32[np.ndarray, "..."]:
    """Map grey levels 0..levels-1, of any shape, to float32 in [-1, 1]: (2 p - (L - 1)) / (L - 1), -1 and 1 exact."""
    top = np.float32(levels - 1)
    return (2 * pixels.astype(np.float32) - top) / top


def to_pixels(x: Any, levels: int) -> UInt8[np.ndarray, "..."] | UInt16[np.ndarray, "..."]:
    """Clip an array `x` of any shape to [-1, 1] and round it to grey levels 0..levels-1, uint8 up to 256 levels and
    uint16 above: the exact inverse of `to_model`; InputError if a value is NaN or infinite."""
    x = np.asarray(x)
    if not np.isfinite(x).all():
        bad = int(x.size - np.isfinite(x).sum())
        raise InputError(
            f"{bad} of {x.size} values to be drawn as pixels are NaN or infinite; expected finite numbers, nominally "
            "in [-1, 1]; look for the step at which the sampler or the training diverged."
        )
    unit = (np.clip(x, -1, 1).astype(np.float32) + np.float32(1)) * np.float32((levels - 1) / 2)
    return np.rint(unit).astype(np.uint8 if levels <= 256 else np.uint16)


@dataclass(frozen=True, eq=False)
class Images:
    """A checked, read-only set of N images of H x W pixels with C channels; InputError at construction if a part is
    wrong.

    `pixels` (N, H, W, C) uint8 or uint16 grey levels, all below `levels`; `labels` (N,) whole numbers in
    [0, num_classes), kept as int32, or None; `class_names` one name a class, or empty."""

    name: str
    pixels: np.ndarray
    labels: np.ndarray | None = None
    num_classes: int = 0
    levels: int = 256
    class_names: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        object.__setattr__(self, "pixels", read_only(_checked_pixels(self.name, self.pixels, self.levels)))
        if self.labels is not None:
            labels = checked_labels(self.name, self.labels, len(self.pixels), self.num_classes, "image")
            object.__setattr__(self, "labels", read_only(labels))
        check_classes(self.name, self.labels, self.num_classes, self.class_names, "image")

    def __len__(self) -> int:
        return len(self.pixels)

    def __repr__(self) -> str:
        n, h, w, c = self.pixels.shape
        classes = f"{self.num_classes} classes" if self.labels is not None else "no labels"
        return f"Images({self.name!r}, {n} of {h} x {w} x {c}, {self.levels} levels, {classes})"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C), the shape of one example."""
        return self.pixels.shape[1:]

    def examples(self, rows: np.ndarray) -> Float32[np.ndarray, "n h w c"]:
        """What a model sees of these rows: the images in [-1, 1]."""
        return to_model(self.pixels[rows], self.levels)

    def to_model(self) -> Float32[np.ndarray, "n h w c"]:
        """All images as float32 (N, H, W, C) in [-1, 1]."""
        return to_model(self.pixels, self.levels)

    def to_pixels(self, x: Any) -> UInt8[np.ndarray, "..."] | UInt16[np.ndarray, "..."]:
        """Clip and round `x`, model values of any shape, to this set's grey levels: the exact inverse of `to_model`;
        InputError if a value is NaN or infinite."""
        return to_pixels(x, self.levels)

    def take(self, rows: np.ndarray | slice, name: str | None = None) -> "Images":
        """The images at these rows, with their labels, under a new name if one is given; InputError if there are
        none."""
        labels = None if self.labels is None else self.labels[rows]
        name = self.name if name is None else name
        return Images(name, self.pixels[rows], labels, self.num_classes, self.levels, self.class_names)

    def shrink(self, factor: int) -> "Images":
        """The same images at 1 / `factor` of their size, each pixel the mean of factor x factor, rounded; InputError
        where that does not divide them."""
        n, height, width, channels = self.pixels.shape
        if not isinstance(factor, int) or factor < 1 or height % factor or width % factor:
            raise InputError(
                f"images of {height} x {width} cannot shrink by {factor!r}; give a whole number that divides"
            )
        if factor == 1:
            return self
        blocks = self.pixels.reshape(n, height // factor, factor, width // factor, factor, channels)
        pixels = np.rint(blocks.mean((2, 4))).astype(self.pixels.dtype)
        name = f"{self.name}/{height // factor}x{width // factor}"
        return Images(name, pixels, self.labels, self.num_classes, self.levels, self.class_names)

    def split(self, held_out: float, seed: int = 0) -> tuple["Images", "Images"]:
        """Divide into (train, held-out) sets, the same for the same seed and each in its original order.

        `held_out` is a fraction in (0, 1) (a float) or a number of images in [1, N) (an int); every class gives its
        share, rounded so that the total is exact. InputError if either set would be empty."""
        out = held_out_rows(self.name, self.labels, len(self), held_out, seed, "image")
        return self.take(~out, f"{self.name}/train"), self.take(out, f"{self.name}/held-out")


def _checked_pixels(name: str, pixels: np.ndarray, levels: int) -> np.ndarray:
    if not 2 <= levels <= 65536:
        raise InputError(
            f"{name}: got levels={levels}; expected 2 to 65536 grey levels; 256 is usual for 8-bit images."
        )
    if np.issubdtype(pixels.dtype, np.floating) and np.isnan(pixels).any():
        raise InputError(
            f"{name}: the image at row {np.argwhere(np.isnan(pixels))[0][0]} holds NaN; expected whole grey levels "
            f"0..{levels - 1}; remove or repair such images first."
        )
    if pixels.dtype not in (np.uint8, np.uint16):
        raise InputError(
            f"{name}: pixels have dtype {pixels.dtype}; expected uint8 (or uint16) grey levels 0..{levels - 1}; if "
            "they lie in [-1, 1], convert them with jaxdiff.data.to_pixels(x, levels)."
        )
    if pixels.ndim != 4 or 0 in pixels.shape:
        what = "no images" if pixels.ndim and len(pixels) == 0 else f"pixels of shape {pixels.shape}"
        raise InputError(
            f"{name}: got {what}; expected (N, H, W, C), none of them 0; for grey images of shape (N, H, W) give "
            "pixels[..., None]."
        )
    if (top := int(pixels.max())) >= levels:
        raise InputError(
            f"{name}: a pixel is {top}; expected grey levels 0..{levels - 1}; give levels={top + 1} or more."
        )
    return pixels
