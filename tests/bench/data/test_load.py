import csv
import gzip
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.data import SPLITS, TASKS, DataError, HubSource, SplitSizes, TaskData, TaskSpec, format_prompt, load_task
from bench.data.readers import read_records
from bench.system.errors import BenchError


def samsum(number: int, **changes: object) -> dict[str, object]:
    return {"id": f"r{number}", "dialogue": f"A: hello {number}", "summary": f"Summary {number}."} | changes


def write(path: Path, records: list) -> Path:
    text = "".join(json.dumps(record) + "\n" for record in records)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A valid SAMSum folder with disjoint splits of 30, 4 and 4 records."""
    for start, (split, size) in zip((0, 100, 200), (("train", 30), ("validation", 4), ("test", 4)), strict=True):
        write(tmp_path / f"{split}.jsonl", [samsum(start + i) for i in range(size)])
    return tmp_path


def sizes(data: TaskData) -> dict[str, int]:
    return {split: len(examples) for split, examples in data.splits.items()}


# --- reading files -------------------------------------------------------------------------------------------------


def test_every_format_holds_the_same_records(folder: Path) -> None:
    expected = load_task("samsum", data_dir=folder).fingerprint()
    records = [samsum(i) for i in range(30)]
    (folder / "train.jsonl").unlink()
    lines = "".join(json.dumps(record) + "\n" for record in records)
    header = "id,dialogue,summary\n"
    table = header + "".join(f"{r['id']},{r['dialogue']},{r['summary']}\n" for r in records)
    variants = {
        "train.jsonl.gz": gzip.compress(lines.encode()),
        "train.jsonl": b"\xef\xbb\xbf" + lines.replace("\n", "\r\n").encode(),
        "train.json": json.dumps(records, indent=1).encode(),
        "train.json.gz": gzip.compress(json.dumps({"data": records}).encode()),
        "train.csv": b"\xef\xbb\xbf" + table.replace("\n", "\r\n").encode(),
        "train.csv.gz": gzip.compress(table.encode()),
    }
    for name, content in variants.items():
        (folder / name).write_bytes(content)
        assert load_task("samsum", data_dir=folder).fingerprint() == expected, name
        (folder / name).unlink()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=20), min_size=1, max_size=5))
def test_text_survives_jsonl_and_csv(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    folder = tmp_path_factory.mktemp("roundtrip")
    lines = folder / "a.jsonl"
    lines.write_bytes("".join(json.dumps({"t": t}, ensure_ascii=False) + "\n" for t in texts).encode())
    table = folder / "a.csv"
    with table.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([["t"], *([t] for t in texts)])
    assert [record.values["t"] for record in read_records(lines)] == texts
    assert [record.values["t"] for record in read_records(table)] == texts


def test_csv_takes_large_fields_and_multi_line_fields_and_keeps_line_numbers(folder: Path) -> None:
    limit = csv.field_size_limit()
    path = folder / "train.csv"
    path.write_text(f'dialogue,summary\n"A: one\nB: two",{"x" * 300_000}\n"only one field"\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"train\.csv, line 4: 1 fields, but the header names 2"):
        list(read_records(path))
    path.write_text(f'dialogue,summary\n"A: one\nB: two",{"x" * 300_000}\n', encoding="utf-8")
    assert next(read_records(path)).values["dialogue"] == "A: one\nB: two"
    assert csv.field_size_limit() == limit


GOOD = json.dumps(samsum(1)).encode() + b"\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train.jsonl", GOOD + b"\n{oops\n", r"train\.jsonl, line 3: not JSON"),
        ("train.jsonl", GOOD + b"[1, 2]\n", r"line 2: expected an object with named columns, found list"),
        ("train.jsonl", GOOD + b'{"id": "x", "dialogue": "d"}\n', r"line 2: no column 'summary'; found: id, dialogue"),
        ("train.jsonl", GOOD + b'{"dialogue": 3, "summary": "s"}', r"line 2: column 'dialogue' holds int, expected"),
        ("train.jsonl", GOOD + b'{"dialogue": "d", "summary": {}}', r"line 2: column 'summary' holds dict, expected"),
        ("train.jsonl", GOOD + b'{"dialogue": "d", "summary": ["s", 1]}', r"line 2: column 'summary' holds int"),
        ("train.jsonl", GOOD + b'{"dialogue": "d", "references": "s"}', r"line 2: column 'references' holds str"),
        ("train.jsonl", GOOD + b'{"id": 1.5, "dialogue": "d", "summary": "s"}', r"line 2: column 'id' holds float"),
        ("train.jsonl", GOOD + b'{"dialogue": "\\ud800", "summary": "s"}', r"line 2: column 'dialogue' .*surrogate"),
        ("train.jsonl", GOOD + b'{"dialogue": "\xff"}\n', r"line 2: not UTF-8 \(byte 0xff\)"),
        ("train.jsonl", GOOD + b'{"dialogue": "d", "summary": "a\\udc00"}', r"line 2: column 'summary' .*surrogate"),
        (
            "train.jsonl",
            GOOD + b'{"dialogue": "d", "references": ["\\ud83d"]}',
            r"line 2: column 'references' .*surrog",
        ),
        ("train.jsonl", GOOD + b'{"id": "\\ud83d", "dialogue": "d", "summary": "s"}', r"line 2: column 'id' .*surrog"),
        (
            "train.jsonl",
            GOOD + b'{"dialogue": "d", "dialogue": "e", "summary": "s"}',
            r"2: the key 'dialogue' stands tw",
        ),
        ("train.jsonl", GOOD.replace(b"}\n", b"}\r") * 2, r"line 1: not JSON: .*not in a carriage return alone"),
        ("train.jsonl", GOOD.decode().encode("utf-16-le"), r"line 1: not JSON: .*-f UTF-16LE"),
        ("train.jsonl", b"version https://git-lfs.github.com/spec/v1\n", r"line 1: not JSON: .*git lfs pull"),
        ("train.jsonl", b"{'dialogue': 'd'}", r"line 1: not JSON: .*each line must be one whole JSON object"),
        ("train.jsonl", b'{"\\ud83d": 1, " dialogue": "d"}', r"no column 'dialogue'; found: '\\ud83d', ' dialogue'"),
        ("train.csv", b"dialogue;summary\na;b\n", r"line 1: fields are separated by ';', expected commas"),
        ("train.json", b'[{"dialogue": "d", "dialogue": "e"}]', r"the key 'dialogue' stands twice"),
        ("train.jsonl", GOOD + b'{"dialogue": NaN, "summary": "s"}', r"line 2: column 'dialogue' holds float"),
        ("train.jsonl", b"[" + GOOD.strip() + b"]", r"line 1: .*found list; .*must be named \.json"),
        ("train.jsonl", b"[\n" + GOOD + b"]", r"line 1: not JSON: .*must be named \.json"),
        ("train.json", GOOD, r"one object per line must be named \.jsonl"),
        (
            "train.jsonl",
            GOOD.decode().encode("utf-16"),
            r"line 1: not UTF-8 \(byte 0xff, as UTF-16 begins\).*-f UTF-16",
        ),
        (
            "train.jsonl",
            '{"dialogue": "ü", "summary": "s"}'.encode("latin-1"),
            r"line 1: not UTF-8 .*iconv -f ISO-8859",
        ),
        ("train.jsonl", gzip.compress(GOOD, mtime=0), r"gzip-compressed; its name must end in \.gz"),
        (
            "train.jsonl",
            b'{"messages": [{"role": "user", "content": "c"}]}',
            r"\(messages data\), which a task file with messages: true",
        ),
        ("train.jsonl", b'{"conversations": [{"from": "human", "value": "v"}]}', r"write each as `messages`"),
        ("train.jsonl", b"\xef\xbb\xbf\n\n\xfe", r"line 3: not UTF-8"),
        ("train.jsonl", b"[" * 200_000, r"nested too deeply"),
        ("train.jsonl", b"", r"train\.jsonl: holds no records"),
        ("train.jsonl", b"\n \n", r"holds no records"),
        ("train.json", b"[]", r"holds no records"),
        ("train.json", b'{"rows": []}', r"expected a list of objects or"),
        ("train.json", GOOD + GOOD, r"line 2: not JSON: .*must be named \.jsonl"),
        ("train.json", b'[{"dialogue": "d", "summary": "s"}, 7]', r"record 2: expected an object"),
        ("train.csv", b"dialogue,summary\n", r"holds no records"),
        ("train.csv", b"", r"holds no records"),
        ("train.csv", b"dialogue,dialogue\na,b\n", r"line 1: a column name stands twice"),
        ("train.csv", b'dialogue,summary\n"a" b,c\n', r"line 2: not CSV"),
        ("train.csv", b'dialogue,summary\n"never closed,c\n', r"not CSV"),
        ("train.jsonl.gz", gzip.compress(GOOD * 50, mtime=0)[:-12], r"truncated or corrupt gzip"),
        ("train.jsonl.gz", gzip.compress(GOOD, mtime=0)[:12] + b"\xff" * 40, r"truncated or corrupt gzip"),
        ("train.jsonl.gz", GOOD, r"truncated or corrupt gzip"),
    ],
)
def test_malformed_file_is_named_with_its_place(folder: Path, name: str, content: bytes, message: str) -> None:
    (folder / "train.jsonl").unlink()
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        load_task("samsum", data_dir=folder)
    assert str(folder / name) in str(caught.value)


@settings(max_examples=150, deadline=None)
@given(name=st.sampled_from(["a.jsonl", "a.json", "a.csv", "a.jsonl.gz"]), content=st.binary(max_size=80))
def test_arbitrary_bytes_give_records_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, name: str, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / name
    path.write_bytes(content)
    try:
        records = list(read_records(path))
    except DataError as error:
        message = str(error)
    else:
        assert records
        return
    assert str(path) in message


@pytest.mark.parametrize("name", ["train.jsonl", "test.jsonl", "test_one.jsonl", "validation.jsonl.gz"])
def test_what_is_no_file_is_refused_at_once(folder: Path, name: str) -> None:
    (folder / f"{name.partition('.')[0].partition('_')[0]}.jsonl").unlink()
    path = folder / name
    os.mkfifo(path)
    with pytest.raises(BenchError, match=f"{name}: .*it is a named pipe, not a file"):
        load_task("samsum", data_dir=folder)
    path.unlink()
    path.mkdir()
    with pytest.raises(BenchError, match=f"{name}: .*it is a folder, not a file"):
        load_task("samsum", data_dir=folder)
    path.rmdir()
    path.symlink_to("/dev/zero")
    with pytest.raises(BenchError, match=f"{name}: .*it is a device, not a file"):
        load_task("samsum", data_dir=folder)
    path.unlink()
    path.symlink_to("nowhere")
    with pytest.raises(BenchError, match=f"{name}: cannot be read: No such file"):
        load_task("samsum", data_dir=folder)


def test_marks_that_are_no_line_ends_stay_in_the_text(folder: Path) -> None:
    text = "a\u2028b\u2029c\x85d\x0ce\x1cf\x00g"
    lines = json.dumps(samsum(1, dialogue=text), ensure_ascii=False) + "\r\n"
    (folder / "train.jsonl").write_bytes(lines.encode() * 2)
    assert [e.prompt for e in load_task("samsum", data_dir=folder).splits["train"]] == [f"summarize: {text}"] * 2


def test_reading_is_shown(folder: Path) -> None:
    padding = "x" * 500
    write(folder / "train.jsonl", [samsum(i, dialogue=padding) for i in range(20_000)])
    told: list[tuple[int, int, str]] = []
    load_task("samsum", data_dir=folder, progress=lambda *one: told.append(one))
    assert [(total, what) for _, total, what in told] == [(11, "MB of train.jsonl")] * 2
    assert 0 < told[0][0] < told[1][0] <= 11


# --- finding files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alias", ["validation", "valid", "val", "dev"])
def test_validation_aliases(folder: Path, alias: str) -> None:
    (folder / "validation.jsonl").rename(folder / f"{alias}.jsonl")
    assert sizes(load_task("samsum", data_dir=folder)) == {"train": 30, "validation": 4, "test": 4}


def test_parent_folder_and_own_folder_are_the_same_data(folder: Path) -> None:
    own = folder / "samsum"
    own.mkdir()
    for split in SPLITS:
        (folder / f"{split}.jsonl").rename(own / f"{split}.jsonl")
    parent_data, own_data = (load_task("samsum", data_dir=place) for place in (folder, own))
    assert parent_data.fingerprint() == own_data.fingerprint()
    assert parent_data.source == own_data.source == f"folder {own}"


def test_missing_split_says_what_would_do(folder: Path) -> None:
    (folder / "train.jsonl").rename(folder / "full.jsonl")
    (folder / "validation.jsonl").unlink()
    with pytest.raises(DataError) as caught:
        load_task("samsum", data_dir=folder)
    message = str(caught.value)
    for part in ("no train file", "data.train_file=PATH", "validation/valid/val/dev", ".jsonl.gz", "found there: full"):
        assert part in message


def test_train_file_takes_the_place_of_the_folders_own(folder: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "elsewhere" / "mine.jsonl.gz", [samsum(500), samsum(501)])
    data = load_task("samsum", data_dir=folder, train_file=other)
    assert [example.id for example in data.splits["train"]] == ["r500", "r501"]
    assert str(other) in data.source
    with pytest.raises(DataError, match=r"nowhere\.jsonl: cannot be read"):
        load_task("samsum", data_dir=folder, train_file=tmp_path / "nowhere.jsonl")
    with pytest.raises(DataError, match=r"mine\.txt: unknown format"):
        load_task("samsum", data_dir=folder, train_file=tmp_path / "mine.txt")
    with pytest.raises(DataError, match=r"add --data-dir"):
        load_task("samsum", train_file=other)


def test_lone_test_file_with_a_suffix_is_used_and_several_are_refused(folder: Path) -> None:
    (folder / "test.jsonl").rename(folder / "test_a.jsonl")
    assert "test read from test_a.jsonl" in load_task("samsum", data_dir=folder).notes
    other = write(folder / "test_b.jsonl", [samsum(300)])
    with pytest.raises(DataError, match=r"2 files for test: test_a\.jsonl, test_b\.jsonl.*data\.test_file=PATH"):
        load_task("samsum", data_dir=folder)
    assert sizes(load_task("samsum", data_dir=folder, test_file=other))["test"] == 1


def test_two_files_for_one_split_are_refused(folder: Path) -> None:
    write(folder / "dev.jsonl", [samsum(300)])
    with pytest.raises(DataError, match=r"2 files for validation: validation\.jsonl, dev\.jsonl"):
        load_task("samsum", data_dir=folder)


@pytest.mark.parametrize(
    ("file", "split", "label"),
    [
        ("uinst/test_short_1050.jsonl", "uinst", "uinst-short"),
        ("uinst/11_/valid.jsonl", "uinst", "UnNI"),
        ("uinst/test.jsonl", "uinst", "uinst"),
        ("sinst/test_11_.jsonl.gz", "sinst", "S-NI"),
        ("self-inst/valid.jsonl", "selfinst", "SelfInst"),
        ("vicuna/test.jsonl", "vicuna", "Vicuna"),
    ],
)
def test_evaluation_sets_carry_the_label_of_their_file(tmp_path: Path, file: str, split: str, label: str) -> None:
    for name in ("train", "validation", "test"):
        write(tmp_path / "dolly" / f"{name}.jsonl", [{"instruction": f"Do {name}.", "response": "Done."}])
    write(tmp_path / file, [{"instruction": "Do it.", "input": "", "output": ["Yes.", "No."], "id": 7}])
    data = load_task("dolly", data_dir=tmp_path)
    assert data.label(split) == label
    assert data.splits[split][0].references == ("Yes.", "No.")
    assert data.splits[split][0].id == "7"
    absent = set(TASKS["dolly"].evaluation_sets) - {split}
    assert all(any(f"evaluation set {name} left out" in note for note in data.notes) for name in absent)


def test_unknown_names_are_errors(folder: Path) -> None:
    assert issubclass(DataError, BenchError)
    with pytest.raises(BenchError, match="did you mean 'samsum'"):
        load_task("samsun", data_dir=folder)
    with pytest.raises(DataError, match="there is no such folder"):
        load_task("samsum", data_dir=folder / "nope")
    with pytest.raises(DataError, match="unknown split 'tests'"):
        load_task("samsum", data_dir=folder, limits={"tests": 1})
    with pytest.raises(DataError, match="choose one"):
        load_task("samsum", data_dir=folder, hub=True)
    with pytest.raises(DataError, match="at least 1"):
        load_task("samsum", data_dir=folder, limits={"test": 0})


# --- records to examples -------------------------------------------------------------------------------------------


def test_blank_prompts_and_responses_are_skipped_and_counted(folder: Path) -> None:
    records = [samsum(i) for i in range(3)] + [samsum(i, summary=" \n") for i in range(3, 8)]
    write(folder / "train.jsonl", [*records, samsum(8, dialogue=None)])
    write(folder / "test.jsonl", [samsum(200), samsum(201, dialogue="")])
    data = load_task("samsum", data_dir=folder)
    assert sizes(data) == {"train": 3, "validation": 4, "test": 1}
    assert "train: 5 records without summary skipped (ids r3, r4, r5, ...)" in data.notes
    assert "train: 1 record without dialogue skipped (id r8)" in data.notes
    assert "test: 1 record without dialogue skipped (id r201)" in data.notes


def test_split_without_usable_records_is_an_error(folder: Path) -> None:
    write(folder / "test.jsonl", [samsum(1, dialogue="")])
    with pytest.raises(DataError, match="test: no usable example is left"):
        load_task("samsum", data_dir=folder)


def test_ids_are_unique_and_missing_ids_are_positions(folder: Path) -> None:
    same = [samsum(i, id="a") for i in range(3)]
    write(folder / "train.jsonl", [*same, samsum(3, id="a#2"), {"dialogue": "d", "summary": "s"}])
    data = load_task("samsum", data_dir=folder)
    ids = [example.id for example in data.splits["train"]]
    assert len(set(ids)) == 5
    assert ids[0] == "a"
    assert ids[-1] == "train-4"
    assert any(note.startswith("train: 3 repeated ids made unique") for note in data.notes)


def test_references_start_with_the_response_and_hold_each_text_once(folder: Path) -> None:
    write(folder / "test.jsonl", [samsum(200, summary="b", references=["a", "b", " ", "c"])])
    assert load_task("samsum", data_dir=folder).splits["test"][0].references == ("b", "a", "c")


def test_line_ends_are_unified(folder: Path) -> None:
    write(folder / "test.jsonl", [samsum(200, dialogue="A: x\r\nB: y\r", summary="s\r\nt")])
    example = load_task("samsum", data_dir=folder).splits["test"][0]
    assert (example.prompt, example.references) == ("summarize: A: x\nB: y\n", ("s\nt",))


@pytest.mark.parametrize("record", [{"translation": {"en": "Hi.", "de": "Hallo."}}, {"en": "Hi.", "de": "Hallo."}])
def test_iwslt_columns_nested_as_on_the_hub_or_plain(tmp_path: Path, record: dict) -> None:
    for split in SPLITS:
        write(tmp_path / f"{split}.jsonl", [record])
    data = load_task("iwslt", data_dir=tmp_path)
    assert data.splits["train"][0].prompt == "translate English to German: Hi."
    assert data.splits["train"][0].references == ("Hallo.",)


def test_dolly_templates() -> None:
    head = (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\nAdd {x}.\n\n"
    )
    spec = TASKS["dolly"]
    both, alone = {"instruction": "Add {x}.", "context": "1 2"}, {"instruction": "Add {x}.", "context": " "}
    assert format_prompt(spec, "alpaca", both) == head + "### Input:\n1 2\n\n### Response:\n"
    assert format_prompt(spec, "alpaca", alone) == head + "### Response:\n"
    assert format_prompt(spec, "compact", both) == "Add {x}.\n1 2\n=>"
    assert format_prompt(spec, "compact", alone) == "Add {x}.\n=>"


def test_template_is_chosen_by_name(tmp_path: Path) -> None:
    for split in SPLITS:
        write(tmp_path / f"{split}.jsonl", [{"instruction": f"Do {split}.", "context": "", "response": "Done."}])
    assert load_task("dolly", data_dir=tmp_path).template == "alpaca"
    data = load_task("dolly", data_dir=tmp_path, template="compact")
    assert {split: examples[0].prompt for split, examples in data.splits.items()} == {
        split: f"Do {split}.\n=>" for split in SPLITS
    }
    with pytest.raises(DataError, match="unknown template 'alpacca': did you mean 'alpaca'"):
        load_task("dolly", data_dir=tmp_path, template="alpacca")


@pytest.mark.parametrize("name", sorted(TASKS))
def test_every_template_uses_every_prompt_column(name: str) -> None:
    spec = TASKS[name]
    values = {column.name: f"<{column.name}>" for column in spec.prompt_columns}
    for template in spec.templates:
        assert all(text in format_prompt(spec, template, values) for text in values.values())
    assert {spec.default_template(synthetic=synthetic) for synthetic in (True, False)} <= set(spec.templates)


# --- overlap, limits, fingerprint ----------------------------------------------------------------------------------


def test_overlap_is_counted_on_stripped_prompts_and_dropped_on_request(folder: Path) -> None:
    test_prompt, validation_prompt = samsum(200)["dialogue"], samsum(100)["dialogue"]
    write(folder / "train.jsonl", [samsum(1), samsum(2, dialogue=f" {test_prompt}\n"), samsum(3, dialogue=test_prompt)])
    write(folder / "validation.jsonl", [samsum(100), samsum(101, dialogue=test_prompt)])
    data = load_task("samsum", data_dir=folder)
    assert data.overlap == {"train+validation": 1, "train+test": 1, "validation+test": 1}
    assert "1 distinct prompt of test also in train" in data.notes
    assert "train: 1 of 3 records repeat the prompt of an earlier one" in data.notes

    write(folder / "train.jsonl", [samsum(1), samsum(2, dialogue=test_prompt), samsum(3, dialogue=validation_prompt)])
    clean = load_task("samsum", data_dir=folder, drop_overlap=True)
    assert sizes(clean) == {"train": 1, "validation": 1, "test": 4}
    assert set(clean.overlap.values()) == {0}
    assert any(note.startswith("train: 2 records dropped") for note in clean.notes)
    assert any(note.startswith("validation: 1 record dropped") for note in clean.notes)


def test_limits_take_nested_samples_in_file_order(folder: Path) -> None:
    def ids(limit: int | None, seed: int = 0) -> list[str]:
        data = load_task("samsum", data_dir=folder, limits={"train": limit}, seed=seed)
        return [example.id for example in data.splits["train"]]

    everything = ids(None)
    assert ids(100) == everything
    small, large = ids(5), ids(20)
    assert len(small) == 5
    assert len(large) == 20
    assert set(small) < set(large)
    assert large == [name for name in everything if name in set(large)]
    assert small == ids(5)
    assert small != ids(5, seed=1)
    assert small != everything[:5]


@pytest.mark.parametrize(
    "change", [{"id": "other"}, {"dialogue": "other"}, {"summary": "other"}, {"references": ["more"]}]
)
def test_fingerprint_changes_with_every_part_of_an_example(folder: Path, change: dict) -> None:
    before = load_task("samsum", data_dir=folder).fingerprint()
    assert before == load_task("samsum", data_dir=folder).fingerprint()
    write(folder / "test.jsonl", [samsum(200, **change), *(samsum(200 + i) for i in range(1, 4))])
    assert load_task("samsum", data_dir=folder).fingerprint() != before


# --- the hub (`datasets` itself, pointed at a local repository) ----------------------------------------------------


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path


def on_hub(name: str, repository: Path, **fields: object) -> TaskSpec:
    return TASKS[name].model_copy(update={"hub": HubSource(id=str(repository), **fields), "evaluation_only": ()})


def test_hub_data_equals_folder_data(folder: Path, hub_cache: Path) -> None:
    repository = folder / "repository"
    repository.mkdir()
    for split in SPLITS:
        (folder / f"{split}.jsonl").rename(repository / f"{split}.jsonl")
    data = load_task(on_hub("samsum", repository), hub=True)
    assert data.fingerprint() == load_task("samsum", data_dir=repository).fingerprint()
    assert data.source.startswith(f"hub {repository}@")


def test_hub_data_without_splits_is_split_by_seed(hub_cache: Path) -> None:
    repository = hub_cache / "repository"
    records = [{"instruction": f"Do {i}.", "context": "", "response": f"Done {i}."} for i in range(20)]
    write(repository / "train.jsonl", records)

    def load(seed: int, **wanted: int) -> TaskData:
        spec = on_hub("dolly", repository, train_split_sizes=SplitSizes(**wanted))
        return load_task(spec, hub=True, seed=seed)

    data = load(0, train=12, validation=3, test=4)
    assert sizes(data) == {"train": 12, "validation": 3, "test": 4}
    assert set(data.overlap.values()) == {0}
    assert any("not a published split" in note for note in data.notes)
    assert data.fingerprint() == load(0, train=12, validation=3, test=4).fingerprint()
    assert data.fingerprint() != load(1, train=12, validation=3, test=4).fingerprint()
    with pytest.raises(DataError, match="20 records, too few"):
        load(0, train=20, validation=3, test=4)


@pytest.mark.parametrize("name", sorted(TASKS))
def test_hub_failure_says_which_folder_would_do(name: str, hub_cache: Path) -> None:
    with pytest.raises(DataError, match=r"100%-absent is neither a local folder nor an id of the hub") as caught:
        load_task(on_hub(name, hub_cache / "100%-absent"), hub=True)
    for part in ("--data-dir DIR", "train.jsonl", TASKS[name].response_column.name):
        assert part in str(caught.value)
