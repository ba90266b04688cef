"""Fixtures of `tests.tiny`: a tokenizer made once for all tests, random models and trainings on demand."""

import pytest
from transformers import PreTrainedTokenizerFast

from bench.models.language_model import LanguageModel
from bench.models.loading import load_tokenizer
from bench.models.tokenizer import TokenizerAdapter
from distillm import SourceOptions
from distillm.methods import SRKL
from tests import tiny


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny.make_tokenizers(folder)
    return folder


@pytest.fixture
def backend(tokenizer_folder) -> PreTrainedTokenizerFast:
    """The plain transformers tokenizer."""
    return load_tokenizer(str(tokenizer_folder))


@pytest.fixture
def tokenizers(tokenizer_folder) -> dict[str, TokenizerAdapter]:
    """One tokenizer with the conventions of both kinds of model."""
    return tiny.tokenizers_in(tokenizer_folder)


@pytest.fixture
def make_model(tokenizers):
    """A function from a family, a seed and changes of the architecture to a random model."""

    def make(family, seed=0, tokenizer=None, device=tiny.CPU, **changes) -> LanguageModel:
        tokenizer = tokenizer or tokenizers[tiny.kind_of(family)]
        return LanguageModel.from_scratch(tiny.ARCHITECTURES[family] | changes, tokenizer, device, seed)

    return make


@pytest.fixture
def make_job(tokenizers, tmp_path):
    """A function that makes a job: a family of models, an objective, an output source, and training options."""

    def make(family="llama", objective=None, source="dataset", options=None, *, work="work", **fields):
        options = options or SourceOptions(capacity=4)
        return tiny.make_job(tokenizers, family, objective or SRKL(), source, options, tmp_path / work, **fields)

    return make
