"""Tiny real tokenizers and models, made here: a byte-level BPE of 300 tokens and models of width 16."""

import random

import pytest
from accelerate import Accelerator
from transformers import PreTrainedTokenizerFast

from bench.config.sections import TrainingConfig
from bench.models.generation import Decoding
from bench.models.loading import load_tokenizer, new_model
from bench.models.tokenizer import Codec, train_tokenizer
from bench.training.trainer import Job
from distillm import OutputSource, SourceOptions, TokenSequence
from distillm.methods import SRKL

ARCHITECTURES = {
    "llama": {
        "model_type": "llama",
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
        "tie_word_embeddings": True,
    },
    "gpt2": {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64},
    "opt": {
        "model_type": "opt",
        "hidden_size": 16,
        "word_embed_proj_dim": 16,
        "ffn_dim": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
    },
    "gemma2": {
        "model_type": "gemma2",
        "hidden_size": 16,
        "head_dim": 8,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "final_logit_softcapping": 0.05,
    },
    "t5": {
        "model_type": "t5",
        "d_model": 16,
        "d_kv": 8,
        "d_ff": 32,
        "num_layers": 2,
        "num_heads": 2,
        "dropout_rate": 0.0,
    },
}

TEXTS = [
    "the cat sat on the mat and the dog sat on the cat",
    "a short text about a very long road in the north of the land",
    "der Hund läuft über die Straße, die Katze schläft",
]


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(TEXTS * 5, 300, folder)
    return folder


@pytest.fixture
def tokenizer(tokenizer_folder) -> PreTrainedTokenizerFast:
    return load_tokenizer(str(tokenizer_folder))


@pytest.fixture
def codecs(tokenizer) -> dict[str, Codec]:
    """One tokenizer with the conventions of both kinds of model."""
    return {"causal": Codec(tokenizer, "causal"), "seq2seq": Codec(tokenizer, "seq2seq")}


@pytest.fixture
def make_model(codecs):
    """A function from a family, a seed and changes of the architecture to a random model and its codec."""

    def make(family, seed=0, codec=None, **changes):
        codec = codec or codecs["seq2seq" if family == "t5" else "causal"]
        return new_model(codec.kind, ARCHITECTURES[family] | changes, codec, seed), codec

    return make


def sequences(count: int, seed: int) -> list[TokenSequence]:
    """Prompts and responses of 1 to 9 tokens: very unequal."""
    rng = random.Random(seed)

    def tokens() -> list[int]:
        return [rng.randrange(3, 300) for _ in range(rng.randint(1, 8))]

    return [TokenSequence(f"example-{i}", (*tokens(), 7), (*tokens(), 2)) for i in range(count)]


@pytest.fixture
def make_job(make_model, tmp_path):
    """A function that makes a job: a family of models, an objective, an output source, and training options."""

    def make(family="llama", objective=None, source="dataset", options=None, *, student_seed=0, work="work", **fields):
        settings = {"steps": 3, "batch_size": 2, "learning_rate": 1e-3, "validations": 1, "select_by": "loss"}
        config = TrainingConfig(**(settings | fields))
        student, codec = make_model(family, seed=student_seed)
        teacher = make_model(family, seed="teacher", **({"initializer_range": 0.3} if family != "t5" else {}))[0]
        return Job(
            label="the student",
            objective=objective or SRKL(),
            source=OutputSource(
                source, options or SourceOptions(capacity=4), total_steps=config.steps, batch_size=config.batch_size
            ),
            student=student,
            teacher=teacher.eval(),
            codec=codec,
            train=sequences(8, 0),
            validation=sequences(3, 1),
            score=lambda texts: 0.0,
            config=config,
            decoding=Decoding(4),
            evaluation_batch=2,
            max_response_length=6,
            seed=5,
            accelerator=Accelerator(cpu=True),
            work=tmp_path / work,
            watch=lambda step, total, figures: None,
        )

    return make
