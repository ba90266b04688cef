"""The methods DistiLLM is compared with, one short file each."""

from baselines import jsd, kld, rkld, sft, tvd

METHODS = tuple(module.METHOD for module in (sft, kld, rkld, jsd, tvd))

__all__ = ["METHODS"]
