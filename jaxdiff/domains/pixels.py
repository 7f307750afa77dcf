"""Images of whole grey levels."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import numpy as np

from jaxdiff import metrics
from jaxdiff.data import Images, to_model
from jaxdiff.domains import page
from jaxdiff.domains.domain import Say, class_names
from jaxdiff.domains.pictures import grid, png, unit
from jaxdiff.metrics.report import DIRECTION
from jaxdiff.numerics.files import npz

ROWS, COLUMNS = 20, 16  # of the samples shown
BETTER = {1.0: "higher", -1.0: "lower", 0.0: "at the floor"}
MEANING = {
    "frechet": "Frechet distance",
    "kernel": "kernel distance (cubic)",
    "rbf": "kernel distance (RBF)",
    "sliced": "sliced Wasserstein",
    "precision": "precision: samples within the data",
    "recall": "recall: data within the samples",
    "density": "density",
    "coverage": "coverage",
    "nearest": "median distance to the nearest training image",
    "closer_to_train": "closer to training than to held-out data",
    "class_agreement": "a 3-nearest-neighbour classifier sees the class asked for",
}


@dataclass(frozen=True)
class Pixels:
    """Images (H, W, C) of `levels` grey levels; one that is drawn is stored as whole levels."""

    name: str
    shape: tuple[int, int, int]
    levels: int
    classes: tuple[str, ...] = ()
    unit: ClassVar[str] = "image"
    suffixes: ClassVar[tuple[str, ...]] = (".png", ".npz")

    @classmethod
    def of(cls, images: Images) -> "Pixels":
        """The domain of a set of images."""
        return cls(images.name, images.shape, images.levels, class_names(images))

    def plain(self) -> dict[str, Any]:
        """This domain as plain values, of which `read` makes it again."""
        return {"name": self.name, "shape": self.shape, "levels": self.levels, "classes": self.classes}

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> "Pixels":
        """The domain that `plain` wrote."""
        return cls(values["name"], tuple(values["shape"]), values["levels"], tuple(values["classes"]))

    def to_model(self, x: np.ndarray) -> np.ndarray:
        """Whole levels as a model sees them, float32 in [-1, 1]."""
        return to_model(x, self.levels)

    def content(self, suffix: str, x: np.ndarray, labels: np.ndarray | None, period: int) -> bytes:
        """A .png, with a row for each of `period` labels, or an .npz of `images`, `levels` and `labels`."""
        if suffix == ".png":
            return png(grid(unit(x, self.levels), period))
        return npz({"images": x, "levels": self.levels} | ({} if labels is None else {"labels": labels}))

    def compare(
        self, x: Any, labels: Any, train: Images, held_out: Images, *, seed: int, say: Say, features: Any = None
    ) -> dict[str, Any]:
        """The metrics of images, each beside its floor; of pixels, unless `features` are given."""
        tags: Any = None if labels is None else (labels, train.labels, held_out.labels)
        sets = self.to_model(x), train.to_model(), held_out.to_model()
        features = metrics.pixels() if features is None else features
        found = metrics.evaluate(*sets, features=features, labels=tags, key=jax.random.key(seed))
        say(metrics.as_text(found))
        return dict(found)

    def show(self, x: np.ndarray, labels: np.ndarray | None) -> Iterator[str]:
        """The first samples, with a row for each class where there are two images of each."""
        images, classes = unit(x, self.levels), len(self.classes)
        caption = "Not chosen: the first that were drawn"
        if classes < 2 or len(images) < 2 * classes:
            yield page.figure(png(grid(images[:144])), f"{caption}.", "pixels")
            return
        row = "a row for each class" if classes <= ROWS else f"a row for each of the first {ROWS} of {classes} classes"
        picture = grid(images, classes, rows=ROWS, columns=COLUMNS)
        yield page.figure(png(picture), f"{caption}, {row}.", "pixels")

    def figures(self, found: Mapping[str, Any], arrays: Mapping[str, Any]) -> Iterator[str]:
        """Each metric beside its floor, which is real data's."""
        rows = (
            (
                MEANING[name],
                f"{row['value']:.4g}",
                f"{row['floor']:.4g}",
                f"{row['floor_std']:.2g}",
                "–" if row["z"] is None else f"{row['z']:+.1f}",
                BETTER[DIRECTION[name]],
            )
            for name, row in found.items()
            if name != "counts"
        )
        yield page.table(("metric", "samples", "floor (real)", "±", "z", "better"), rows)
