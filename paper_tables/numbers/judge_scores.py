"""Columns with what a language model thought of the responses, from `bench judge`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench.judge.protocol import Outcome
from bench.judge.results import Judgement, JudgeScore, read
from bench.record.read import Unreadable
from bench.record.store import JUDGED, Store
from bench.system.hashing import digest
from paper_tables.numbers.cells import CellStatistics, cell_of
from paper_tables.numbers.runs import Run, Selection
from paper_tables.paper.tables import INSTRUCTION_SETS, Table

JUDGED_SETS = ("dolly", "selfinst", "vicuna")
SHARED = {"judge", "prompt", "decoding_seeds", "limit", "repeats"}
"""What the judgements in one column share."""


@dataclass(frozen=True)
class JudgeScores:
    """Cells by row and evaluation set, as the table names it; and what is to be known about them.

    Attributes:
        scores: of a cell, each run with its score.
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    scores: Mapping[tuple[str, str], Sequence[tuple[Run, JudgeScore]]] = field(default_factory=dict)
    cells: Mapping[tuple[str, str], CellStatistics] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def judge_scores(table: Table, selection: Selection, store: Store) -> JudgeScores:
    """The ratings of a table's runs by one judge: where several judged, by the one that judged most of them.

    Empty for a table whose columns are no instruction sets, or where nothing was judged.
    """
    if {column.name for column in table.columns} != set(INSTRUCTION_SETS):
        return JudgeScores()
    found = {run.record.run_id: _of_run(store, run) for runs in selection.runs.values() for run in runs}
    counts = Counter(key for by_judge in found.values() for key, judged in by_judge.items() for _ in judged.results)
    if not counts:
        return JudgeScores()
    chosen = min(counts, key=lambda key: (-counts[key], key))
    by_run = {run_id: by_judge[chosen] for run_id, by_judge in found.items() if chosen in by_judge}
    scores_of: dict[tuple[str, str], list[tuple[Run, JudgeScore]]] = {}
    for row in table.rows:
        runs = [run for run in selection.of_row(row) if run.record.run_id in by_run]
        for name in JUDGED_SETS:
            sets = INSTRUCTION_SETS[name][1]
            scores = [(run, _score(by_run[run.record.run_id], sets)) for run in runs]
            scored = [(run, score) for run, score in scores if score is not None]
            if scored:
                scores_of[row.name, name] = scored
    cells = {key: cell_of([one.value for _, one in its], [run for run, _ in its]) for key, its in scores_of.items()}
    labels = {
        name: f"judge, {INSTRUCTION_SETS[name][0]}" for name in JUDGED_SETS if any(key[1] == name for key in cells)
    }
    return JudgeScores(labels, scores_of, cells, (_note(list(by_run.values()), len(counts)),))


def _of_run(store: Store, run: Run) -> dict[str, Judgement]:
    """A run's ratings beside references, by what judgements in one column share; sets judged one by one are merged."""
    found: dict[str, Judgement] = {}
    for path in sorted((store.folder(run.record.run_id) / JUDGED).glob("rating-*.json")):
        try:
            judgement = read(path)
        except Unreadable as error:
            store.warn(f"skipped {path}: {error}")
            continue
        key = digest(judgement.model_dump(mode="json", include=SHARED, exclude_unset=True))
        found[key] = _merged(found[key], judgement) if key in found else judgement
    return found


def _merged(one: Judgement, other: Judgement) -> Judgement:
    """Two judgements that share all but their sets; a set that both judged is taken from the later one."""
    earlier, later = sorted((one, other), key=lambda judgement: judgement.asked)
    return later.model_copy(
        update={
            "models_served": sorted({*one.models_served, *other.models_served}),
            "asked": sorted({*one.asked, *other.asked}),
            "results": earlier.results | later.results,
        }
    )


def _score(judgement: Judgement, names: tuple[str, ...]) -> JudgeScore | None:
    """The score on an evaluation set, under the first of its names that was judged and scored."""
    found = (judgement.results[name].score for name in names if name in judgement.results)
    return next((score for score in found if score), None)


def _note(judgements: list[Judgement], judges: int) -> str:
    one = judgements[0]
    models = sorted({model for each in judgements for model in each.models_served})
    asked = sorted({date for each in judgements for date in each.asked})
    unscored = sum(
        count
        for each in judgements
        for result in each.results.values()
        for outcome, count in result.outcomes.items()
        if outcome != Outcome.SCORED
    )
    others = f" Another {judges - 1} judged fewer of these runs and are left out." if judges > 1 else ""
    return (
        f"Judge: {one.judge.model} (served as {', '.join(models)}), temperature {one.judge.temperature:g}, "
        f"prompt {one.prompt_version}, asked {' to '.join(dict.fromkeys((asked[0], asked[-1])))}; 100 x sum of its "
        "ratings of the responses / sum of its ratings of the references, both orders; "
        f"{unscored} items could not be scored and count nowhere.{others}"
    )
