"""The methods DistiLLM is compared with, one short file each."""

from baselines import abkd, akl, distillm2, gkd, imitkd, jsd, kld, minillm, rkld, seqkd, sft, taid, tvd

_OF_THE_PAPER = (sft, kld, rkld, jsd, tvd, seqkd, imitkd, gkd, minillm)
_BEYOND = (akl, abkd, taid, distillm2)

METHODS = tuple(module.METHOD for module in (*_OF_THE_PAPER, *_BEYOND))

__all__ = ["METHODS"]
