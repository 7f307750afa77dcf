"""Other projects' trained networks: their files, read without running what is in them, as networks, parameters and
processes of jaxdiff."""

from jaxdiff.pretrained import alexnet, edm, inception, udlm

__all__ = ["alexnet", "edm", "inception", "udlm"]
