"""Two training steps of every family of models, its teacher wider than its student."""

from __future__ import annotations

import math

import pytest

from baselines import gkd, minillm
from tests.families import CAUSAL, GENERATE, SEQ2SEQ
