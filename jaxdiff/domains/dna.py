"""DNA by its bases."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import jax
import numpy as np

from jaxdiff.data.sequences import Tokens
from jaxdiff.domains import page, plots
from jaxdiff.domains.domain import Say
from jaxdiff.domains.sequences import Sequences
from jaxdiff.metrics import classification, kmers

JUDGED = 4  # letters of the words by which a cell type is told
PENALTY = 100.0  # of the judge, on some hundreds of words
COUNTED = 3  # letters of the words that the report draws


class Dna(Sequences):
    """Rows of A, C, G, T and perhaps N."""

    kind: ClassVar[str] = "dna"

    def compare(self, x: Any, labels: Any, train: Tokens, held_out: Tokens, *, seed: int, say: Say) -> dict[str, Any]:
        """Jensen-Shannon distances of words beside their floor, how well samples are told from data, and whether a
        judge that never saw them finds the class that was asked for."""
        drawn, key = self.tokens(x, labels), jax.random.key(seed)
        n = min(len(drawn), len(held_out) // 2)
        some = np.random.default_rng(seed).permutation(len(held_out))
        real = held_out.tokens[some]
        rows = _distances(drawn.tokens[:n], real[n : 2 * n], held_out.tokens, key, self.vocab, say)
        sets = {"samples": drawn.tokens[:n], "a": real[:n], "b": real[n : 2 * n]}
        words = {name: kmers.kmer_counts(tokens, JUDGED, self.vocab) for name, tokens in sets.items()}
        told = classification.discriminator_auroc(words["samples"], words["a"], key=key, penalty=PENALTY)
        floor = classification.discriminator_auroc(words["b"], words["a"], key=key, penalty=PENALTY)
        rows["discriminator"] = {"auroc": list(told), "floor": list(floor)}
        say(f"told from data: AUROC {told}, other data {floor}")
        if drawn.labels is not None and train.labels is not None and held_out.labels is not None:
            rows["classes"] = self._recovered(drawn, train, held_out, say)
        return rows

    def _recovered(self, drawn, train, held_out, say):
        """How often the judge finds the class of samples, and of held-out data."""
        sets = [(kmers.kmer_counts(part.tokens, JUDGED, self.vocab), part.labels) for part in (drawn, train, held_out)]
        (words, asked), *real = sets
        judged = classification.class_recovery(words, asked, real[0], real[1], train.num_classes, penalty=PENALTY)
        for name, row in zip(("samples", "held out"), judged, strict=True):
            say(f"class recovered, {name}: {row.accuracy}, chance {row.chance:.3f}, p = {row.p_value:.2g}")
        return {"samples": judged[0]._asdict(), "held_out": judged[1]._asdict()}

    def shown_real(self, held_out: Tokens) -> dict[str, np.ndarray]:
        """The counts of short words in held-out data."""
        return {"held_out_words": kmers.kmer_counts(held_out.tokens, COUNTED, self.vocab).sum(0)}

    def figures(self, found: Mapping[str, Any], arrays: Mapping[str, Any]) -> Iterator[str]:
        """Samples beside held-out data, and the frequencies of short words."""
        yield page.table(("", "samples", "held-out data"), _rows(found))
        yield page.note(
            "Held-out data in the distances and the AUROC: as many held-out sequences in the samples' place, which is "
            "the floor. Chance differs where samples are of all classes alike, and the data are not."
        )
        if "held_out_words" in arrays:
            counts = kmers.kmer_counts(arrays["tokens"], COUNTED, self.vocab).sum(0)
            both = {"samples": counts, "held out": arrays["held_out_words"]}
            yield page.plot(plots.kmer_histogram(both, COUNTED, reference="held out"), "Words of three letters.")


def _distances(drawn, other, held_out, key, vocab, say):
    rows: dict[str, Any] = {}
    for k in (3, 6):
        found = kmers.kmer_jensen_shannon(drawn, other, k, vocab=vocab)
        floor = kmers.kmer_floor(held_out, k, len(drawn), key=key, vocab=vocab)
        rows[f"{k}-mers"] = {"distance": found.distance, "floor": floor.distance, "floor_std": floor.distance_std}
        say(f"{k}-mer distance {found.distance:.4f}, of held-out data {floor.distance:.4f} +- {floor.distance_std:.4f}")
    return rows


def _rows(found):
    for name, row in found.items():
        if name.endswith("mers"):
            floor = page.pair([row["floor"], row["floor_std"]])
            yield [f"{name}, Jensen-Shannon distance", page.shown(row["distance"]), floor]
    told = found["discriminator"]
    yield ["told from data (AUROC)", page.pair(told["auroc"]), page.pair(told["floor"])]
    if "classes" in found:
        both = [found["classes"][name] for name in ("samples", "held_out")]
        yield ["class found by a judge of words", *(page.pair(row["accuracy"]) for row in both)]
        yield ["the same, macro F1", *(page.shown(row["macro_f1"]) for row in both)]
        yield ["by chance: the commonest class", *(page.shown(row["chance"]) for row in both)]
        yield ["p of so many right by chance", f"{both[0]['p_value']:.2g}", ""]
