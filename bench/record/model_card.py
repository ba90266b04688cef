"""The model card of a run's student: what it is, how it was made, and what was measured, all from the record."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from bench.record.record import RunRecord
from bench.system import yaml_text
from bench.system.cells import escape_markdown

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


def model_card(record: RunRecord, repository: str, method_paper: str) -> str:
    """A card as the hub reads it: YAML about the model, then Markdown.

    Args:
        record: of the run.
        repository: id that the student will have on the hub.
        method_paper: where the method is defined.
    """
    config = record.config
    name = config.method.name
    adapters = config.models.lora is not None and config.models.lora.save == "adapter"
    load = "AutoModelForCausalLM" if config.models.kind == "causal" else "AutoModelForSeq2SeqLM"
    batch, rate = config.training.batch_size, config.training.learning_rate
    facts = {
        "method": f"{name} ({method_paper}), output source {config.sgo.source}",
        "teacher": f"{_model(config.models.teacher)}, {record.models.teacher_parameters:,} parameters",
        "student": f"{_model(config.models.student)}, {record.models.student_parameters:,} parameters",
        "init student": config.init,
        "data": f"{config.task}, {record.data.source}: {record.data.examples['train']:,} training examples",
        "training": f"{record.training.steps} steps of {batch}, learning rate {rate:g}, seed {config.seed}; this is "
        f"the checkpoint of step {record.training.best_step}",
        "time": f"{record.time.training_seconds:.0f} s on {record.environment.hardware}",
    }
    seeds = len(config.evaluation.seeds)
    parts = [
        f"---\n{yaml_text.dump(_metadata(record, repository, adapters)).rstrip()}\n---",
        f"# {repository.partition('/')[2]}",
        f"A student that was distilled with `{name}` by distillm-bench {record.environment.distillm_bench}.",
        "\n".join(["| | |", "|---|---|", *(f"| {key} | {escape_markdown(value)} |" for key, value in facts.items())]),
        "## Scores",
        _scores(record),
        f"{escape_markdown(record.metric.label)}, mean ± standard deviation over {seeds} decoding seeds of this one "
        f"student, temperature {config.evaluation.temperature:g}. Another training seed gives another student.",
        "## Use",
        f"```python\nfrom transformers import AutoTokenizer, {load}\n\n"
        f'tokenizer = AutoTokenizer.from_pretrained("{repository}")\n'
        f'model = {load}.from_pretrained("{repository}")\n```',
        "## Make it again",
        "`record.json` beside this card holds the whole configuration, every score and the learning curves. "
        "`bench run --config record.json` makes the run again, and `bench evaluate` scores any model in the same way.",
    ]
    if record.data.source.startswith("synthetic"):
        parts.insert(4, "Its data were generated to test methods: it is of no use outside of that.")
    return "\n\n".join(parts) + "\n"


def _metadata(record: RunRecord, repository: str, adapters: bool) -> dict[str, Any]:
    models = record.config.models
    named = [one for one in (models.student, models.teacher) if on_hub(one)]
    task = "text-generation" if models.kind == "causal" else "text2text-generation"
    results = [
        {
            "task": {"type": task},
            "dataset": {"type": record.config.task, "name": f"{record.config.task} ({where})"},
            "metrics": [
                {"type": name, "name": label, "value": round(of_set.metrics[name].mean, 2)}
                for name, label in ((one.name, one.label) for one in record.metrics)
            ],
        }
        for where, of_set in record.scores.items()
    ]
    return {
        "library_name": "peft" if adapters else "transformers",
        "pipeline_tag": task,
        **({"base_model": [one.partition("@")[0] for one in named]} if named else {}),
        "tags": ["knowledge-distillation", "distillm-bench", record.config.method.name],
        "model-index": [{"name": repository.partition("/")[2], "results": results}],
    }


def _scores(record: RunRecord) -> str:
    rows = {"teacher": record.teacher_scores, "init student": record.init_scores, "this model": record.scores}
    lines = [f"| | {' | '.join(map(escape_markdown, record.scores))} |", f"|---|{'--:|' * len(record.scores)}"]
    for label, scores in rows.items():
        cells = []
        for where in record.scores:
            score = scores[where].primary
            sd = score.sd_over_decoding_seeds
            cells.append(f"{score.mean:.1f}" + ("" if sd is None else f" ± {sd:.1f}"))
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _model(given: str) -> str:
    """A model by its id on the hub; of a folder, its name alone."""
    if given in ("shipped", "shipped-small", "shipped-early", "smollm2"):
        return f"{given} (of distillm-bench)"
    return given if on_hub(given) else given.rstrip("/").rpartition("/")[2]


def on_hub(given: str) -> bool:
    """Whether a model is named by its id on the hub, not as a folder or one of the package's own."""
    return _HUB_ID.fullmatch(given) is not None and not given.startswith(".") and not Path(given).exists()
