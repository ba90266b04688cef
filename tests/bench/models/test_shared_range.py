"""Output layers of different sizes: what both have is used, and no id that the tokenizer lacks is ever sampled."""

from __future__ import annotations

import json

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from bench.config.resolve import resolve
from bench.experiment.context import prepare
from bench.models.language_model import Common, LanguageModel
from bench.models.loading import load_tokenizer
from bench.models.sampling import Decoding
from bench.models.tokenizer import TokenizerAdapter
from bench.record.record import Unwritten
from bench.system.artifacts import ArtifactCache
from distillm import TokenSequence, token_losses
from distillm.methods import SRKL
from tests import tiny
from tests.conftest import record_of, short

BATCH = [TokenSequence("a", (5, 6, 7), (8, 9, 2)), TokenSequence("b", (5,), (4, 2))]
MAMBA = {"model_type": "mamba", "hidden_size": 16, "num_hidden_layers": 1, "state_size": 4}


def padded(architecture: dict, tokenizer: TokenizerAdapter, rows: int, entries: int | None) -> LanguageModel:
    model = LanguageModel.from_scratch(
        architecture | {"vocab_size": rows}, tokenizer, tiny.CPU, 0, common=Common(entries)
    )
    model.network.eval()
    return model


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "t5"])
def test_loss_and_gradient_are_those_of_the_shared_range(family, tokenizers):
    architecture, tokenizer = tiny.ARCHITECTURES[family], tokenizers[tiny.kind_of(family)]
    student, teacher = padded(architecture, tokenizer, 333, 310), padded(architecture, tokenizer, 310, 310)
    batch = student.batch(BATCH)
    q, p = student.project(batch), teacher.project(batch)
    assert q is not None
    assert p is not None
    total, _ = token_losses(SRKL(), q, p, batch.tokens, BATCH)
    (found,) = torch.autograd.grad(total, student.head.weight)
    student.common = Common()
    logits = student.score(BATCH)
    assert logits.shape == (5, 333)
    expected = SRKL()(logits[:, :310], teacher.score(BATCH).detach(), batch.tokens, BATCH).sum()
    (gradient,) = torch.autograd.grad(expected, student.head.weight)
    torch.testing.assert_close(total, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found, gradient, rtol=1e-3, atol=1e-5)
    student.common = Common(310)
    assert torch.equal(student.score(BATCH), logits[:, :310])


@pytest.mark.parametrize("architecture", [tiny.ARCHITECTURES["llama"], MAMBA], ids=["decode loop", "generate"])
def test_ids_that_the_tokenizer_lacks_are_not_sampled(architecture, tokenizers):
    student, teacher = (padded(architecture, tokenizers["causal"], rows, 400) for rows in (420, 400))
    prompts = [TokenSequence(str(i), (5, 6), ()) for i in range(30)]
    for mixture in (None, teacher.mixture(0.3)):
        made = student.sample(prompts, Decoding(6), 0, mixture=mixture)
        assert max(max(response) for response in made) < 300
    student.common = Common()
    assert max(max(response) for response in student.sample(prompts, Decoding(6), 0)) >= 300
    student.common = Common(400)
    assert max(max(response) for response in student.sample(prompts, Decoding(3, beams=2), 0)) < 300


@pytest.fixture
def teacher_with_more_rows(tokenizer_folder, tmp_path, cache):
    tokenizer = TokenizerAdapter(load_tokenizer(str(tokenizer_folder)), "causal")
    padded(tiny.ARCHITECTURES["llama"], tokenizer, 320, None).save(tmp_path / "teacher")
    rows = [{"dialogue": f"the cat {i}", "summary": "sat <unk> on the mat"} for i in range(8)]
    (tmp_path / "data").mkdir()
    for split in ("train", "validation", "test"):
        (tmp_path / "data" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


@pytest.mark.parametrize("method", ["srkl", "minillm"])
def test_a_student_from_scratch_learns_from_a_teacher_with_more_rows(method, teacher_with_more_rows):
    folder = teacher_with_more_rows
    settings = short(
        training__steps=2,
        init_training__steps=2,
        training__batch_size=4,
        training__validations=1,
        models__teacher=folder / "teacher",
        models__student="scratch",
        models__tokenizer="teacher",
        models__finetune_teacher="false",
        models__student_config=json.dumps(tiny.ARCHITECTURES["llama"]),
        data__max_prompt_length=40,
        data__max_response_length=12,
    )
    options = ("--task", "samsum", "--method", method, "--models", "tiny-llama", "--device", "cpu")
    record = record_of("run", *options, *settings, "--data-dir", str(folder / "data"), "--out", str(folder / "out"))
    told = "the teacher's output layer has 320 entries, the student's 300: the first 300 of both are used"
    assert told in record.data.notes
    assert record.comparison_fields["entries"] == 300
    assert record.data.unwritten == Unwritten()


def test_what_the_tokenizer_cannot_write_is_told_and_recorded(teacher_with_more_rows, tokenizer_folder):
    """A word-piece tokenizer that knows few words, and drops case: references that it cannot give back are counted."""
    folder = teacher_with_more_rows
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=200, special_tokens=["<pad>", "<s>", "</s>", "<unk>"], show_progress=False
    )
    tokenizer.train_from_iterator(["the cat sat on the mat summarize : dialogue . conversation 0 1 2 3"] * 5, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    adapter = TokenizerAdapter(fast, "causal")
    padded(tiny.ARCHITECTURES["llama"], adapter, adapter.size, None).save(folder / "words")
    texts = ("the cat sat", "The cat sat", "the zebra sat", "the cat")
    rows = [{"dialogue": "the cat", "summary": text} for text in texts]
    for split in ("train", "validation", "test"):
        (folder / "data" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = [f"models.{side}={folder / 'words'}" for side in ("teacher", "student")]
    settings += ["models.tokenizer=teacher", "data.max_prompt_length=40", "data.max_response_length=12"]
    config, method = resolve(
        preset="tiny",
        task="samsum",
        method="kld",
        models="tiny-llama",
        device="cpu",
        data_dir=str(folder / "data"),
        assignments=settings,
    )
    context = prepare(config, method, ArtifactCache(folder / "cache", pytest.fail))
    # ROUGE-L looks at lower-case letters only: "The" comes back as it is seen, "zebra" does not come back at all
    assert adapter.text(adapter.response_ids("the zebra sat")) == "the sat"
    assert context.unwritten.references == {"validation": 1, "test": 1}
    unknown = sum(s.prompt.count(adapter.backend.unk_token_id) for s in context.sequences["test"]) + 1
    assert context.unwritten.tokens == dict.fromkeys(("train", "validation", "test"), unknown)
    told = "1 of 4 references do not come back from the tokenizer: no answer can score as they do"
    assert f"test: {told}" in context.notes
    assert any(note.startswith(f"test: {unknown} token") for note in context.notes)
