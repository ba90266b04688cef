"""A pair that does not fit is refused before anything starts: by the real command, by `prepare`, by `--dry-run`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoConfig

from bench.config.resolve import resolve
from bench.experiment.checks import examine
from bench.experiment.context import prepare
from bench.models.language_model import LanguageModel
from bench.models.loading import load_tokenizer
from bench.models.tokenizer import TokenizerAdapter, train_tokenizer
from bench.system.artifacts import ArtifactCache
from bench.system.errors import BenchError
from tests import tiny
from tests.conftest import invoke

LENGTHS = {"data.max_prompt_length": 100, "data.max_response_length": 28}
LLAMA = tiny.ARCHITECTURES["llama"] | {"max_position_embeddings": 128}  # as many as a prompt and its response need
BART = {
    "model_type": "bart",
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "max_position_embeddings": 100,
}


@pytest.fixture(scope="module")
def models(tmp_path_factory, tokenizer_folder) -> Path:
    """Folders of models: one that fits, and ones that do not fit to it; beside them, data of a line a split."""
    root = tmp_path_factory.mktemp("models")
    (root / "data").mkdir()
    for split in ("train", "validation", "test"):
        row = {"id": split, "dialogue": "Ann: the cat sat on the mat", "summary": "the cat sat"}
        (root / "data" / f"{split}.jsonl").write_text(json.dumps(row) + "\n")
    tokenizers = tiny.tokenizers_in(tokenizer_folder)

    def save(name: str, architecture: dict, tokenizer: TokenizerAdapter, size: int | None = None) -> None:
        model = LanguageModel.from_scratch(architecture, tokenizer, tiny.CPU, 0)
        if size:
            model.network.resize_token_embeddings(size)
        model.save(root / name)

    train_tokenizer(["other words make other merges"] * 5, 300, root / "other-tokenizer")
    other = TokenizerAdapter(load_tokenizer(str(root / "other-tokenizer")), "causal")
    save("fits", LLAMA, tokenizers["causal"])
    save("other-words", LLAMA, other)
    save("larger", LLAMA, tokenizers["causal"], 320)
    save("added", LLAMA, tokenizers["causal"])
    grown = load_tokenizer(str(tokenizer_folder))
    grown.add_special_tokens({"pad_token": "<added>"})
    grown.save_pretrained(root / "added")
    save("short", LLAMA | {"max_position_embeddings": 127}, tokenizers["causal"])
    save("t5", tiny.ARCHITECTURES["t5"], tokenizers["seq2seq"])
    save("bart", BART, tokenizers["seq2seq"])
    for name, positions in (("sees-pictures", 128), ("sees-pictures-short", 127)):  # their text model is nested
        text = {"vocab_size": 300, "max_position_embeddings": positions}
        AutoConfig.for_model("gemma3", text_config=text).save_pretrained(root / name)
        tokenizers["causal"].backend.save_pretrained(root / name)
    return root


def assigned(models: Path, changes: dict[str, object]) -> list[str]:
    """`KEY=VALUE` of a pair of the folder `fits` twice, with changes; names of folders become paths."""
    settings = {"models.teacher": "fits", "models.student": "fits", "models.tokenizer": "teacher", "data.dir": "data"}
    settings |= LENGTHS | changes
    return [
        f"{key}={models / value if isinstance(value, str) and (models / value).is_dir() else json.dumps(value)}"
        for key, value in settings.items()
    ]


def pair(kind: str) -> str:
    return "tiny-llama" if kind == "causal" else "tiny-t5"


def resolved(models: Path, kind: str = "causal", **changes: object):
    changes = {name.replace("__", "."): value for name, value in changes.items()}
    assignments = assigned(models, changes)
    return resolve(preset="tiny", task="samsum", method="kld", models=pair(kind), device="cpu", assignments=assignments)


SCRATCH = {"models.teacher": "scratch", "models.student": "scratch", "models.tokenizer": "fits"}
T5 = tiny.ARCHITECTURES["t5"]


def from_scratch(student: dict) -> dict:
    return {"models.student": "scratch", "models.student_config": student}


REFUSED = {
    "vocabularies": (
        "causal",
        {"models.student": "other-words"},
        r"have different vocabularies \(\d+ tokens in common",
    ),
    "vocabulary-of-the-teacher": (
        "causal",
        {"models.teacher": "other-words", "models.tokenizer": "fits"},
        r"\(teacher\) .*other-words .*have different vocabularies",
    ),
    "a-token-added-without-resizing": (
        "causal",
        {"models.teacher": "added", "models.student": "added"},
        r"the tokenizer has 301 entries, the teacher's embeddings or output layer 300 rows: .*resize_token_embeddings",
    ),
    "positions-of-the-student": (
        "causal",
        {"models.student": "short"},
        r"the student has 127 positions, a prompt and its response take up to 128: lower data.max_prompt_length "
        r"\(100\) or data.max_response_length \(28\)",
    ),
    "positions-of-the-teacher": ("causal", {"models.teacher": "short"}, "the teacher has 127 positions"),
    "positions-of-a-text-model": (
        "causal",
        {"models.teacher": "sees-pictures", "models.student": "sees-pictures-short"},
        "the student has 127 positions",
    ),
    "kinds": ("seq2seq", {"models.teacher": "t5"}, "fits is a causal model, the pair is seq2seq"),
    "kind-of-the-teacher": ("causal", {"models.teacher": "t5"}, "t5 is a seq2seq model, the pair is causal"),
    "positions-from-scratch": (
        "causal",
        SCRATCH | {"models.teacher_config": LLAMA, "models.student_config": LLAMA | {"max_position_embeddings": 127}},
        "the student has 127 positions",
    ),
    "starts-of-decoders": (
        "seq2seq",
        {
            "models.teacher": "bart",
            "models.student": "scratch",
            "models.student_config": T5 | {"decoder_start_token_id": 5},
        },
        "the teacher's decoder starts from token 0, the student's from 5: give both the same",
    ),
    "heads-that-do-not-divide": ("causal", from_scratch(LLAMA | {"num_attention_heads": 3}), "cannot make .*multiple"),
    "no-heads": ("causal", from_scratch(LLAMA | {"num_attention_heads": 0}), "cannot make a causal model from"),
    "a-misspelt-field": ("causal", from_scratch(LLAMA | {"hiden_size": 16}), "no field 'hiden_size'; .*'hidden_size'"),
    "no-attention-in-a-hybrid": (
        "causal",
        from_scratch(
            {"model_type": "recurrent_gemma", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
            | {"num_attention_heads": 2, "lru_width": 16}
        ),
        "cannot make a causal model from",
    ),
    "reads-what-comes-after": (
        "causal",
        from_scratch(
            {"model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
            | {"intermediate_size": 16, "max_position_embeddings": 128}
        ),
        "see those that come after",
    ),
    "key-value-heads": ("causal", from_scratch(LLAMA | {"num_key_value_heads": 3}), "cannot make a causal model from"),
    "heads-of-another-family": (
        "causal",
        from_scratch(tiny.ARCHITECTURES["gpt2"] | {"n_head": 3, "n_positions": 128}),
        "cannot make .*divisible",
    ),
    "no-heads-in-an-encoder-decoder": (
        "seq2seq",
        {"models.teacher": "t5", "models.student": "scratch", "models.student_config": T5 | {"num_heads": 0}},
        "cannot make a seq2seq model from",
    ),
    "positions-of-an-encoder": (
        "seq2seq",
        {"models.teacher": "t5", "models.student": "bart", "data.max_prompt_length": 101},
        "the student has 100 positions, prompts take up to 101",
    ),
    "positions-of-a-decoder": (
        "seq2seq",
        {"models.teacher": "t5", "models.student": "bart", "data.max_response_length": 101},
        "the student has 100 positions, responses take up to 101",
    ),
}
refused = pytest.mark.parametrize(("kind", "changes", "message"), REFUSED.values(), ids=REFUSED)


@refused
def test_prepare_refuses_a_pair_that_does_not_fit(kind, changes, message, models, tmp_path):
    config, method = resolved(models, kind, **changes)
    with pytest.raises(BenchError, match=message):
        prepare(config, method, ArtifactCache(tmp_path / "cache", pytest.fail))
    assert not (tmp_path / "cache").exists()


@refused
def test_the_command_refuses_a_pair_that_does_not_fit(kind, changes, message, models, tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    settings = [part for one in assigned(models, changes) for part in ("--set", one)]
    options = ("--preset", "tiny", "--task", "samsum", "--method", "kld", "--models", pair(kind), "--device", "cpu")
    result = invoke("run", *options, *settings, "--out", str(tmp_path / "out"))
    assert result.exit_code == 2, result.output
    (error,) = (line for line in result.stderr.splitlines() if line.startswith("error: "))
    with pytest.raises(BenchError, match=message):
        raise BenchError(error)
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


@refused
def test_what_is_in_local_folders_is_seen_without_any_work(kind, changes, message, models):
    with pytest.raises(BenchError, match=message):
        examine(resolved(models, kind, **changes)[0])


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("causal", {}),
        ("causal", SCRATCH | {"models.teacher_config": LLAMA, "models.student_config": LLAMA}),
        ("causal", {"models.teacher": "larger", "models.student": "larger"}),
        ("causal", {"models.student": "larger"}),
        ("causal", {"models.teacher": "larger"} | from_scratch(LLAMA)),
        ("causal", {"models.teacher": "sees-pictures", "models.student": "larger"}),
        ("causal", {"models.teacher": "sees-pictures"}),
        ("seq2seq", {"models.teacher": "t5", "models.student": "bart"}),
        # relative positions: there is no limit
        ("seq2seq", {"models.teacher": "t5", "models.student": "t5", "data.max_prompt_length": 1000}),
    ],
)
def test_what_fits_is_accepted(kind, changes, models, tmp_path):
    config, method = resolved(models, kind, **changes)
    notes = examine(config)
    context = prepare(config, method, ArtifactCache(tmp_path / "cache", pytest.fail))
    assert context.sequences["train"]
    differ = [changes.get(f"models.{side}") == "larger" for side in ("teacher", "student")]
    told = tuple(note for note in notes if "the first 300 of both are used" in note)
    assert len(told) == (len(set(differ)) > 1)
    assert set(told) <= set(context.notes)
    assert context.common.entries == (300 if told else None)
    assert list(tmp_path.iterdir()) == []  # nor does it leave anything


def test_a_model_of_the_hub_is_not_looked_at_by_a_dry_run(models, monkeypatch):
    """It would have to be downloaded; what is here is checked all the same."""
    monkeypatch.setattr(AutoConfig, "from_pretrained", offline(AutoConfig.from_pretrained))
    examine(resolved(models, models__teacher="someone/something", models__tokenizer="fits")[0])
    with pytest.raises(BenchError, match="the student has 127 positions"):
        examine(resolved(models, models__teacher="someone/something", models__student="short")[0])


def offline(from_pretrained):
    def local_only(name, *args, **kwargs):
        assert Path(name).is_dir(), f"{name} was asked for"
        return from_pretrained(name, *args, **kwargs)

    return local_only
