"""English sentences with German translations in the shape of IWSLT 2017."""

from bench.synthetic.iwslt.records import generate

__all__ = ["generate"]
