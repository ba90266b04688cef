"""Recorded runs made small enough to publish: all texts and scores, thinner curves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.record.record import CurvePoint
from bench.record.store import JUDGED, Store
from bench.system.errors import BenchError
from bench.system.files import write_bytes

POINTS = 40  # kept of a curve


def pack(store: Store, to: Path, warn: Callable[[str], None] = lambda _: None) -> list[str]:
    """Copy every run of a store, with what judges said in sum, to another folder, without weights and judges' answers.

    Responses and scores of all decoding seeds are kept as they are, so that tables made from the copy are the same
    bytes, and `bench verify` can score the responses again. A record says that it was packed.

    Args:
        store: the runs.
        to: the folder of the copy.
        warn: told of each run that is left out because its predictions cannot be read.

    Returns:
        ids of the runs copied.

    Raises:
        BenchError: nothing is recorded, the folder is the store's own, or it cannot be written.
    """
    if to.resolve() == store.root.resolve():
        raise BenchError(f"--to {to}: the runs lie there; choose another folder")
    target, copied = Store(to), []
    for record in store.all():
        try:
            rows = store.predictions(record)
            store.example_arrays(record)  # what a comparison could not read is not published
        except BenchError as error:
            warn(f"skipped {record.run_id}: {error}")
            continue
        folder = target.folder(record.run_id)
        if (there := folder.resolve()) != target.runs.resolve() / record.run_id:
            raise BenchError(f"{folder} is a link to {there}: nothing is written there; choose another --to")
        target.write(record.model_copy(update={"curve": thinned(record.curve), "packed": True}), rows)
        own = store.folder(record.run_id).resolve() / JUDGED
        for judged in sorted((*own.glob("*.json"), *own.glob("checksums/*"))):  # without the texts
            if judged.resolve() != judged:  # a link could bring in any file of this machine
                warn(f"skipped {judged}: it is a link")
                continue
            write_bytes(folder / JUDGED / judged.relative_to(own), judged.read_bytes())
        copied.append(record.run_id)
    if not copied:
        raise BenchError(f"nothing to pack in {store.runs}: make runs with bench run or bench suite")
    return copied


def thinned(curve: list[CurvePoint]) -> list[CurvePoint]:
    """Evenly spaced points of a curve, the first and the last among them."""
    if len(curve) <= POINTS:
        return curve
    return [curve[round(i * (len(curve) - 1) / (POINTS - 1))] for i in range(POINTS)]
