"""Task files: what is wrong is told with file and key; names, entry points, and what a task's identity covers."""

import sys
from pathlib import Path

import pytest
import yaml

from bench.data import TASKS, find_task, task_of, tasks
from bench.data.registry import ENTRY_POINTS
from bench.system.errors import BenchError

GOOD = {
    "name": "xsum",
    "metrics": ["rouge_l", "chrf"],
    "prompt_columns": ["document"],
    "response_column": "summary",
    "templates": {"plain": "Summarize: {document}"},
}
HINT = {"names": ["hint"], "optional": True}
TWO = {"a": "{document}", "b": "{document}"}


def write(path: Path, values: object) -> str:
    path.write_text(values if isinstance(values, str) else yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nam": "x"}, r"unknown key 'nam': did you mean 'name'\?"),
        ({"name": ...}, r"name: is missing"),
        ({"name": "my task"}, r"name: use letters, digits, - and _, got 'my task'"),
        ({"name": "samsum"}, r"name: a task named 'samsum' exists already"),
        ({"name": 5}, r"name: .*string, got 5"),
        ({"metrics": []}, r"metrics: expected at least one value"),
        ({"metrics": ["rouge"]}, r"metrics: unknown metric 'rouge': did you mean 'rouge_l'"),
        ({"metrics": ["chrf", "chrf"]}, r"metrics: each metric once"),
        ({"metrics": "chrf"}, r"metrics: expected a list such as \[a, b\], got 'chrf'"),
        ({"metrics": ["absent.py:MINE"]}, r"metrics: there is no file .*absent\.py"),
        ({"metrics": [3]}, r"metrics\.0: .*string, got 3"),
        ({"prompt_columns": ...}, r"prompt_columns: is missing \(a chat set .* has messages: true instead\)"),
        ({"prompt_columns": "document"}, r"prompt_columns: expected a list such as \[a, b\], got 'document'"),
        ({"prompt_columns": [{"nams": ["document"]}]}, r"unknown key 'prompt_columns\.0\.nams': did you mean"),
        ({"prompt_columns": ["a.document", "document"]}, r"prompt_columns: two columns have one name"),
        ({"response_column": ...}, r"response_column: is missing"),
        ({"response_column": {"names": []}}, r"response_column\.names: expected at least one value"),
        ({"response_column": {"names": ["summary"], "optinal": True}}, r"unknown key 'response_column\.optinal': did"),
        ({"templates": ...}, r"templates: is missing"),
        ({"templates": {"plain": "Summarize: {documnt}"}}, r"templates\.plain\.text: \{documnt\} is none .*'document'"),
        (
            {"templates": {"plain": "Summarize: document"}},
            r"templates\.plain\.text: the prompt column 'document' is not",
        ),
        ({"templates": {"plain": "{document"}}, r"templates\.plain\.text: expected '\}'.*write \{\{ and \}\}"),
        ({"templates": {"plain": {"txt": "{document}"}}}, r"unknown key 'templates\.plain\.txt': did you mean"),
        (
            {
                "prompt_columns": ["document", HINT],
                "templates": {"p": {"text": "{document}", "without_optional": "{hint}"}},
            },
            r"templates\.p\.without_optional: \{hint\} is none",
        ),
        ({"templates": TWO}, r"template: is missing; say which one is the default: a, b"),
        ({"templates": TWO, "template": "c"}, r"template: unknown template 'c'"),
        ({"hub": {"id": "a/b", "conf": "x"}}, r"unknown key 'hub\.conf': did you mean 'hub\.config'"),
        ({"hub": "a/b"}, r"hub: expected an object such as \{key: value\}, got 'a/b'"),
        ({"hub": {"id": "a/b", "train_split_sizes": {"train": 9}}}, r"hub\.train_split_sizes\.validation: is missing"),
        ({"evaluation_only": [{"name": "hard"}]}, r"evaluation_only\.0\.folders: is missing"),
        ({"evaluation_only": [{"name": "test", "folders": ["t"]}]}, r"evaluation_only: there is a split or set 'test'"),
        ({"messages": True}, r"prompt_columns: not with messages: true"),
        ({"templates": {"my own": "{document}"}}, r"templates\.my own.*: use letters, digits, - and _"),
    ],
)
def test_what_is_wrong_is_told_with_file_and_key(tmp_path: Path, change: dict, message: str) -> None:
    values = {key: value for key, value in (GOOD | change).items() if value is not ...}
    file = write(tmp_path / "xsum.yaml", values)
    with pytest.raises(BenchError, match=message) as caught:
        find_task(file)
    assert all(line.startswith(f"{file}: ") for line in str(caught.value).splitlines())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- a\n- b\n", r"expected keys with values \(KEY: VALUE\), got \['a', 'b'\]"),
        ("", r"expected keys with values \(KEY: VALUE\), got None"),
        ("name: [", r"neither YAML nor JSON: "),
        ("name: \x00", r"neither YAML nor JSON: "),
    ],
)
def test_a_file_that_is_no_task_is_named(tmp_path: Path, content: str, message: str) -> None:
    file = write(tmp_path / "mine.yml", content)
    with pytest.raises(BenchError, match=message) as caught:
        find_task(file)
    assert str(caught.value).startswith(str(file))
    with pytest.raises(BenchError, match=r"absent\.yaml: cannot be read: No such file"):
        find_task(str(tmp_path / "absent.yaml"))


def test_a_name_without_suffix_is_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "xsum.yaml", GOOD)
    monkeypatch.chdir(tmp_path)
    assert find_task("xsum.yaml").name == "xsum"
    assert find_task("samsum") is TASKS["samsum"]
    with pytest.raises(BenchError, match=r"unknown task 'xsum'.*\n.*--task path/to/task\.yaml"):
        find_task("xsum")


def test_the_task_of_a_configuration(tmp_path: Path) -> None:
    file = write(tmp_path / "xsum.yaml", GOOD)
    assert task_of("samsum", None) is TASKS["samsum"]
    assert task_of("xsum", file) == find_task(file)
    write(tmp_path / "xsum.yaml", GOOD | {"name": "other"})
    with pytest.raises(BenchError, match=r"xsum\.yaml: name: the configuration has the task 'xsum', but .* 'other'"):
        task_of("xsum", file)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"metrics": ["chrf", "rouge_l"]},
        {"prompt_columns": [{"names": ["document", "text"]}]},
        {"templates": {"plain": "Summarise: {document}"}},
        {"evaluation_only": [{"name": "hard", "folders": ["hard"], "labels": {"*v*": "V", "*": "H"}}]},
    ],
)
def test_a_tasks_identity_is_what_the_file_says_and_not_where_it_is(tmp_path: Path, change: dict) -> None:
    before = find_task(write(tmp_path / "a.yaml", GOOD)).identity
    assert find_task(write(tmp_path / "b.yaml", "# a comment\n" + yaml.safe_dump(GOOD))).identity == before
    seen = {before, find_task(write(tmp_path / "c.yaml", GOOD | change)).identity}
    assert len(seen) == 2


def test_the_order_of_labels_is_part_of_the_identity(tmp_path: Path) -> None:
    labels = [{"*v*": "V", "*": "H"}, {"*": "H", "*v*": "V"}]
    sets = [[{"name": "hard", "folders": ["hard"], "labels": one}] for one in labels]
    first, second = (find_task(write(tmp_path / "a.yaml", GOOD | {"evaluation_only": one})).identity for one in sets)
    assert first != second


def test_a_tasks_identity_covers_its_metrics_file_but_not_its_place(tmp_path: Path) -> None:
    prints = []
    for folder, code in (("a", "X = 1"), ("b", "X = 1"), ("c", "X = 2")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(code)
        prints.append(find_task(write(tmp_path / folder / "t.yaml", GOOD | {"metrics": ["mine.py:X"]})).identity)
    assert prints[0] == prints[1] != prints[2]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Install a package whose entry point is an attribute of it, for the time of the test."""

    def installed(attribute: str) -> None:
        write(tmp_path / "xsum.yaml", GOOD)
        (tmp_path / "my_tasks.py").write_text(
            "from pathlib import Path\n"
            "from bench.data import find_task\n"
            "FILE = Path(__file__).with_name('xsum.yaml')\n"
            "SPEC = find_task('samsum').model_copy(update={'name': 'mine'})\n"
            "TAKEN = find_task('samsum')\n"
            "NUMBER = 3\n"
        )
        info = tmp_path / "plug_in-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plug-in\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\nmine = my_tasks:{attribute}\n")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "my_tasks", raising=False)
        tasks.cache_clear()

    yield installed
    tasks.cache_clear()


@pytest.mark.parametrize(("attribute", "name"), [("FILE", "xsum"), ("SPEC", "mine")])
def test_an_installed_packages_task_is_known_by_name(install, tmp_path: Path, attribute: str, name: str) -> None:
    install(attribute)
    assert find_task(name).name == name
    assert set(tasks()) == {*TASKS, name}
    with pytest.raises(BenchError, match=f"mine.yaml: name: a task named '{name}' exists already; rename yours"):
        find_task(write(tmp_path / "mine.yaml", GOOD | {"name": name}))


@pytest.mark.parametrize(
    ("attribute", "words"),
    [("TAKEN", "'samsum' exists already"), ("NUMBER", "expected a TaskSpec or a path"), ("OTHER", "cannot be loaded")],
)
def test_an_installed_package_that_is_wrong_is_named_and_shipped_tasks_stay(
    install, attribute: str, words: str
) -> None:
    install(attribute)
    with pytest.raises(BenchError, match=rf"my_tasks:{attribute}.*{words}"):
        find_task("mine")
    assert find_task("samsum").name == "samsum"
