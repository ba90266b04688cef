"""Two training steps of every family of models, whatever the output source does with it."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from baselines import METHODS
from bench.models.language_model import LanguageModel
from bench.training.trainer import Trainer
from distillm import METHODS as OURS
from distillm import Method, SourceOptions
from tests import tiny
from tests.families import CAUSAL, GENERATE, SEQ2SEQ, make_family

FAMILIES = (*CAUSAL, *SEQ2SEQ, *GENERATE)
BY_NAME = {method.name: method for method in (*METHODS, *OURS)}
EAGER = {"capacity": 4, "initial_phi": 1.0, "probability": 1.0, "rollouts": 4}
# the ways to generate: the decode loop, an encoder, `generate`; experts, softcapped logits, a recurrent state
GENERATING = ("llama", "gpt_neox", "gemma2", "qwen2_moe", "t5", "bart", "openai-gpt", "mamba")
CASES = [("srkl", family) for family in FAMILIES]
CASES += [(method, family) for method in ("gkd", "distillm", "minillm") for family in GENERATING]


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> tiny.Tokenizers:
    return tiny.make_tokenizers(tmp_path_factory.mktemp("tokenizer"))


@pytest.mark.parametrize(("name", "family"), CASES, ids=lambda part: part)
def test_two_steps_move_the_weights_and_stay_finite(name, family, tokenizers, tmp_path: Path):
    method: Method = BY_NAME[name]
    kind = "t5" if family in SEQ2SEQ else "llama"
    made = tiny.make_job(
        tokenizers,
        kind,
        method.objective(),
        method.source,
        SourceOptions(**EAGER),
        tmp_path,
        steps=2,
        learning_rate=1e-4,
    )
    student, teacher = (
        LanguageModel(make_family(family, wide=wide, vocabulary=300), made.student.tokenizer, family)
        for wide in (False, True)
    )
    job = dataclasses.replace(made, student=student, teacher=teacher if made.teacher else None)
    before, of_teacher = tiny.weights(student), tiny.weights(teacher)
    state = Trainer(job).fit()
    assert state.step == 2
    assert [row["loss"] for row in state.curve if not math.isfinite(row["loss"])] == []
    assert all(math.isfinite(row["loss"]) for row in state.validations)
    assert all(tensor.isfinite().all() for tensor in tiny.weights(student).values())
    assert tiny.same(tiny.weights(teacher), of_teacher)
    if state.best_step > 0:  # the best weights are the student's at the end
        assert not tiny.same(tiny.weights(student), before)
