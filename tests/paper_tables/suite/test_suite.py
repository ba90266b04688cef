"""Suites: what is planned, and real runs that are made, interrupted, and fail."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest

from bench.config.presets import shipped
from bench.record.store import Store
from bench.system.environment import describe as description
from bench.system.environment import pick_device, this_machine
from bench.system.errors import BenchError
from paper_tables.paper.ablations import ABLATIONS, OWN_ALPHA, OWN_CAPACITY, OWN_RATIO, ablations, all_tables
from paper_tables.paper.suites import SUITES, run_specs, timed_specs
from paper_tables.paper.tables import tables
from paper_tables.suite import executors
from paper_tables.suite.executors import environment, has_gpu_each
from paper_tables.suite.plan import make_plan
from paper_tables.suite.progress import describe, names_of
from tests.conftest import short
from tests.records import altered, make_record

SEEDS = (10, 20, 30)
TABLE_1 = ["kld", "rkld", "jsd", "skl", "srkl"]


def plan(suite="table1", records=(), **options):
    given = {"preset": "tiny", "seeds": SEEDS} | options
    return make_plan(run_specs(suite, given["preset"]), timed_specs(given["preset"]), records, **given)


@pytest.mark.parametrize("preset", shipped("presets"))
def test_no_two_runs_of_a_suite_have_one_name(preset):
    specs = run_specs("paper", preset)
    names = names_of(specs)
    assert len(set(names.values())) == len(set(specs)) == len(specs)


@pytest.mark.parametrize("preset", shipped("presets"))
def test_the_paper_suite_has_every_run_of_every_table_once(preset):
    made = plan("paper", preset=preset, seeds=(10,))
    planned = {run.spec for run in made.runs}
    assert len(planned) == len(made.runs) == len({run.spec.command(preset, 10) for run in made.runs})
    wanted = {spec for table in all_tables(preset).values() for spec in table.specs}
    assert {spec.config(preset, 10).canonical().__repr__() for spec in wanted} == {
        spec.config(preset, 10).canonical().__repr__() for spec in planned
    }


@pytest.mark.parametrize("name", ABLATIONS)
def test_the_methods_own_value_of_an_ablation_is_the_run_of_the_main_table(name):
    own = {"alpha": str(OWN_ALPHA), "sgo-ratio": "0.0", "buffer-capacity": str(OWN_CAPACITY)}.get(name, "distillm")
    row = next(row for row in ablations("tiny")[name].rows if row.name == own)
    assert set(row.specs.values()) & set(tables("tiny")["main"].specs)


def test_what_an_ablation_takes_for_the_default_is_the_default():
    config = tables("tiny")["main"].rows[-1].specs["dolly"].config("tiny")
    assert config.method.options["alpha"] == OWN_ALPHA
    assert config.sgo.capacity == 32
    assert tables("paper")["main"].rows[-1].specs["dolly"].config("paper").sgo.capacity == OWN_CAPACITY
    assert config.sgo.probability == OWN_RATIO


def test_every_value_of_an_ablation_is_a_run_of_its_own_with_that_value():
    of_alpha = ablations("tiny")["alpha"].specs
    alphas = {(spec.method, spec.config("tiny").method.options["alpha"]) for spec in of_alpha}
    assert alphas == {(loss, a) for loss in ("skl", "srkl") for a in (0.01, 0.1, 0.3, 0.5, 0.7, 0.9)}
    capacities = [spec.config("tiny").sgo.capacity for spec in ablations("tiny")["buffer-capacity"].specs]
    assert capacities == [8, 16, 32, 64, 128] == [row.value for row in ablations("tiny")["buffer-capacity"].rows]
    papers = [spec.config("paper").sgo.capacity for spec in ablations("paper")["buffer-capacity"].specs]
    assert papers == [250, 500, 1000, 2000, 4000]
    of_ratio = ablations("tiny")["sgo-ratio"].specs
    ratios = [(spec.output_source, spec.config("tiny").sgo.probability) for spec in of_ratio]
    assert {r for s, r in ratios if s == "off-policy"} == {0.25, 0.5, 0.75, 1.0}
    assert {r for s, r in ratios if s == "mixed"} == {0.25, 0.5, 0.75}
    assert {s for s, _ in ratios} == {"dataset", "mixed", "off-policy", "on-policy"}


def test_what_is_recorded_is_not_planned_again_and_one_job_has_the_machine_to_itself():
    records = [make_record("kld", seed=seed, init="sft")[0] for seed in SEEDS]
    made = plan(records=records)
    assert [(run.spec.method, run.seed) for run in made.to_do] == [(m, s) for s in SEEDS for m in TABLE_1[1:]]
    assert not any(run.exclusive for run in made.runs)


def test_a_record_made_with_other_settings_is_not_the_run():
    record, _ = make_record("kld", init="sft", assignments=("training.steps=7",))
    assert len(plan(records=[record]).to_do) == 15
    made = plan(records=[record], settings=("training.steps=7",))
    assert len(made.to_do) == 14
    assert "--set training.steps=7" in made.to_do[0].spec.command("tiny", 10)


def test_with_several_jobs_what_is_timed_is_exclusive_and_first_and_made_again_where_it_was_not():
    shared, _ = make_record("rkld", init="sft", other_load=1.0)
    alone, _ = make_record("jsd", init="sft", other_load=0.0)
    made = plan(records=[shared, alone], jobs=2)
    assert [(run.spec.method, run.seed, run.retimed) for run in made.runs if run.exclusive] == [
        ("kld", 10, False),
        ("rkld", 10, True),
        ("skl", 10, False),
        ("srkl", 10, False),
        ("kld", 20, False),
        ("kld", 30, False),
    ]
    assert all(run.exclusive for run in made.runs[:6])
    assert not any(run.exclusive for run in plan(records=[shared], jobs=2, times=False).runs)


def test_where_runs_have_a_gpu_each_what_is_timed_needs_nothing_else(monkeypatch):
    shared, _ = make_record("rkld", init="sft", other_load=1.0)
    made = plan(records=[shared], jobs=2, gpu_each=True)
    assert [run.retimed for run in made.runs if run.spec.method == "rkld"] == [True, False, False]
    assert not any(run.exclusive for run in made.runs)
    on_cpu = plan(records=[shared], jobs=2, gpu_each=True, settings=("device=cpu",))
    assert any(run.exclusive for run in on_cpu.runs)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    monkeypatch.setattr(executors, "usable_cores", lambda: 7)
    assert [has_gpu_each(jobs) for jobs in (1, 3, 4, 5)] == [True, True, False, False]


def test_what_a_claim_rests_on_is_timed_at_every_seed_and_what_is_only_shown_at_one():
    timed = timed_specs("tiny")
    assert {(spec.method, spec.output_source) for spec, when in timed.items() if when == "every seed"} == {
        *(("srkl", "on-policy"), ("srkl", "mixed"), ("distillm", "adaptive-off-policy"), ("kld", "dataset")),
        *(("imitkd", "on-policy"), ("gkd", "mixed"), ("minillm", "roll-outs")),
    }
    shown = {spec for name in ("2", "main") for spec in tables("tiny")[name].specs}
    assert timed.keys() == shown
    made = plan("main", jobs=2)
    alone = {(run.spec.method, run.seed) for run in made.runs if run.exclusive}
    assert {seed for method, seed in alone if method == "kld"} == set(SEEDS)
    assert {seed for method, seed in alone if method == "sft"} == {10}


@pytest.mark.parametrize("jobs", [1, 2])
def test_times_of_other_hardware_than_most_are_taken_again_on_that_of_most(jobs):
    records = [make_record(method, seed=seed, init="sft")[0] for method in TABLE_1 for seed in SEEDS]
    assert not plan(records=records, jobs=jobs).to_do
    records = [altered(record, environment__threads=1) for record in records]
    assert not plan(records=records, jobs=jobs).to_do
    records[:3] = [altered(record, environment__threads=2) for record in records[:3]]
    again = plan(records=records, jobs=jobs).to_do
    assert [(run.spec.method, run.seed, run.retimed, run.threads) for run in again] == [
        ("kld", seed, True, 1) for seed in SEEDS
    ]
    assert all(run.exclusive is (jobs > 1) for run in again)
    assert environment({}, 0, jobs, again[0].threads)["OMP_NUM_THREADS"] == "1"
    records[0] = altered(records[0], environment__threads=1)
    assert [run.seed for run in plan(records=records, jobs=jobs).to_do] == [20, 30]
    records[0] = altered(records[0], environment__cpu="another")
    assert [run.seed for run in plan(records=records, jobs=jobs).to_do] == [10, 20, 30]


def test_a_machine_that_cannot_give_a_comparable_time_does_not_try():
    records = [make_record(method, seed=seed, init="sft")[0] for method in TABLE_1 for seed in SEEDS]
    records[0] = altered(records[0], environment__cpu="that of this machine")
    made = plan(records=records, here=("cpu", "that of this machine"))
    assert not made.to_do
    told = "  1 have no training time that can be compared, and get none here: most runs were timed on another machine"
    assert told in describe(made, 1)
    assert [run.retimed for run in plan(records=records, here=("cpu", "A CPU & Co")).to_do] == [True]
    name, cpu = this_machine()
    found = description(pick_device("auto"))
    assert (name, cpu) == (found.device_name, found.cpu)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_run_slower_than_its_arms_others_is_timed_again(jobs):
    records = [make_record(method, seed=seed, init="sft")[0] for method in TABLE_1 for seed in SEEDS]
    records[1] = altered(records[1], time__training_seconds=1.2 * records[1].time.training_seconds)
    made = plan(records=records, jobs=jobs)
    assert [(run.spec.method, run.seed, run.retimed) for run in made.to_do] == [("kld", 20, True)]
    assert made.to_do[0].exclusive is (jobs > 1)
    assert f"  slow: {records[1].run_id}, by 20%" in describe(made, jobs)
    assert not plan(records=records, jobs=jobs, times=False).to_do
    records[1] = altered(records[1], time__earlier=[50.0])  # made again, and as slow
    assert not plan(records=records, jobs=jobs).to_do
    # of what is only shown, at one seed, too: with one job all seeds have times
    records[4] = altered(records[4], time__training_seconds=1.2 * records[4].time.training_seconds)
    assert [(run.spec.method, run.seed) for run in plan(records=records, jobs=jobs).to_do] == [("rkld", 20)]


def test_a_single_run_slower_a_step_than_other_losses_is_timed_again():
    seconds = {"kld": 0.05, "rkld": 0.05, "jsd": 0.05, "skl": 0.0505, "srkl": 0.06}
    records = [
        altered(
            make_record(method, seed=10, init="sft")[0],
            time__steps={"dataset": {"count": 400, "median": median}},
            time__phases__teacher=5.0,
        )
        for method, median in seconds.items()
    ]
    made = plan(records=records, seeds=(10,))
    assert [(run.spec.method, run.seed) for run in made.to_do if run.retimed] == [("srkl", 10)]
    records[-1] = altered(records[-1], time__earlier=[50.0])
    assert not plan(records=records, seeds=(10,)).to_do


def test_one_job_takes_the_times_again_that_were_shared():
    shared, _ = make_record("kld", init="sft", seed=20, other_load=1.0)
    assert [(run.seed, run.retimed, run.exclusive) for run in plan(records=[shared]).runs if run.recorded] == [
        (20, True, False)
    ]
    # of a spec that is only shown, any seed's time will do
    records = [
        make_record("rkld", init="sft", seed=10, other_load=1.0)[0],
        make_record("rkld", init="sft", seed=30)[0],
    ]
    assert not any(run.retimed for run in plan(records=records).runs)


def test_the_estimate_comes_from_runs_of_the_same_kind():
    record, _ = make_record("kld", init="sft", seconds=50.0)  # 100 s in all
    made = plan(records=[record], seeds=(10, 20))
    assert made.estimate(1) == pytest.approx(9 * 100)
    assert made.estimate(3) == pytest.approx(3 * 100)
    assert plan(preset="small").estimate(1) is None
    table_3 = {"suite": "table3", "seeds": (10,), "only": ("kld",)}
    slow, _ = make_record("kld", "samsum", seconds=50.0)
    fast, _ = make_record("gkd", "samsum", seconds=10.0, models="tiny-t5-small")
    assert plan(records=[slow, fast], **table_3).estimate(1) == pytest.approx(20 + 2 * 60)  # IWSLT: as all


def test_a_guess_is_called_one_only_while_nothing_of_the_preset_is_recorded():
    assert "about 15 min (a guess until runs are recorded)" in list(describe(plan(), 1))
    other, _ = make_record("gkd", "samsum", seconds=10.0)
    assert list(describe(plan(records=[other]), 1)) == [
        "15 runs, 0 recorded, 15 to do, 1 at a time",
        "about 5 min (from the recorded runs)",
    ]


def test_unknown_names_are_told():
    with pytest.raises(BenchError, match="unknown suite 'tabel1': did you mean 'table1'"):
        run_specs("tabel1", "tiny")
    with pytest.raises(BenchError, match="--only sft: the suite has no such method; it has jsd, kld"):
        plan(only=("sft",))
    with pytest.raises(BenchError, match=r"training\.stesp"):
        plan(settings=("training.stesp=3",))


def test_each_process_gets_its_share_of_the_cores_and_of_the_gpus_named(monkeypatch):
    monkeypatch.setattr(executors, "usable_cores", lambda: 8)
    assert environment({}, 0, 2)["OMP_NUM_THREADS"] == "4"
    assert environment({"OMP_NUM_THREADS": "1"}, 0, 2)["OMP_NUM_THREADS"] == "1"
    assert [environment({"CUDA_VISIBLE_DEVICES": "2,5"}, slot, 3)["CUDA_VISIBLE_DEVICES"] for slot in range(3)] == [
        *("2", "5", "2")
    ]


def test_dry_run_prints_the_plan_and_commands_and_makes_nothing(command, out):
    result = command("suite", "table1", "--dry-run", "--out", out, "--jobs", 2)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "15 runs, 12 recorded, 3 to do, 2 at a time"
    assert [line for line in lines if line.startswith("bench run")] == [
        f"bench run --method srkl --task dolly --preset tiny --seed {seed}" for seed in SEEDS
    ]
    assert len(list(Store(out).all())) == 12
    (told,) = [line for line in lines if line.startswith("  table1: ")]
    assert re.fullmatch(r"  table1: Dolly \d+\.\d\d \(1 point: (over )?\d+\), SelfInst .*", told)


def test_without_records_a_dry_run_says_that_nothing_is_known_of_the_noise(command, tmp_path):
    told = " ".join(command("suite", "table1", "--dry-run", "--out", tmp_path).stdout.split())
    assert "what 3 of them could show is not known" in told


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("suite", "table9"), "unknown suite 'table9'"),
        (("suite", "main", "--seeds", "a"), "expected whole numbers"),
        (("suite", "main", "--seeds", ","), "at least one training seed"),
        (("suite", "main", "--preset", "huge"), "unknown preset 'huge'"),
    ],
)
def test_bad_input_is_told(command, tmp_path, arguments, said):
    result = command(*arguments, "--out", tmp_path)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr


# real runs

SETTINGS = short(training__checkpoint_seconds=0.05)
QUICK = [*SETTINGS, "--only", "kld", "--only", "srkl", "--seeds", "10", "--no-times"]


def start_suite(out, cache, *arguments):
    code = "from paper_tables.cli.suite import suite; from bench.cli.main import main; main.add_command(suite); main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, "suite", "table1", "--out", str(out), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "BENCH_CACHE": str(cache), "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.slow
def test_a_suite_killed_by_ctrl_c_leaves_no_process_and_goes_on(tmp_path, cache):
    long = ["--set", "training.steps=100000"]
    process = start_suite(tmp_path, cache, *QUICK, *long, "--jobs", "2")

    def begun():
        return {step.parent for step in tmp_path.glob("runs/*/work/step-*")}

    deadline = time.monotonic() + 120
    while len(begun()) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "goes on" in stderr
    assert len(children) >= 2
    assert not any(child.is_running() for child in children)
    # what was begun is to be gone on with, not begun again
    assert len(begun()) == 2


@pytest.mark.slow
def test_two_suites_on_one_folder_share_the_runs_out(tmp_path, cache):
    """The second does not wait for the run that the first is making; each is made once, by one of them."""
    arguments = [*SETTINGS, "--seeds", "10,20", "--no-times", "--only", "kld", "--only", "srkl"]
    both = [start_suite(tmp_path, cache, *arguments) for _ in range(2)]
    told = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    made = [re.findall(r"(?m)^\d+/4 (.+): done in", stderr) for _, stderr in told]
    left = [re.findall(r"(?m)^(.+): made by another process", stderr) for _, stderr in told]
    assert all(made), "both did part of the work"
    assert len(list(Store(tmp_path).all())) == 4
    # all but those that were waited for at the end, of which there is at most one each
    assert 4 <= len(made[0]) + len(made[1]) <= 6
    assert all(set(one) & set(other) == set() for one, other in zip(made, left, strict=True))


@pytest.mark.slow
def test_a_failed_run_does_not_stop_the_others_and_is_tried_again(tmp_path, cache):
    first = start_suite(tmp_path, cache, *SETTINGS, "--only", "kld", "--seeds", "10")
    stdout, stderr = first.communicate(timeout=120)
    assert first.returncode == 0, stderr
    assert re.search(r"all 1 runs are recorded", stdout)
    (record,) = Store(tmp_path).all()
    blocked = tmp_path / "runs" / record.run_id
    shutil.rmtree(blocked)
    blocked.write_text("in the way")

    second = start_suite(tmp_path, cache, *QUICK)
    _, stderr = second.communicate(timeout=120)
    assert second.returncode == 1
    assert "failed with exit code 2: bench run --method kld" in stderr
    assert "cannot write" in stderr
    assert "1 of 2 runs failed" in stderr
    assert "Traceback" not in stderr
    assert [r.config.method.name for r in Store(tmp_path).all()] == ["srkl"]

    blocked.unlink()
    third = start_suite(tmp_path, cache, *QUICK)
    stdout, stderr = third.communicate(timeout=120)
    assert third.returncode == 0, stderr
    assert "2 runs, 1 recorded, 1 to do" in stdout
    assert len(list(Store(tmp_path).all())) == 2


def test_each_suite_is_of_tables_that_exist():
    assert {name for suite in SUITES.values() for name in suite} <= all_tables("tiny").keys()
