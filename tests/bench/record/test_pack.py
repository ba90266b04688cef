"""Packed runs: small, and worth as much to tables and comparisons."""

from __future__ import annotations

import pytest

from bench.analysis.compare import compare_runs
from bench.record.pack import POINTS, pack
from bench.record.store import JUDGED, PREDICTIONS, RECORD, Store
from bench.system.errors import BenchError
from tests.conftest import invoke
from tests.records import write_record


@pytest.fixture
def out(tmp_path):
    for task in ("dolly", "iwslt"):
        for method in ("kld", "srkl"):
            record = write_record(tmp_path / "out", method, task)
            store = Store(tmp_path / "out")
            curve = [{"step": step, "loss": 1 / step} for step in range(1, 201)]
            store.write(record.model_copy(update={"curve": curve}), store.predictions(record))
    return tmp_path / "out"


def test_comparisons_of_the_copy_are_the_same_to_the_last_digit(out, tmp_path):
    whole, packed = Store(out), Store(tmp_path / "packed")
    ids = pack(whole, packed.root)
    assert len(ids) == 4
    for task in ("dolly", "iwslt"):
        rows = [compare_runs(store, store.find(f"{task}-srkl"), store.find(f"{task}-kld")) for store in (whole, packed)]
        assert rows[0] == rows[1]


def test_curves_are_thin_and_responses_of_all_decoding_seeds_are_kept(out, tmp_path):
    packed = Store(tmp_path / "packed")
    for run_id in pack(Store(out), packed.root):
        record = packed.finished(run_id)
        assert record.packed is True
        assert len(record.curve) == POINTS
        assert [record.curve[i]["step"] for i in (0, -1)] == [1, 200]
        assert (packed.folder(run_id) / PREDICTIONS).read_bytes() == (out / "runs" / run_id / PREDICTIONS).read_bytes()
        assert {path.name for path in packed.folder(run_id).iterdir()} == {RECORD, PREDICTIONS}


def test_a_copy_of_a_copy_is_the_same_to_the_byte(out, tmp_path):
    once, twice = Store(tmp_path / "once"), Store(tmp_path / "twice")
    for run_id in pack(Store(out), once.root):
        pack(once, twice.root)
        for name in (RECORD, PREDICTIONS):
            assert (once.folder(run_id) / name).read_bytes() == (twice.folder(run_id) / name).read_bytes()


def test_a_run_without_its_predictions_is_left_out_and_named(out, tmp_path):
    next(out.glob(f"runs/dolly-kld*/{PREDICTIONS}")).write_bytes(b"broken")
    result = invoke("pack", "--out", str(out), "--to", str(tmp_path / "packed"))
    assert result.exit_code == 0
    assert result.stdout.startswith("3 runs in ")
    assert "skipped dolly-kld" in result.stderr


def test_links_bring_nothing_in_and_lead_nowhere_out(out, tmp_path):
    secret, elsewhere = tmp_path / "secret.json", tmp_path / "elsewhere"
    secret.write_text('{"password": 1}')
    elsewhere.mkdir()
    record = next(Store(out).all())
    folder = Store(out).folder(record.run_id)
    (folder / JUDGED).mkdir()
    (folder / JUDGED / "x.json").symlink_to(secret)
    (folder / JUDGED / "y.json").write_text("{}")
    warned: list[str] = []
    pack(Store(out), tmp_path / "to", warned.append)
    assert [path.name for path in (tmp_path / "to").rglob("*.json") if path.parent.name == JUDGED] == ["y.json"]
    (told,) = warned
    assert "x.json" in told
    (tmp_path / "again" / "runs").mkdir(parents=True)
    (tmp_path / "again" / "runs" / record.run_id).symlink_to(elsewhere)
    with pytest.raises(BenchError, match="is a link"):
        pack(Store(out), tmp_path / "again")
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize(("source", "target", "said"), [("out", "out", "choose another"), ("none", "x", "nothing to")])
def test_bad_input_is_told(out, tmp_path, source, target, said):
    result = invoke("pack", "--out", str(tmp_path / source), "--to", str(tmp_path / target))
    assert result.exit_code == 2
    assert said in result.stderr
