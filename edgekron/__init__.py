"""EdgeKron: trained convolutional networks, factorized, lowered to plain convolutions, and measured where they run."""

from importlib.metadata import version

__version__ = version("edgekron")
