"""The authors' defects on demand, the auxiliary loss, and how both are configured."""

import dataclasses
import json
import os

import pytest
import torch

from baselines.sft import CrossEntropy
from bench.config.comparable import comparison_fields
from bench.config.fidelity import WORTH, Fidelity
from bench.config.resolve import resolve
from bench.system.errors import BenchError
from bench.training.auxiliary_loss import AuxiliaryLoss, LanguageModelling, encode_plain_text, load_plain_text
from bench.training.gradients import counted_tokens
from bench.training.trainer import Trainer
from distillm import OutputSource, SourceOptions, TokenSequence

EOS = PAD = 2
REFERENCE = TokenSequence("x", (1,), (5, 6, EOS))
SAMPLED = REFERENCE.with_response((5, 6, EOS), sampled_at_step=3)


def config(*assignments, method="srkl", task="samsum", preset="tiny"):
    return resolve(preset=preset, task=task, method=method, assignments=assignments)[0]


@pytest.mark.parametrize(
    ("fidelity", "pad", "expected"),
    [
        (Fidelity(), PAD, None),
        (Fidelity(sgo_first_token=True), PAD, [False, True, True]),
        (Fidelity(sgo_eos=True), PAD, [True, True, False]),
        (Fidelity(sgo_eos=True), 0, None),
        (Fidelity(sgo_first_token=True, sgo_eos=True), PAD, [False, True, False]),
    ],
)
def test_which_tokens_of_sgos_count(fidelity, pad, expected):
    assert counted_tokens([REFERENCE], fidelity, pad, EOS) is None
    both = counted_tokens([REFERENCE, SAMPLED], fidelity, pad, EOS)
    assert both == (None if expected is None else [[True] * 3, expected])


def test_uncounted_tokens_leave_the_loss_and_its_mean(make_job):
    losses = {}
    for name, fidelity in (("corrected", Fidelity()), ("faithful", Fidelity(sgo_first_token=True))):
        costs = []

        class Noting:
            needs_teacher = False

            def __call__(self, student_logits, teacher_logits, tokens, batch, costs=costs):
                costs.append((CrossEntropy()(student_logits, None, tokens, batch), [len(s.response) for s in batch]))
                return costs[-1][0]

        job = dataclasses.replace(make_job("llama", Noting(), "on-policy", steps=1, work=name), fidelity=fidelity)
        losses[name] = Trainer(job).fit().curve[0]["loss"], costs[0]
    (whole, (tokens, lengths)), (partial, _) = losses["corrected"], losses["faithful"]
    assert whole == pytest.approx(tokens.mean().item())
    kept = torch.cat([part[1:] for part in tokens.split(lengths)])
    assert partial == pytest.approx(kept.mean().item(), rel=1e-5)


@pytest.mark.parametrize("source", ["roll-outs", "contrastive"])
def test_sources_that_are_not_of_the_authors_loop_keep_all_tokens(source, make_job):
    options, curves = SourceOptions(rollouts=4, inner_epochs=1), []
    for name, fidelity in (("corrected", Fidelity()), ("faithful", Fidelity(sgo_first_token=True, sgo_eos=True))):
        job = make_job("llama", CrossEntropy(), source, options, steps=2, work=name)
        curves.append(Trainer(dataclasses.replace(job, fidelity=fidelity)).fit().curve)
    assert curves[0] == curves[1]


def test_replayed_on_policy_trains_on_older_responses(make_job):
    options = SourceOptions(capacity=8)
    job = make_job("llama", None, "on-policy", options, steps=8)
    source = OutputSource("on-policy", options, total_steps=8, batch_size=2, replays_fresh=True)
    state = Trainer(dataclasses.replace(job, output_source=source)).fit()
    assert state.tokens_generated > 0
    assert max(row["sgo_age"] for row in state.curve) > 0


def test_configuration():
    assert set(WORTH) == set(Fidelity.model_fields)
    assert not any(config().fidelity.model_dump().values())
    assert all(config("fidelity=faithful").fidelity.model_dump().values())
    one = config("fidelity.no_repeat_ngram=true")
    assert one.fidelity == Fidelity(no_repeat_ngram=True)
    keys = [comparison_fields({"config": c.canonical()}) for c in (config(), one)]
    assert keys[0] != keys[1]
    with pytest.raises(BenchError, match="fidelity: expected faithful, corrected or one defect"):
        config("fidelity=mostly")
    with pytest.raises(BenchError, match=r"did you mean 'no_repeat_ngram'|did you mean 'fidelity.no_repeat_ngram'"):
        config("fidelity.no_repeat_ngrm=true")


def test_plain_text_goes_with_the_method_and_not_into_the_comparison_key(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("a paragraph")

    def small(method, *more):
        return config(f"plain_text.file={text}", *more, method=method, preset="small")

    assert small("minillm").plain_text.weight == 1.0
    assert small("minillm").plain_text.kl_share == 0.5
    assert small("kld").plain_text.weight == 0.0
    assert small("distillm", "plain_text.weight=0").plain_text.weight == 0.0
    assert config(method="minillm").plain_text.weight == 0.0  # off for all methods at the tiny preset
    assert config("plain_text.weight=1", method="minillm").plain_text.weight == 1.0
    fields = [comparison_fields({"config": small(method).canonical()}) for method in ("minillm", "kld")]
    assert fields[0] == fields[1]
    longer = comparison_fields({"config": small("kld", "plain_text.max_length=32").canonical()})
    assert longer != fields[0]


def test_without_plain_text_the_term_is_left_out_or_asking_for_it_refused():
    assert config(method="minillm", task="iwslt").plain_text.weight == 0.0
    with pytest.raises(BenchError, match=r"there is no plain text for iwslt .*plain_text\.file=FILE"):
        config("plain_text.weight=1", method="minillm", task="iwslt")


def test_plain_text_files(tmp_path):
    text, records, empty = tmp_path / "a.txt", tmp_path / "a.jsonl", tmp_path / "b.txt"
    text.write_text("One.\n\nTwo.\n")
    records.write_text('{"text": "One."}\n{"text": ""}\n{"text": "Two."}\n')
    empty.write_text("\n")
    assert load_plain_text(str(text)) == load_plain_text(str(records)) == ["One.", "Two."]
    assert len(load_plain_text(None)) == len(set(load_plain_text(None)))
    for path, message in ((empty, "holds no text"), (tmp_path / "c.txt", "cannot be read")):
        with pytest.raises(BenchError, match=message):
            load_plain_text(str(path))


def test_only_line_feeds_end_a_paragraph_and_a_byte_order_mark_is_none(tmp_path):
    text = "a\u2028b\x0cc\x85d\x1ce"
    (tmp_path / "a.txt").write_bytes(f"\ufeff{text}\r\n\n{text}\n".encode())
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + json.dumps({"text": text}, ensure_ascii=False).encode())
    assert load_plain_text(str(tmp_path / "a.txt")) == [text, text]
    assert load_plain_text(str(tmp_path / "a.jsonl")) == [text]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ('{"text": ["a", "b"]}', "line 2: column 'text' holds list, expected text"),
        ('{"text": 7}', "line 2: column 'text' holds int, expected text"),
        ('{"text": false}', "line 2: column 'text' holds bool, expected text"),
        ('{"text": "a\\ud83d"}', "line 2: column 'text' holds half of a surrogate pair"),
        ('{"body": "a"}', "line 2: no column 'text'; found: body"),
    ],
)
def test_plain_text_records_hold_text(tmp_path, record, message):
    (tmp_path / "a.jsonl").write_text('{"text": "One."}\n' + record)
    with pytest.raises(BenchError, match=message):
        load_plain_text(str(tmp_path / "a.jsonl"))


def test_plain_text_that_is_no_file_is_refused_at_once(tmp_path):
    for name in ("a.txt", "a.jsonl"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(BenchError, match=f"{name}: .*it is a named pipe, not a file"):
            load_plain_text(str(tmp_path / name))


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_paragraphs_as_sequences(kind, tokenizers):
    texts = ["the cat sat on the mat and the dog sat on the cat", "a"]
    (sequence,) = encode_plain_text(texts, tokenizers[kind], 8)
    ids = tokenizers[kind].response_ids(texts[0])[:8]
    assert sequence.prompt + sequence.response == ids
    assert len(sequence.prompt) == (1 if kind == "causal" else 4)
    with pytest.raises(BenchError, match="no paragraph has 4 tokens"):
        encode_plain_text(["a"], tokenizers[kind], 8)


@pytest.mark.parametrize("kl_share", [0.0, 0.5])
def test_the_auxiliary_loss_adds_its_gradient(kl_share, make_job):
    def trained(weight, work):
        job = make_job("llama", CrossEntropy(), steps=2, learning_rate=1e-2, max_grad_norm=1e9, work=work)
        auxiliary = AuxiliaryLoss(LanguageModelling(kl_share), weight, job.train[4:], 2) if weight is not None else None
        state = Trainer(dataclasses.replace(job, auxiliary_loss=auxiliary)).fit()
        return state.curve, torch.cat([p.detach().flatten() for p in job.student.network.parameters()])

    without, nothing, with_it = trained(None, "a"), trained(0.0, "b"), trained(1.0, "c")
    assert torch.equal(without[1], nothing[1])
    assert not torch.equal(without[1], with_it[1])
    assert with_it[0][0]["plain_text_loss"] > 0
    assert with_it[0][0]["loss"] == without[0][0]["loss"]
    assert with_it[0][0]["gradient_norm"] != without[0][0]["gradient_norm"]
