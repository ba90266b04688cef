"""Small data sets under the real ids, with their files, columns and oddities (a reference may be a text or a list)."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow
import pyarrow.parquet

from bench.synthetic import plain_text
from tests.hub.server import Branches, Fill

PARQUET = "refs/convert/parquet"
RAW, DEVELOPMENT, TEST = 1040, 1000, 30
"""Lines of Dolly's raw.jsonl, those of them that are the development part, and lines of its valid.jsonl."""
_UNNI = 10_020

_HEAD = "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
_ALPACA = _HEAD + "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
_ALPACA_ALONE = _HEAD + "### Instruction:\n{instruction}\n\n### Response:\n"


def instruction(number: int, of: str, *, several: bool = False) -> dict[str, object]:
    """A line of the five sets: every third without an input; `several` = a list of references."""
    values = {
        "instruction": f"Add one to {number} ({of}).",
        "input": "" if number % 3 == 0 else f"The number {number}.",
    }
    template = _ALPACA if values["input"] else _ALPACA_ALONE
    output = f"It is {number + 1}."
    return {
        "prompt": template.format_map(values),
        **values,
        "output": [output, f"{number + 1}"] if several else output,
    }


def _json_lines(file: Path, rows: Iterable[Mapping[str, object]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _parquet(file: Path, rows: list[dict[str, object]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file, row_group_size=100)


def _card(folder: Path) -> None:
    (folder / "README.md").write_text("---\nlicense: other\nlanguage:\n- en\n---\n# A stand-in\n", encoding="utf-8")


def _dolly(folder: Path) -> None:
    _card(folder)
    _json_lines(folder / "raw.jsonl", (instruction(n, "raw") for n in range(RAW)))
    _json_lines(folder / "valid.jsonl", (instruction(n, "valid", several=n % 2 == 1) for n in range(TEST)))


def _only_tested(of: str, *counts: tuple[str, int]) -> Fill:
    def fill(folder: Path) -> None:
        _card(folder)
        for inner, count in counts:
            rows = (instruction(n, f"{of} {inner}", several=True) for n in range(count))
            _json_lines(folder / inner / "valid.jsonl", rows)

    return fill


def _samsum(folder: Path) -> None:
    _card(folder)
    for split, count in (("train", 40), ("validation", 12), ("test", 12)):
        with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            rows = csv.DictWriter(file, ["id", "dialogue", "summary"])
            rows.writeheader()
            for n in range(count):
                dialogue = f'Ann: I have {n} apples in {split}.\r\nBen: "Nice", I say.'
                rows.writerow({"id": f"{split}{n}", "dialogue": dialogue, "summary": f"Ann has {n} apples."})


def _iwslt_script(folder: Path) -> None:
    _card(folder)
    (folder / "iwslt2017.py").write_text("raise SystemExit('datasets runs no scripts')\n")


def _iwslt(folder: Path) -> None:
    for config in ("iwslt2017-de-en", "iwslt2017-en-de"):
        for split, count in (("train", 40), ("validation", 12), ("test", 12)):
            pairs = [
                {"en": f"I see {n} cats in {split}.", "de": f"Ich sehe {n} Katzen in {split}."} for n in range(count)
            ]
            _parquet(folder / config / split / "0000.parquet", [{"translation": pair} for pair in pairs])


def _openwebtext_script(folder: Path) -> None:
    _card(folder)
    (folder / "openwebtext.py").write_text("raise RuntimeError('a loading script')\n")


def _openwebtext(folder: Path) -> None:
    (folder / ".gitattributes").write_text("*.parquet filter=lfs\n")
    texts = plain_text.generate(300)
    for shard in range(2):
        rows: list[dict[str, object]] = [{"text": text} for text in texts[150 * shard : 150 * (shard + 1)]]
        _parquet(folder / "plain_text" / "train" / f"{shard:04d}.parquet", rows)


def _configured(folder: Path) -> None:
    """Two configurations, neither of which is the default."""
    head = "".join(f"- config_name: {name}\n  data_files: {name}/*.parquet\n" for name in CONFIGURED)
    (folder / "README.md").write_text(f"---\nconfigs:\n{head}---\n", encoding="utf-8")
    for at, name in enumerate(CONFIGURED):
        rows: list[dict[str, object]] = [{"text": text} for text in plain_text.generate(200)[at::2]]
        _parquet(folder / name / "train-00000-of-00001.parquet", rows)


CONFIGURED = ("wikitext-2-v1", "wikitext-103-v1")

DATASETS: dict[str, Branches] = {
    "MiniLLM/dolly": {"main": _dolly},
    "MiniLLM/self-inst": {"main": _only_tested("self-inst", ("", 8))},
    "MiniLLM/Vicuna": {"main": _only_tested("Vicuna", ("", 8))},
    "MiniLLM/sinst": {"main": _only_tested("sinst", *((inner, 8) for inner in ("0_2", "3_6", "6_10", "11_")))},
    "MiniLLM/uinst": {"main": _only_tested("uinst", ("0_2", 8), ("3_5", 8), ("6_10", 8), ("11_", _UNNI))},
    "knkarthick/samsum": {"main": _samsum},
    "IWSLT/iwslt2017": {"main": _iwslt_script, PARQUET: _iwslt},
    "Salesforce/wikitext": {"main": _configured},
    "Skylion007/openwebtext": {"main": _openwebtext_script, PARQUET: _openwebtext},
}
