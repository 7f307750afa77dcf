"""Many images as one picture, and a picture as a PNG."""

import io

import numpy as np


def unit(pixels: np.ndarray, levels: int) -> np.ndarray:
    """Grey levels 0..levels-1 as float32 in [0, 1]."""
    return pixels.astype(np.float32) / np.float32(levels - 1)


def grid(images: np.ndarray, period: int = 1, *, rows: int | None = None, columns: int | None = None) -> np.ndarray:
    """(n, H, W, C) in [0, 1] as one picture: image i in row i mod `period`, at most `rows` and `columns` of them.

    Where the images do not go around twice, or period is 1, they fill a square line by line."""
    n, blank = len(images), np.ones_like(images[:1])
    if period > 1 and n >= 2 * period:
        place = np.arange(-(-n // period) * period).reshape(-1, period).T
    else:
        side = int(np.ceil(np.sqrt(n)))
        place = np.arange(-(-n // side) * side).reshape(-1, side)
    place = place[:rows, :columns]
    return tile(np.concatenate([images, blank])[np.minimum(place, n)])


def tile(images: np.ndarray, *, gap: int = 1, side: int = 900) -> np.ndarray:
    """(rows, columns, H, W, C) in [0, 1] -> one picture with white gaps, enlarged by a whole factor up to `side`."""
    rows, columns, height, wide, channels = images.shape
    padded = np.ones((rows, columns, height + gap, wide + gap, channels), np.float32)
    padded[:, :, :height, :wide] = images
    picture = padded.transpose(0, 2, 1, 3, 4).reshape(rows * (height + gap), columns * (wide + gap), channels)
    zoom = max(1, side // max(picture.shape))
    return picture.repeat(zoom, 0).repeat(zoom, 1)


def png(picture: np.ndarray) -> bytes:
    """(H, W, 1 or 3) in [0, 1] as a PNG."""
    from PIL import Image

    pixels = np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(buffer, format="PNG")
    return buffer.getvalue()
