"""What two runs must share to stand in one table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def comparison_fields(run_key: Mapping[str, Any]) -> dict[str, Any]:
    """What two runs must share to stand in one table: all but method (its plain-text loss included),
    output source, start and training seed."""
    arm = ("method", "sgo", "init", "seed")
    config = {name: value for name, value in run_key["config"].items() if name not in arm}
    # the auxiliary loss belongs to a method; the text it is taken on does not
    config["plain_text"] = {k: v for k, v in config["plain_text"].items() if k not in ("weight", "kl_share")}
    return {**run_key, "config": config}
