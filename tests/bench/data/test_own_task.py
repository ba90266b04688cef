"""Tasks from outside the package: the examples of docs/tasks-and-metrics.md, and others like them."""

import json
import re
from pathlib import Path

import pytest

from bench.config.sections import DataConfig
from bench.data import DataError, Message, find_task, load_task
from bench.experiment.examples import examples_of
from bench.metrics.registry import find_metrics
from bench.models.tokenizer import LengthLimits, TokenizerAdapter
from bench.system.errors import BenchError

PAGE = Path(__file__).parents[3] / "docs" / "tasks-and-metrics.md"
FILES = dict(
    re.findall(r"^`([\w./]+)`\n\n```\w+\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
)
"""The page's code blocks by the file name above them."""

CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'tool' %}{{ raise_exception('no tools here') }}{% endif %}"
    "<s>{{ message['role'] }}: {{ message['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant: {% endif %}"
)


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A folder with the page's files; its one record stands in every split, under words of its own."""
    assert sorted(FILES) == [
        "chat.yaml",
        "chats/train.jsonl",
        "data/train.jsonl",
        "news.yaml",
        "scored.yaml",
        "words.py",
    ]
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
        if name.endswith("train.jsonl"):
            for split in ("validation", "test"):
                other = text.replace("river", f"river of {split}")
                (tmp_path / name).with_name(f"{split}.jsonl").write_text(other, encoding="utf-8")
    return tmp_path


def write(folder: Path, record: dict, name: str = "train") -> Path:
    folder.mkdir(exist_ok=True)
    for split in ("train", "validation", "test"):
        (folder / f"{split}.jsonl").write_text(json.dumps(record | {"id": split}) + "\n", encoding="utf-8")
    return folder


# --- columns


def test_a_task_of_ones_own_loads_with_two_metrics(page: Path) -> None:
    spec = find_task(str(page / "news.yaml"))
    data = load_task(spec, data_dir=page / "data")
    assert (data.task, data.template, data.overlap["train+test"]) == ("news", "short", 0)
    example = data.splits["train"][0]
    assert example.prompt == "Summarize: The river rose by two metres overnight. Forty families left their homes."
    assert example.references == ("A flood drove forty families out.",)
    assert [metric.label for metric in find_metrics(spec.metrics)] == ["ROUGE-L", "chrF"]
    assert examples_of(str(page / "news.yaml"), config(page / "data")).fingerprint() == data.fingerprint()


def config(folder: Path) -> DataConfig:
    return DataConfig(dir=str(folder), max_prompt_length=10, max_response_length=10)


def test_a_metric_of_ones_own_is_found_beside_the_task_file(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(page.parent)  # the path is seen from the task file
    rouge, mine = find_metrics(find_task(f"{page.name}/scored.yaml").metrics)
    assert (rouge.name, mine.name) == ("rouge_l", "known_words")
    assert mine.example("A flood and a storm", ["A flood drove forty families out."]) == 40.0


def test_other_spellings_nested_columns_optional_ones_and_further_test_sets(tmp_path: Path) -> None:
    (tmp_path / "qa.yaml").write_text(
        "name: qa\n"
        "metrics: [exact_match]\n"
        "prompt_columns: [{names: [item.question, q]}, {names: [hint], optional: true}]\n"
        "response_column: {names: [answers, a]}\n"
        'templates: {plain: {text: "{question} ({hint})", without_optional: "{question} {{?}}"}, other: "{question}"}\n'
        "template: plain\n"
        "folders: [mine]\n"
        "evaluation_only: [{name: hard, folders: [hard], labels: {'*v1*': Hard, '*': Harder}}]\n"
    )
    write(tmp_path / "mine", {"q": "How many?", "a": "Two."})
    write(tmp_path / "hard", {"item": {"question": "Who?"}, "hint": "a king", "answers": ["Lear", "Macbeth"]})
    data = load_task(str(tmp_path / "qa.yaml"), data_dir=tmp_path)
    assert data.splits["train"][0].prompt == "How many? {?}"
    assert (data.splits["hard"][0].prompt, data.label("hard")) == ("Who? (a king)", "Harder")
    assert data.splits["hard"][0].references == ("Lear", "Macbeth")


def test_a_task_without_data_says_what_to_add(page: Path) -> None:
    spec = find_task(str(page / "news.yaml"))
    with pytest.raises(DataError, match=r"news: no synthetic data ships for this task; .*--data-dir DIR$"):
        load_task(spec)
    with pytest.raises(DataError, match=r"news: the task names no data set on the hub \(hub\.id\); .*--data-dir"):
        load_task(spec, hub=True)
    (page / "news.yaml").write_text(FILES["news.yaml"] + "hub: {id: EdinburghNLP/xsum}\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"--set data\.hub=true for EdinburghNLP/xsum"):
        load_task(str(page / "news.yaml"))


def test_without_a_validation_file_the_message_says_how_to_make_one(page: Path) -> None:
    (page / "data" / "validation.jsonl").unlink()
    with pytest.raises(DataError, match=r"no validation file for news") as caught:
        load_task(str(page / "news.yaml"), data_dir=page / "data")
    assert "move about one in twenty records of train" in str(caught.value)


# --- conversations


def chat_tokenizer(backend):
    backend.chat_template = CHAT_TEMPLATE
    return backend


def test_a_chat_set_loads_and_the_tokenizers_template_makes_its_prompts(page: Path, backend) -> None:
    data = load_task(str(page / "chat.yaml"), data_dir=page / "chats")
    assert data.template == "chat"
    example = data.splits["train"][0]
    assert example.messages == (Message("user", "Name a river in France."),)
    assert (example.prompt, example.references) == ("user: Name a river in France.", ("The Loire.",))

    adapter = TokenizerAdapter(chat_tokenizer(backend), "causal")
    (sequence,), _ = adapter.encode(data.splits["train"], LengthLimits(200, 200), drop_long=True)
    expected = "<s>user: Name a river in France.</s><s>assistant: "
    assert backend.decode(list(sequence.prompt)) == expected
    assert sequence.prompt[0] == backend.bos_token_id  # the template's marks are tokens, and there are no others
    assert backend.decode(list(sequence.response)) == "The Loire.</s>"


def test_a_longer_conversation_is_a_prompt_up_to_its_last_message(page: Path, backend) -> None:
    turns = [("system", "Be brief."), ("user", "Hi."), ("assistant", "Hello."), ("user", "And?"), ("assistant", "Bye.")]
    messages = [{"role": role, "content": content} for role, content in turns]
    folder = write(page / "long", {"messages": messages, "references": ["Bye.", "See you."]})
    example = load_task(str(page / "chat.yaml"), data_dir=folder).splits["test"][0]
    assert example.references == ("Bye.", "See you.")
    adapter = TokenizerAdapter(chat_tokenizer(backend), "causal")
    (sequence,), _ = adapter.encode((example,), LengthLimits(200, 200), drop_long=True)
    assert backend.decode(list(sequence.prompt)) == (
        "<s>system: Be brief.</s><s>user: Hi.</s><s>assistant: Hello.</s><s>user: And?</s><s>assistant: "
    )


def test_the_fingerprint_covers_who_said_what(page: Path) -> None:
    prints = set()
    for role in ("user", "system"):
        for turns in ([(role, "user: x")], [(role, "x")]):
            messages = [{"role": who, "content": said} for who, said in [*turns, ("assistant", "Yes.")]]
            folder = write(page / "prints", {"messages": messages})
            prints.add(load_task(str(page / "chat.yaml"), data_dir=folder).fingerprint())
    assert len(prints) == 4


def test_a_tokenizer_without_a_chat_template_is_refused_with_what_to_do(page: Path, backend) -> None:
    data = load_task(str(page / "chat.yaml"), data_dir=page / "chats")
    adapter = TokenizerAdapter(backend, "causal")
    with pytest.raises(BenchError, match=r"has no chat template.*models\.tokenizer=.*prompt_columns"):
        adapter.encode(data.splits["train"], LengthLimits(200, 200), drop_long=True)


def test_a_conversation_that_the_template_refuses_is_told(page: Path, backend) -> None:
    messages = [{"role": "tool", "content": "42"}, {"role": "assistant", "content": "Two."}]
    data = load_task(str(page / "chat.yaml"), data_dir=write(page / "tools", {"messages": messages}))
    with pytest.raises(BenchError, match=r"refuses messages by tool: no tools here"):
        TokenizerAdapter(chat_tokenizer(backend), "causal").encode(
            data.splits["train"], LengthLimits(200, 200), drop_long=True
        )


ASKED = {"role": "user", "content": "Why?"}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"document": "d"}, r"no column 'messages', which the task says its records have; found: document, id"),
        ({"messages": "Why?"}, r"column 'messages' holds 'Why\?', expected a list of messages"),
        ({"messages": []}, r"column 'messages' holds \[\], expected a list of messages"),
        ({"messages": [ASKED]}, r"the last message is by 'user', expected 'assistant'"),
        ({"messages": [{"from": "human", "value": "Why?"}]}, r"message 1: expected role and content, found \{'from'"),
        (
            {"messages": [ASKED | {"content": [{"type": "text"}]}]},
            r"column 'messages\.1\.content' holds list, expected",
        ),
    ],
)
def test_malformed_conversations_are_named_with_their_place(page: Path, record: dict, message: str) -> None:
    folder = write(page / "malformed", record)
    with pytest.raises(DataError, match=message) as caught:
        load_task(str(page / "chat.yaml"), data_dir=folder)
    assert f"{folder / 'train.jsonl'}, line 1" in str(caught.value)


def test_conversations_without_question_or_answer_are_skipped(page: Path) -> None:
    folder = page / "chats"
    alone = {"id": "a", "messages": [{"role": "assistant", "content": "Hello."}]}
    silent = {"id": "b", "messages": [ASKED, {"role": "assistant", "content": None}]}
    with (folder / "train.jsonl").open("a", encoding="utf-8") as file:
        file.write(f"{json.dumps(alone)}\n{json.dumps(silent)}\n")
    data = load_task(str(page / "chat.yaml"), data_dir=folder)
    assert len(data.splits["train"]) == 1
    assert "train: 1 record without messages before the response skipped (id a)" in data.notes
    assert "train: 1 record without response skipped (id b)" in data.notes


def test_conversations_for_a_task_with_columns_are_named_for_what_they_are(page: Path) -> None:
    with pytest.raises(DataError, match=r"no column 'document'; found: messages; .*messages: true"):
        load_task(str(page / "news.yaml"), data_dir=page / "chats")
