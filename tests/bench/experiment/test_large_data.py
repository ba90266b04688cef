"""Large splits are encoded once, what metrics leave out is told, and metrics can be chosen without a task file."""

import json

import pytest

from bench.config.resolve import resolve
from bench.experiment import context
from bench.experiment.context import RunContext, prepare
from bench.experiment.identity import task_key
from bench.models.tokenizer import TokenizerAdapter
from bench.system.artifacts import ArtifactCache
from bench.system.errors import BenchError


@pytest.fixture
def prepared(tmp_path, tokenizer_folder):
    """A function from `--set` assignments to the context of a run on SAMSum in German."""
    for split, size in (("train", 40), ("validation", 5), ("test", 4)):
        rows = [
            {"dialogue": f"Wer kommt {split} {i}?", "summary": f"Größe {i}" if i % 2 else "Привет"} for i in range(size)
        ]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def make(*assignments: str, told=None) -> RunContext:
        given = (f"models.tokenizer={tokenizer_folder}", "data.max_prompt_length=40", "data.max_response_length=20")
        config, method = resolve(
            preset="tiny",
            task="samsum",
            method="srkl",
            models="tiny-llama",
            data_dir=str(tmp_path),
            device="cpu",
            assignments=(*given, *assignments),
        )
        cache = ArtifactCache(tmp_path / "cache", lambda note: None)
        return prepare(config, method, cache, progress=told or (lambda *one: None))

    return make


def test_a_large_split_is_encoded_once_and_the_same(prepared, monkeypatch):
    small = prepared()
    monkeypatch.setattr(context, "_KEPT_FROM", 40)
    told, calls, encode = [], [], TokenizerAdapter.encode
    monkeypatch.setattr(TokenizerAdapter, "encode", lambda *a, **k: calls.append(len(a[1])) or encode(*a, **k))
    first, again = prepared(told=lambda *one: told.append(one)), prepared()
    assert calls == [40, 5, 4, 5, 4]
    assert told == [(40, 40, ""), (5, 5, ""), (4, 4, "")]
    for one in (first, again):
        assert list(one.sequences["train"]) == list(small.sequences["train"])
        assert (one.run_id, one.notes) == (small.run_id, small.notes)
    prepared("data.max_response_length=19")
    prepared("fidelity.train_without_bos=true")
    assert calls[5:] == [40, 5, 4, 40, 5, 4]


def test_a_tokenizer_is_trained_on_so_many_examples_at_most(prepared, monkeypatch):
    whole = prepared("models.tokenizer=trained")
    monkeypatch.setattr(context, "_TOKENIZER_TRAINED_ON", 15)
    part = prepared("models.tokenizer=trained")
    assert "the tokenizer was trained on 14 of 40 examples" in part.notes  # every third
    assert not [note for note in whole.notes if "tokenizer was trained" in note]
    assert part.tokenizer.fingerprint != whole.tokenizer.fingerprint
    assert part.run_id != whole.run_id


def test_what_rouge_l_leaves_out_is_in_the_notes_until_another_metric_is_chosen(prepared):
    usual, chosen = prepared(), prepared("evaluation.metrics=[rouge_l_unicode, chrf]")
    (validation, test) = [note for note in usual.notes if "ROUGE-L" in note]
    assert test.startswith(
        "test: ROUGE-L reads a-z and 0-9 only: 100% of the references have letters that it leaves out"
    )
    assert "50% have no other and score 0 whatever the answer" in test
    assert "60% have no other" in validation
    assert not [note for note in chosen.notes if "ROUGE-L" in note]
    assert [metric.name for metric in chosen.metrics] == ["rouge_l_unicode", "chrf"]
    assert [info.label for info in chosen.metric_infos] == ["ROUGE-L (Unicode)", "chrF"]
    assert chosen.run_id != usual.run_id
    assert task_key(usual.task) == {}
    assert task_key(chosen.task) != {}


def test_metrics_that_are_not_chosen_leave_configurations_as_they_were(prepared):
    assert "metrics" not in prepared().config.canonical()["evaluation"]
    assert prepared("evaluation.metrics=[chrf]").config.canonical()["evaluation"]["metrics"] == ["chrf"]
    for wrong, words in (
        ("[rouge]", "did you mean 'rouge_l'"),
        ("[bleu,bleu]", "each metric once"),
        ("[]", "at least one"),
    ):
        with pytest.raises(BenchError, match=rf"evaluation\.metrics: .*{words}"):
            prepared(f"evaluation.metrics={wrong}")
