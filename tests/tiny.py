"""Tiny real tokenizers, models and trainings, made here: a byte-level BPE of 300 tokens and models of width 16."""

from __future__ import annotations

import random
from pathlib import Path

import torch

from bench.config.sections import TrainingConfig
from bench.models.language_model import LanguageModel
from bench.models.loading import load_tokenizer
from bench.models.sampling import Decoding
from bench.models.tokenizer import Kind, TokenizerAdapter, train_tokenizer
from bench.training.job import TrainingJob, ValidationSet
from distillm import Objective, OutputSource, SourceOptions, TokenSequence

CPU = torch.device("cpu")

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


Tokenizers = dict[Kind, TokenizerAdapter]


def kind_of(family: str) -> Kind:
    return "seq2seq" if family == "t5" else "causal"


def make_tokenizers(folder: Path) -> Tokenizers:
    """One tokenizer, trained into a folder, with the conventions of both kinds of model."""
    train_tokenizer(TEXTS * 5, 300, folder)
    return tokenizers_in(folder)


def tokenizers_in(folder: Path) -> Tokenizers:
    backend = load_tokenizer(str(folder))
    return {"causal": TokenizerAdapter(backend, "causal"), "seq2seq": TokenizerAdapter(backend, "seq2seq")}


def sequences(count: int, seed: int) -> list[TokenSequence]:
    """Prompts and responses of 1 to 9 tokens: very unequal."""
    rng = random.Random(seed)

    def tokens() -> list[int]:
        return [rng.randrange(3, 300) for _ in range(rng.randint(1, 8))]

    return [TokenSequence(f"example-{i}", (*tokens(), 7), (*tokens(), 2)) for i in range(count)]


def make_job(
    tokenizers: Tokenizers,
    family: str,
    objective: Objective,
    source: str,
    options: SourceOptions,
    work: Path,
    *,
    student_seed: int = 0,
    device: torch.device = CPU,
    **training: object,
) -> TrainingJob:
    """A training of a random student with a random teacher; `training` are fields of its TrainingConfig."""
    settings = {"steps": 3, "batch_size": 2, "learning_rate": 1e-3, "validations": 1, "select_by": "loss"}
    config = TrainingConfig.model_validate(settings | training)
    # a teacher of wide weights, so that it is far from the student
    wide = {"initializer_range": 0.3} if family != "t5" else {}
    architecture, tokenizer = ARCHITECTURES[family], tokenizers[kind_of(family)]
    student = LanguageModel.from_scratch(architecture, tokenizer, device, student_seed)
    teacher = LanguageModel.from_scratch(architecture | wide, tokenizer, device, "teacher")
    teacher.network.eval()
    assert config.steps is not None
    return TrainingJob(
        label="the student",
        objective=objective,
        output_source=OutputSource(source, options, total_steps=config.steps, batch_size=config.batch_size),
        student=student,
        teacher=teacher,
        train=sequences(8, 0),
        validation=ValidationSet(sequences(3, 1), lambda texts: 0.0, Decoding(4), 2),
        config=config,
        max_response_length=6,
        seed=5,
        work=work,
        on_step=lambda step, total, figures: None,
        note=lambda text: None,
    )


def weights(model: LanguageModel) -> dict[str, torch.Tensor]:
    """A copy of all weights, by name."""
    return {name: tensor.clone() for name, tensor in model.network.state_dict().items()}


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    """Whether two models' weights are equal bit for bit."""
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


class Recording:
    """An objective that notes the batches it is given."""

    def __init__(self, objective: Objective) -> None:
        self.objective, self.needs_teacher = objective, objective.needs_teacher
        self.batches: list[list[TokenSequence]] = []

    def __call__(self, student_logits, teacher_logits, tokens, batch):
        self.batches.append(batch)
        return self.objective(student_logits, teacher_logits, tokens, batch)
