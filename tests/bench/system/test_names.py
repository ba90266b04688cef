"""Names that become parts of paths: one check for all of them, wherever they come from."""

from __future__ import annotations

import pytest

from bench.config.registry import find_method
from bench.data import find_task
from bench.record.read import Unreadable, read_record
from bench.record.store import RECORD, Store
from bench.system.errors import BenchError
from bench.system.files import read_json, write_json
from bench.system.names import path_part
from tests.conftest import invoke
from tests.records import make_record, write_record

UNFIT = [
    "",
    " ",
    ".",
    "..",
    ".hidden",
    "-rf",
    "/etc/x",
    "a/b",
    "../../..",
    "a\\b",
    "a\0b",
    "a\nb",
    "a\x1b[1m",
    "ä" * 60,
]


@pytest.mark.parametrize("name", UNFIT)
def test_unfit_names_are_refused(name):
    with pytest.raises(ValueError, match="name"):
        path_part(name)


@pytest.mark.parametrize("name", ["kld", "my method", "größe_2", "a.b", "x=y", "a..b", "<b>", "a" * 80])
def test_other_names_are_not(name):
    assert path_part(name) == name


@pytest.mark.parametrize("run_id", ["../../..", "/tmp/x", "a/../../b", "..", "x" * 300])
@pytest.mark.parametrize(
    "command", ["pack --to {0}/to", "list runs", "export --to {0}/to", "judge RUN --dry-run", "show RUN"]
)
def test_a_record_with_a_run_id_that_leaves_its_folder_is_named_and_never_written(tmp_path, run_id, command):
    out = tmp_path / "a" / "out"
    good = write_record(out, "kld", "samsum")
    record, rows = make_record("rkld", "samsum")
    bad = Store(out).write(record, rows)
    write_json(bad, read_json(bad) | {"run_id": run_id})
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    words = command.format(tmp_path / "a").replace("RUN", good.run_id).split()
    result = invoke(*words, "--out", str(out))
    assert result.exit_code == (2 if "judge" in words else 0), result.output  # the data is made up
    assert "run_id" in result.stderr or {"show", "judge"} & set(words)  # which read the one run they name
    written = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert all(path.is_relative_to(tmp_path / "a" / "to") for path in written)
    with pytest.raises(Unreadable, match="run_id"):
        read_record(bad)


@pytest.mark.parametrize("key", ["preset", "task", "method", "models"])
def test_a_record_whose_configuration_names_a_path_is_none(tmp_path, key):
    path = tmp_path / RECORD
    plain = make_record()[0].plain()
    at = plain["config"][key] if isinstance(plain["config"][key], dict) else plain["config"]
    at["name" if at is not plain["config"] else key] = "../../x"
    write_json(path, plain)
    with pytest.raises(Unreadable, match=rf"config\.{key}"):
        read_record(path)


@pytest.mark.parametrize("name", ["a/b", "../x", "-x", "x" * 99])
def test_methods_and_tasks_of_ones_own_cannot_be_called_so(tmp_path, name):
    method = tmp_path / "mine.py"
    method.write_text(
        f"from dataclasses import replace\nfrom baselines import METHODS\nMETHOD = replace(METHODS[0], name={name!r})\n"
    )
    with pytest.raises(BenchError, match="its name is"):
        find_method(f"{method}:METHOD")
    task = tmp_path / "task.yaml"
    text = "metrics: [rouge_l]\nprompt_columns: [a]\nresponse_column: b\ntemplates: {t: '{a}'}\n"
    task.write_text(f"name: '{name}'\n{text}")
    with pytest.raises(BenchError, match="name"):
        find_task(str(task))
    task.write_text(f"name: mine\n{text}evaluation_only: [{{name: x, folders: [x], labels: {{'*': '{name}'}}}}]\n")
    with pytest.raises(BenchError, match="labels"):
        find_task(str(task))


@pytest.mark.parametrize("folder", ["/etc", "../x", "a/../..", "a//b", "-x"])
def test_folders_of_a_task_lie_within_the_data(tmp_path, folder):
    task = tmp_path / "task.yaml"
    text = "name: mine\nmetrics: [rouge_l]\nprompt_columns: [a]\nresponse_column: b\ntemplates: {t: '{a}'}\n"
    for more in (f"folders: ['{folder}']\n", f"evaluation_only: [{{name: x, folders: ['{folder}']}}]\n"):
        task.write_text(text + more)
        with pytest.raises(BenchError, match="folders"):
            find_task(str(task))
    task.write_text(f"{text}folders: [a/b]\n")
    assert find_task(str(task)).folder_names == ("a/b",)


def test_a_preset_and_a_pair_cannot_be_called_so(tmp_path):
    file = tmp_path / "-x.yaml"
    file.write_text("extends: tiny\n")
    for option in ("--preset", "--models"):
        result = invoke("run", option, str(file), "--dry-run")
        assert (result.exit_code, "cannot begin with '-'" in result.stderr) == (2, True), result.output
