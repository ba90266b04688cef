"""Runs on tasks of the user's: both metrics are recorded, and the run's id follows what the files say."""

import json
import random
import shutil

import pytest
from rich.console import Console
from transformers import LlamaConfig, LlamaForCausalLM

from bench.config.comparable import comparison_fields, differences
from bench.config.resolve import resolve
from bench.experiment.context import RunContext, prepare
from bench.experiment.run import run
from bench.experiment.workshop import Workshop
from bench.models.loading import load_tokenizer
from bench.record.store import Store
from bench.system.artifacts import ArtifactCache
from bench.system.errors import BenchError
from bench.system.progress import Reporter

METRIC = """
class Words:
    name, label, score_of_sum = "words", "words", None

    def signature(self, references):
        return "words of the response, mean over examples"

    def example(self, prediction, references):
        return float(len(prediction.split()))
"""
NEWS = """
name: news
metrics: [chrf, "words.py:Words"]
prompt_columns: [document]
response_column: summary
templates: {short: "Summarize: {document}"}
"""
CHAT = "name: chat\nmetrics: [rouge_l]\nmessages: true\n"
TEMPLATE = "{% for one in messages %}<s>{{ one['role'] }}: {{ one['content'] }}</s>{% endfor %}<s>assistant: "
TRAINING = {"steps": 2, "batch_size": 4, "warmup_steps": 0, "validations": 1, "select_by": "metric"}
SETTINGS = {
    "teacher_training": TRAINING,
    "init_training": TRAINING,
    "training": TRAINING,
    "evaluation.seeds": [10],
    "data.max_response_length": 8,
}


@pytest.fixture
def folder(tmp_path, tokenizer_folder):
    """Two tasks with their data, and a tokenizer with a chat template."""
    rng = random.Random(0)
    for task in ("news", "chat"):
        (tmp_path / task).mkdir()
    for split, size in (("train", 8), ("validation", 3), ("test", 3)):
        texts = [f"The {rng.choice(['cat', 'dog'])} no. {rng.randrange(10**6)} sat." for _ in range(size)]
        news = [{"document": text, "summary": "It sat."} for text in texts]
        chat = [[{"role": "user", "content": t}, {"role": "assistant", "content": "It sat."}] for t in texts]
        for task, rows in (("news", news), ("chat", [{"messages": one} for one in chat])):
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (tmp_path / task / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    (tmp_path / "words.py").write_text(METRIC)
    (tmp_path / "news.yaml").write_text(NEWS)
    (tmp_path / "chat.yaml").write_text(CHAT)
    tokenizer = load_tokenizer(str(tokenizer_folder))
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    return tmp_path


@pytest.fixture
def resolved(folder):
    """A function from a task file and further settings to a configuration and its method."""

    def make(task, models="tiny-llama", **settings):
        given = [f"{key}={json.dumps(value)}" for key, value in (SETTINGS | settings).items()]
        return resolve(
            preset="tiny",
            task=str(folder / task),
            method="srkl",
            models=models,
            device="cpu",
            data_dir=str(folder / task.rpartition("/")[2].removesuffix(".yaml")),
            assignments=given,
        )

    return make


@pytest.fixture
def workshop(folder) -> Workshop:
    return Workshop(ArtifactCache(folder / "cache", lambda note: None), Reporter(Console(stderr=True), quiet=True))


@pytest.fixture
def prepared(resolved, workshop):
    """A function as `resolved`, to the run's context."""

    def make(*task, **settings) -> RunContext:
        return prepare(*resolved(*task, **settings), workshop.cache)

    return make


def test_a_run_records_every_metric_and_selects_by_the_first(folder, resolved, workshop):
    record = run(*resolved("news.yaml"), Store(folder / "out"), workshop).record
    assert (record.task, record.config.task_file) == ("news", str(folder / "news.yaml"))
    assert record.run_id.startswith("news-srkl-dataset-s10-")
    assert [metric.label for metric in record.metrics] == ["chrF", "words"]
    assert list(record.scores["test"].metrics) == ["chrf", "words"]
    assert record.metrics[1].find().example("two words", ["x"]) == 2.0
    rows = Store(folder / "out").predictions(record)
    mean = sum(row["scores"]["words"] for row in rows) / len(rows)
    assert record.scores["test"].metrics["words"].mean == pytest.approx(mean)
    assert sum(len(row["prediction"].split()) for row in rows) / len(rows) == pytest.approx(mean)


def test_a_runs_id_follows_what_the_files_say_and_not_where_they_are(folder, prepared):
    before = prepared("news.yaml")
    (folder / "elsewhere").mkdir()
    for name, text in (("words.py", METRIC), ("news.yaml", "# moved\n" + NEWS)):
        (folder / "elsewhere" / name).write_text(text)
    moved = prepared("elsewhere/news.yaml")
    assert moved.config.task_file != before.config.task_file
    assert moved.run_id == before.run_id
    (folder / "elsewhere" / "words.py").write_text(METRIC + "# another\n")
    assert prepared("elsewhere/news.yaml").run_id != before.run_id
    (folder / "news.yaml").write_text(NEWS.replace("chrf, ", ""))
    assert prepared("news.yaml").run_id != before.run_id


def test_runs_compare_whose_data_and_models_lie_elsewhere(folder, prepared):
    size = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    vocabulary = len(load_tokenizer(str(folder / "tokenizer")))
    LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, **size)).save_pretrained(folder / "student")
    load_tokenizer(str(folder / "tokenizer")).save_pretrained(folder / "student")
    for name in ("news", "tokenizer", "student"):
        shutil.copytree(folder / name, folder / "elsewhere" / name)

    def fields(place):
        paths = {f"models.{name}": str(place / name) for name in ("tokenizer", "student")}
        return comparison_fields(prepared("news.yaml", **paths, **{"data.dir": str(place / "news")}).run_key)

    here = fields(folder)
    assert here == fields(folder / "elsewhere")
    with (folder / "elsewhere" / "news" / "test.jsonl").open("a") as file:
        file.write(json.dumps({"document": "One more.", "summary": "It sat."}) + "\n")
    assert [one.key for one in differences(here, fields(folder / "elsewhere"))] == ["data"]
    LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, **size)).save_pretrained(folder / "student")
    assert [one.key for one in differences(here, fields(folder))] == ["models.student"]


def test_a_chat_set_runs_and_its_template_is_part_of_the_runs_id(folder, resolved, prepared, workshop):
    own = {"models.tokenizer": str(folder / "tokenizer")}
    first = prepared("chat.yaml", **own)
    text = first.tokenizer.backend.decode(list(first.sequences["test"][0].prompt))
    assert text == f"<s>user: {first.data.splits['test'][0].messages[0].content}</s><s>assistant: "
    record = run(*resolved("chat.yaml", **own), Store(folder / "out"), workshop).record
    assert (record.run_id, record.scores["test"].examples) == (first.run_id, 3)

    template = next((folder / "tokenizer").glob("chat_template*"))
    template.write_text(TEMPLATE.replace("assistant: ", "reply: "))
    assert prepared("chat.yaml", **own).run_id != first.run_id


def test_a_chat_set_with_a_tokenizer_made_here_is_refused_before_any_work(folder, resolved, workshop):
    with pytest.raises(BenchError, match=r"has no chat template"):
        run(*resolved("chat.yaml"), Store(folder / "out"), workshop)
    assert not (folder / "out").exists()


def test_what_a_users_task_needs_is_told_before_any_work(folder):
    config, _ = resolve(preset="tiny", task=str(folder / "news.yaml"), method="srkl", data_dir=str(folder))
    assert config.models.name == "tiny-llama"  # the preset's own for whatever task
    with pytest.raises(BenchError, match=r"news: no synthetic data ships for this task; .*--data-dir DIR"):
        resolve(preset="tiny", task=str(folder / "news.yaml"), method="srkl", models="tiny-t5")
    with pytest.raises(BenchError, match=r"news: the task names no data set on the hub"):
        resolve(preset="small", task=str(folder / "news.yaml"), method="srkl", models="tiny-t5")
    with pytest.raises(BenchError, match=r"task_file cannot be set: choose it with --task"):
        resolve(preset="tiny", task="samsum", method="srkl", assignments=["task_file=x.yaml"])
