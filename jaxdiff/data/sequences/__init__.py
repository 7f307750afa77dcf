"""Sequences of tokens: molecules, DNA, text and images, read into one container, `Tokens`, that batches as images do.

A reader finds its files in an installed package or in `folder`, and leaves nothing out without saying: what it cannot
read raises an error that counts it, or with `skip=True` stands in `Tokens.omitted`."""

from jaxdiff.data.sequences import tokeniser
from jaxdiff.data.sequences.dna import CELL_TYPES, dna_diffusion, genome, genomes
from jaxdiff.data.sequences.images import Pixels, digits, from_images, mnist_5k
from jaxdiff.data.sequences.molecules import from_smiles, moses, qm9, smiles_file
from jaxdiff.data.sequences.text import enwiki, from_text, kjv, text_file
from jaxdiff.data.sequences.tokeniser import Tokeniser
from jaxdiff.data.sequences.tokens import Tokens
from jaxdiff.data.sequences.wiki import plain, wikifil

__all__ = [
    "CELL_TYPES",
    "Pixels",
    "Tokeniser",
    "Tokens",
    "digits",
    "dna_diffusion",
    "enwiki",
    "from_images",
    "from_smiles",
    "from_text",
    "genome",
    "genomes",
    "kjv",
    "mnist_5k",
    "moses",
    "plain",
    "qm9",
    "smiles_file",
    "text_file",
    "tokeniser",
    "wikifil",
]
