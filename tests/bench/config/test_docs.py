"""The files that docs/configuration.md shows are ones that work."""

import re
from pathlib import Path

from bench.config.resolve import resolve

PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_presets_and_pair_of_the_page(tmp_path):
    afternoon, pair, own = BLOCKS
    files = {"afternoon.yaml": afternoon, "flan.yaml": pair, "own.yaml": own}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "my-student").mkdir()

    config, _ = resolve(preset=str(tmp_path / "afternoon.yaml"), task="samsum", method="srkl")
    assert (config.preset, config.training.epochs, config.training.learning_rate) == ("afternoon", 8.0, 3e-4)
    config, _ = resolve(preset="small", task="samsum", method="srkl", models=str(tmp_path / "flan.yaml"))
    assert config.models.student == str(tmp_path / "my-student")
    assert config.training.learning_rate == 1e-4
    config, _ = resolve(preset=str(tmp_path / "own.yaml"), task="dolly", method="minillm")
    assert config.method_settings == {"training.learning_rate": 5e-6, "training.warmup_steps": 100}
    config, _ = resolve(preset=str(tmp_path / "own.yaml"), task="dolly", method="kld")
    assert config.method_settings == {"training.batch_size": 8}
    assert config.training.learning_rate == 1e-4
