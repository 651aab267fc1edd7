"""scripts/reproduce.py on a small experiment that behaves as this project's do: plan, run, resume, stop, record."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

from experiments import PROJECT
from experiments.errors import UserError
from experiments.record import Provenance
from scripts import reproduce
from scripts.contents import TABLES
from scripts.records import load_records, write_result
from scripts.rendering.ablation import render_ablation
from scripts.rendering.results import Row, Runs, Table, beside
from scripts.scheduling import collecting, execution, jobs, plan
from scripts.scheduling.collecting import collect, config_name_of
from scripts.scheduling.executors import Local
from scripts.scheduling.jobs import COMMENT, Job, Setting, look_up
from scripts.scheduling.plan import estimate, missing, named_config, resolve_config, wanted

import pytest
from sacred.arg_parser import get_config_updates
from tqdm import tqdm

COMMIT = "0123456789abcdef"

EXPERIMENT = """
import json, os, signal, sys, time
from pathlib import Path
from sacred import Experiment, SETTINGS
from sacred.arg_parser import get_config_updates
from sacred.observers import FileStorageObserver

if __name__ == "__main__":  # these settings are global: the tests that import this file keep theirs
    SETTINGS.CAPTURE_MODE = "no"
    SETTINGS.HOST_INFO.INCLUDE_GPU_INFO = False
ex = Experiment("dummy", save_git_info=False)
ex.add_config(seed=0, resume=None, epochs=2, fail=False, dies_after=[], compute=dict(threads=None, precision="fp32"),
              tracking=dict(runs_dir="runs"))
ex.add_named_config("quick", epochs=3)
ex.add_named_config("long", epochs=600)
ex.add_named_config("rounded", compute=dict(precision="bf16"))
ex.add_named_config("broken", fail=True)
ex.add_named_config("mortal", dies_after=[1])
ex.add_named_config("doomed", dies_after=[1, 2, 3], epochs=4)

@ex.config_hook
def observe(config, command_name, logger):
    if command_name == "main":
        ex.observers[:] = [FileStorageObserver(Path(config["tracking"]["runs_dir"]) / "dummy")]
    return {}

@ex.main
def main(_run, _config, seed, epochs, resume, fail, dies_after):
    folder = Path(_run.observers[0].dir)
    first = int(Path(resume, "checkpoint.pt").read_text()) if resume else 0
    for epoch in range(first, epochs):
        (folder / "checkpoint.pt").write_text(str(epoch + 1))
        time.sleep(0.05)
        if epoch + 1 in dies_after:
            os.kill(os.getpid(), signal.SIGKILL)
    if fail:
        print("working\\rstill working\\n", file=sys.stderr)
        raise SystemExit("error: the map collapsed: lower loss.gamma")
    record = {"format": 1, "experiment": "dummy", "config_name": None, "seed": seed, "status": "COMPLETED",
              "config": json.loads(json.dumps(_config)), "curve": [],
              "metrics": {"test/purity": 0.5 + seed / 100, "first_epoch": first},
              "seconds": {"all": 0.05 * epochs}, "git_commit": os.environ["COMMIT"], "git_dirty": False,
              "versions": {}, "hardware": {"device": "cpu", "gpu": None}, "data_checksum": "abc"}
    record["config"]["tracking"] = {"runs_dir": "runs"}
    record["config"]["resume"] = None
    (folder / "record.json").write_text(json.dumps(record))

if __name__ == "__main__":
    settings = [argument for argument in sys.argv[2:] if not argument.startswith("--")]
    given, _ = get_config_updates(settings)
    if "resume" in given:
        config = json.loads(Path(given["resume"], "config.json").read_text()) | given
        ex.run(config_updates=config, options={"--comment": sys.argv[-1].removeprefix("--comment=")})
    else:
        ex.run_commandline()
"""

DRIVER = """
import sys
sys.path.insert(0, {tests!r})
import test_reproduce
from scripts import reproduce
test_reproduce.install({folder!r})
sys.exit(reproduce.main(sys.argv[1:]))
"""


def install(folder: str, patch=setattr) -> None:
    """Makes reproduce.py see the experiment in `folder`, and one table that asks for it."""
    folder = Path(folder)
    os.environ["COMMIT"] = COMMIT
    spec = importlib.util.spec_from_file_location("dummy", folder / "dummy.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    rows = [
        Runs("dummy", name, ((2, order),), 1)
        for name, order in (("quick", 2), ("broken", 1), ("long", 3), ("rounded", 4))
    ]
    table = Table(
        title="Dummy",
        reading="",
        render=render_ablation,
        metrics={"test/purity": "purity"},
        rows=beside(*rows),
    )
    named_config.cache_clear()
    for user in (plan, collecting):
        patch(user, "load_experiment", lambda name: module.ex)
    patch(jobs, "program", lambda name: folder / "dummy.py")
    patch(Provenance, "now", lambda: Provenance(COMMIT, False))
    patch(jobs, "HEARTBEAT_SECONDS", 1)
    patch(reproduce, "gpus", list)
    TABLES["dummy"] = table


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    (tmp_path / "dummy.py").write_text(EXPERIMENT)
    (tmp_path / "driver.py").write_text(DRIVER.format(tests=str(Path(__file__).parent), folder=str(tmp_path)))
    (tmp_path / "results").mkdir()
    shutil.copy(PROJECT / "results" / "references.yaml", tmp_path / "results")
    monkeypatch.setitem(TABLES, "dummy", None)
    monkeypatch.setenv("COMMIT", COMMIT)
    install(str(tmp_path), monkeypatch.setattr)
    yield tmp_path
    named_config.cache_clear()


def arguments(folder: Path, *more: str) -> list[str]:
    return ["--tables", "dummy", "--runs-dir", str(folder / "runs"), "--results", str(folder / "results"), *more]


def make_run(
    folder: Path, number: int, status: str, comment: str | None = COMMENT + COMMIT, age: float = 100, **config
):
    """A run folder of the config `quick` as Sacred leaves it; `age`: seconds since its last heartbeat."""
    run = folder / "runs" / "dummy" / str(number)
    run.mkdir(parents=True)
    values = resolve_config(plan.load_experiment("dummy"), "quick") | {"tracking": {"runs_dir": "x"}} | config
    (run / "config.json").write_text(json.dumps(values))
    (run / "run.json").write_text(json.dumps({"status": status, "meta": {"comment": comment} if comment else {}}))
    os.utime(run / "run.json", (time.time() - age,) * 2)
    return run


def finished(run: Path, commit=COMMIT, **changes) -> dict:
    record = {
        "format": 1,
        "experiment": "dummy",
        "config_name": None,
        "seed": 0,
        "status": "COMPLETED",
        "config": json.loads((run / "config.json").read_text()),
        "metrics": {"test/purity": 0.5},
        "curve": [],
        "seconds": {"all": 90.0},
        "git_commit": commit,
        "git_dirty": False,
        "versions": {},
        "hardware": {"device": "cpu", "gpu": None},
        "data_checksum": "abc",
    } | changes
    (run / "record.json").write_text(json.dumps(record))
    return record


def state(folder: Path, seed: int = 0, code: str = COMMIT) -> tuple[str, str | None]:
    """What reproduce.py would do about `quick`, and with which run folder."""
    job = Job("dummy", "quick", seed, named_config("dummy", "quick"))
    look_up(job, Setting(folder / "runs", 1, code))
    return job.action, job.folder and job.folder.name


# ----------------------------------------------------------------------------------------------------------------- plan


def test_a_named_config_is_resolved_without_running(folder):
    config = resolve_config(plan.load_experiment("dummy"), "quick", seed=3)
    assert config == {
        "seed": 3,
        "resume": None,
        "epochs": 3,
        "fail": False,
        "dies_after": [],
        "compute": {"threads": None, "precision": "fp32"},
        "tracking": {"runs_dir": "runs"},
    }
    assert not (folder / "runs").exists()
    with pytest.raises(UserError, match="no named config 'quik'"):
        resolve_config(plan.load_experiment("dummy"), "quik")


def test_lower_orders_go_first_then_seeds_then_rows(folder):
    order = [(job.config_name, job.seed) for job in wanted(["dummy"], [], None)]
    assert order == [
        ("broken", 0),
        ("broken", 1),
        ("quick", 0),
        ("quick", 1),
        ("long", 0),
        ("long", 1),
        ("rounded", 0),
        ("rounded", 1),
    ]
    assert [(j.config_name, j.seed) for j in wanted(["dummy"], ["quick"], 3)] == [("quick", s) for s in range(3)]
    with pytest.raises(UserError, match=r"no row quik in dummy: did you mean quick\?"):
        wanted(["dummy"], ["quik"], None)


def test_the_whole_plan_follows_the_standing_order():
    every = wanted([name for name in TABLES if name != "dummy"], [], None)
    names = [job.config_name for job in every]
    first = {(job.experiment, job.config_name, job.seed) for job in every[:10]}
    assert first == {("dpsom", name, seed) for name in ("mnist", "fmnist") for seed in range(5)}, "alone at order 1"
    assert names.index("mnist_faithful") > names.index("fmnist")
    assert names.index("mnist_conv_faithful") > names.index("short")
    assert len({job.key for job in every}) == len(every)


def test_runs_that_nobody_asked_for_must_be_named():
    assert "eicu" not in {job.config_name for job in wanted(["tdpsom"], [], 2)}
    assert [(job.config_name, job.seed) for job in wanted(["tdpsom"], ["eicu"], 2)] == [("eicu", 0), ("eicu", 1)]
    with pytest.raises(UserError, match="tdpsom/eicu is trained only when its seeds are asked for: add --seeds 1"):
        wanted(["tdpsom"], ["eicu"], None)


def test_a_row_may_be_named_with_its_experiment():
    jobs = wanted(list(TABLES), ["somvae/mnist"], 1)
    assert [job.row for job in jobs] == ["somvae/mnist"]


def test_the_estimate_takes_records_of_the_same_kind_of_device(folder):
    run = make_run(folder, 1, "COMPLETED")
    finished(run)
    collect(run, "quick", folder / "results" / "runs")
    records = load_records(folder / "results" / "runs")
    job = Job("dummy", "quick", 1, estimate=60)
    assert estimate(job, records, on_gpu=False) == 90
    assert estimate(job, records, on_gpu=True) == 60, "the table's own minute"
    assert missing([Job(job.experiment, job.config_name, 0), job], records) == [job]


@pytest.mark.parametrize(
    ("status", "changes", "expected"),
    [
        ("INTERRUPTED", {}, "resume"),
        ("RUNNING", {}, "resume"),
        ("RUNNING", {"age": 0}, "wait"),
        ("FAILED", {}, "resume"),
        ("INTERRUPTED", {"comment": COMMENT + "another"}, "start"),
        ("INTERRUPTED", {"comment": None}, "start"),
        ("INTERRUPTED", {"seed": 1}, "start"),
        ("INTERRUPTED", {"epochs": 4}, "start"),
        ("INTERRUPTED", {"compute": {"threads": 7, "precision": "fp32"}}, "resume"),
        ("INTERRUPTED", {"compute": {"threads": None, "precision": "bf16"}}, "start"),
    ],
)
def test_only_the_same_run_of_the_same_code_is_resumed(folder, status, changes, expected):
    run = make_run(folder, 1, status, **changes)
    assert state(folder)[0] == ("wait" if expected == "wait" else "start"), "there is no checkpoint"
    (run / "checkpoint.pt").write_text("1")
    assert state(folder)[0] == expected


def test_a_run_that_failed_by_itself_starts_anew(folder):
    run = make_run(folder, 1, "FAILED")
    (run / "checkpoint.pt").write_text("1")
    (run / "failed.pt").write_text("1")
    assert state(folder)[0] == "start"


def test_the_latest_checkpoint_is_resumed_and_broken_folders_are_passed_over(folder):
    for number, age in ((1, 300), (2, 100), (3, 200)):
        checkpoint = make_run(folder, number, "INTERRUPTED") / "checkpoint.pt"
        checkpoint.write_text("1")
        os.utime(checkpoint, (time.time() - age,) * 2)
    (make_run(folder, 4, "RUNNING") / "config.json").write_text('{"seed": 0, "ep')
    (folder / "runs" / "dummy" / "_sources").mkdir()
    assert state(folder) == ("resume", "2")
    finished(make_run(folder, 5, "COMPLETED"))
    assert state(folder) == ("collect", "5")


def test_a_finished_run_of_changed_code_is_taken_only_with_the_same_changes(folder):
    changed = f"{COMMIT} with changes 123"
    finished(make_run(folder, 1, "COMPLETED", comment=COMMENT + changed), git_dirty=True)
    assert state(folder, code=changed) == ("collect", "1")
    for other in (f"{COMMIT} with changes 456", COMMIT):
        assert state(folder, code=other) == ("start", None)


def test_a_finished_run_by_hand_is_taken_only_from_clean_code(folder):
    run = make_run(folder, 1, "COMPLETED", comment=None)
    finished(run, git_dirty=True)
    for code in (COMMIT, f"{COMMIT} with changes 123"):
        assert state(folder, code=code) == ("start", None)
    finished(run)
    assert state(folder) == ("collect", "1")


def test_a_finished_run_of_other_code_is_not_taken(folder):
    finished(make_run(folder, 1, "COMPLETED", comment=None), commit="another")
    assert state(folder)[0] == "start"


# -------------------------------------------------------------------------------------------------------------- collect


def test_a_hand_made_run_is_collected_under_its_config(folder, capsys):
    run = make_run(folder, 1, "COMPLETED", comment=None)
    record = finished(run, commit="another")
    assert config_name_of(run, None) == config_name_of(run, "dummy/quick") == "quick"
    with pytest.raises(UserError, match="is a run of dummy, not of somvae"):
        config_name_of(run, "somvae/quick")
    assert reproduce.main(["--collect", str(run), "--results", str(folder / "results")]) == 0
    path = folder / "results" / "runs" / "dummy" / "quick" / "0.json"
    assert json.loads(path.read_text()) == record | {"config_name": "quick"}
    assert reproduce.main(["--collect", str(run), "--results", str(folder / "results")]) == 0, "again changes nothing"
    finished(run, metrics={"test/purity": 0.6})
    assert reproduce.main(["--collect", str(run), "--results", str(folder / "results")]) == 2
    assert "already records another run" in capsys.readouterr().err
    assert [p.name for p in path.parent.iterdir()] == ["0.json"]


def test_a_run_of_other_data_does_not_join_a_row(folder, capsys):
    for number, seed, checksum in ((1, 0, "abc"), (2, 1, "other")):
        run = make_run(folder, number, "COMPLETED", seed=seed, comment=None)
        finished(run, seed=seed, data_checksum=checksum)
    collect_run = ["--results", str(folder / "results"), "--collect"]
    assert reproduce.main([*collect_run, str(folder / "runs" / "dummy" / "1")]) == 0
    assert reproduce.main([*collect_run, str(folder / "runs" / "dummy" / "2")]) == 2
    assert "disagree: they were run on different data" in capsys.readouterr().err
    assert len(load_records(folder / "results" / "runs")) == 1


def test_a_row_whose_config_has_changed_is_noticed_before_training(folder, capsys):
    run = make_run(folder, 1, "COMPLETED", comment=None)
    finished(run)
    collect(run, "quick", folder / "results" / "runs")
    path = folder / "results" / "runs" / "dummy" / "quick" / "0.json"
    record = json.loads(path.read_text())
    record["config"]["epochs"] = 99
    path.write_text(json.dumps(record))
    assert reproduce.main(arguments(folder, "--rows", "quick", "--seeds", "2")) == 2
    assert "the records of dummy/quick have another epochs than its config today" in capsys.readouterr().err
    assert sorted(path.name for path in (folder / "runs" / "dummy").iterdir()) == ["1"]


@pytest.mark.parametrize(("seed", "kept"), [(0, ["map.npz", "trajectories.npz"]), (1, [])])
def test_the_first_seed_leaves_its_trained_map(folder, seed, kept):
    run = make_run(folder, 1, "COMPLETED", seed=seed, comment=None)
    finished(run, seed=seed, config={**json.loads((run / "config.json").read_text()), "seed": seed})
    for name in ("map.npz", "trajectories.npz"):
        (run / name).write_bytes(name.encode())
    assert reproduce.main(["--collect", str(run), "--results", str(folder / "results")]) == 0
    maps = folder / "results" / "maps" / "dummy" / "quick"
    assert sorted(path.name for path in maps.glob("*")) == kept
    assert all((maps / name).read_bytes() == name.encode() for name in kept)


@pytest.mark.parametrize(
    ("status", "changes", "message"),
    [
        ("INTERRUPTED", {}, "only COMPLETED"),
        ("FAILED", {}, "only COMPLETED"),
        ("RUNNING", {}, "only COMPLETED"),
        ("COMPLETED", {"status": "INTERRUPTED"}, "only COMPLETED"),
        ("COMPLETED", {"config": {"seed": 0}}, "differs in compute.precision, dies_after, epochs, fail"),
        ("COMPLETED", {"format": 2}, "record format 2"),
        ("COMPLETED", {"metrics": {"test/purity": float("inf")}}, "not a finite number"),
    ],
)
def test_nothing_else_becomes_a_record(folder, status, changes, message):
    run = make_run(folder, 1, status)
    finished(run, **changes)
    with pytest.raises(UserError, match=message):
        collect(run, "quick", folder / "results" / "runs")
    assert not (folder / "results" / "runs").exists()


def test_a_changed_config_has_no_name(folder):
    run = make_run(folder, 1, "COMPLETED", epochs=17)
    finished(run)
    with pytest.raises(UserError, match="no named config"):
        config_name_of(run, None)


def test_the_config_of_a_run_that_goes_on_is_not_asked_for(folder):
    with pytest.raises(UserError, match="is not a finished run"):
        config_name_of(make_run(folder, 1, "RUNNING"), None)


# ------------------------------------------------------------------------------------------------------------ execution


@pytest.mark.parametrize("native", [False, True])
def test_how_many_runs_emulate_bfloat16_is_told(folder, monkeypatch, capsys, native):
    monkeypatch.setattr(reproduce.bfloat16, "processor_has_it", lambda: native)
    assert reproduce.main(arguments(folder, "--rows", "quick", "rounded", "--dry-run")) == 0
    assert ("(2 of these runs)" in capsys.readouterr().out) != native


def test_runs_are_made_recorded_rendered_and_not_repeated(folder, capsys):
    assert reproduce.main(arguments(folder, "--rows", "quick", "--dry-run")) == 0
    assert "2 runs are missing" in capsys.readouterr().out
    assert not (folder / "runs").exists()
    assert reproduce.main(arguments(folder, "--rows", "quick", "--jobs", "2")) == 0
    records = load_records(folder / "results" / "runs")
    assert [(r.config_name, r.seed, r.metrics["test/purity"]) for r in records] == [
        ("quick", 0, 0.5),
        ("quick", 1, 0.51),
    ]
    assert "| `quick` | (base) | 2 |" in (folder / "results" / "tables" / "dummy.md").read_text()
    capsys.readouterr()
    assert reproduce.main(arguments(folder, "--rows", "quick")) == 0
    assert "nothing is missing" in capsys.readouterr().out


def test_a_failed_run_is_reported_and_does_not_stop_the_others(folder, capsys):
    assert reproduce.main(arguments(folder, "--rows", "broken", "quick", "--seeds", "1")) == 1
    captured = capsys.readouterr()
    assert "dummy broken seed 0: failed with exit status 1: error: the map collapsed: lower loss.gamma" in captured.err
    assert "1 recorded, 1 missing" in captured.out
    assert [record.config_name for record in load_records(folder / "results" / "runs")] == ["quick"]


def test_a_killed_run_resumes_and_a_finished_one_is_only_recorded(folder):
    (make_run(folder, 1, "RUNNING") / "checkpoint.pt").write_text("2")
    finished(make_run(folder, 2, "COMPLETED", seed=1), seed=1, metrics={"test/purity": 0.77})
    assert reproduce.main(arguments(folder, "--rows", "quick")) == 0
    first, second = load_records(folder / "results" / "runs")
    assert first.metrics["first_epoch"] == 2
    assert second.metrics == {"test/purity": 0.77}
    assert sorted(path.name for path in (folder / "runs" / "dummy").glob("[0-9]*")) == ["1", "2", "3"]


def test_a_run_that_dies_is_resumed_but_not_for_ever(folder, capsys, monkeypatch):
    rows = tuple(Row((), Runs("dummy", name, ((1, 1),), 1)) for name in ("mortal", "doomed"))
    monkeypatch.setitem(TABLES, "dummy", replace(TABLES["dummy"], rows=rows))
    assert reproduce.main(arguments(folder, "--jobs", "2", "--retries", "2")) == 1
    output = capsys.readouterr()
    for line in (
        "died, retry 1 of 2: dummy mortal seed 0: killed by signal 9",
        "died, retry 2 of 2: dummy doomed seed 0: killed by signal 9",
        "missing: dummy doomed seed 0: it died (killed by signal 9) after 2 retries",
    ):
        assert line in output.err
    (record,) = load_records(folder / "results" / "runs")
    assert (record.config_name, record.metrics["first_epoch"]) == ("mortal", 1)
    assert len(list((folder / "runs" / "dummy").glob("[0-9]*"))) == 2 + 3


@pytest.mark.parametrize(
    ("status", "ended"),
    [(0, (0, "")), (2, (2, "")), (-9, (None, "killed by signal 9")), (143, (None, "killed by signal 15"))],
)
def test_a_run_that_was_stopped_from_outside_has_died(status, ended):
    executor = Local(Setting(Path("runs"), 1, COMMIT), 1, [])
    job = Job("dummy", "quick", 0)
    executor.running.append(job)
    executor.processes[job.key] = (SimpleNamespace(poll=lambda: status), 0, 0.0)
    (found,) = executor.ended()
    assert (found.exit_status, found.reason) == ended


@pytest.mark.parametrize(
    ("estimate", "elapsed", "done", "left"),
    [(10_000, 10, 100, 9_990), (5, 3_600, 100, 39 * 3_600), (5, 60, 1_000, 180), (5, 60, 0, 0)],
    ids=["by its estimate", "by its bar in hours", "by its bar", "by a bar that does not know"],
)
def test_a_run_takes_at_least_as_long_as_its_own_bar_says(tmp_path, estimate, elapsed, done, left):
    executor = Local(Setting(tmp_path, 1, COMMIT), 2, [])
    job = Job("dummy", "quick", 0, estimate=estimate)
    executor.running.append(job)
    executor.processes[job.key] = (SimpleNamespace(), 0, time.time() - elapsed)
    log = jobs.log_of(job, executor.setting)
    log.parent.mkdir()
    bars = [tqdm.format_meter(n, 4_000, elapsed, unit="step", prefix="joint 3/9") for n in (done // 2, done)]
    log.write_text("note: a line before\n" + "\r".join(bars))
    waiting = Job(job.experiment, job.config_name, 1, estimate=100.0)
    assert executor.seconds_left([waiting]) == pytest.approx((left + 100) / 2, abs=1)


def test_of_a_long_log_only_the_end_is_read(tmp_path, monkeypatch):
    log = tmp_path / "log"
    log.write_text("a bar\r" * 10_000 + "an error ü\n\n")
    assert jobs.last_line(log) == "an error ü"
    monkeypatch.setattr(jobs, "END_OF_LOG", 13)
    assert jobs.last_line(log) == "an error ü"


@pytest.mark.parametrize("name", ["2026", "1e3", "None", "a b", "it's"])
def test_folders_of_any_name_reach_the_run_as_they_are(tmp_path, monkeypatch, name):
    monkeypatch.setattr(jobs, "PROJECT", tmp_path)  # to which the command states the folder relatively
    settings = jobs.command(Job("dummy", "quick", 0), Setting(tmp_path / name, 1, COMMIT))[3:-1]
    assert get_config_updates(settings)[0]["tracking"]["runs_dir"] == name
    resumed = Job("dummy", "quick", 0, action="resume", folder=tmp_path / name)
    settings = jobs.command(resumed, Setting(tmp_path / "runs", 1, COMMIT))[3:-1]
    assert get_config_updates(settings)[0]["resume"] == name


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_reaches_the_run_and_the_same_command_continues(folder, number):
    command = [sys.executable, str(folder / "driver.py"), *arguments(folder, "--rows", "long", "--seeds", "1")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    checkpoint = folder / "runs" / "dummy" / "1" / "checkpoint.pt"
    deadline = time.time() + 60
    while not checkpoint.exists() and time.time() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "continue with: python scripts/reproduce.py --tables dummy" in errors
    assert json.loads((checkpoint.parent / "run.json").read_text())["status"] == "INTERRUPTED"
    assert not (folder / "results" / "runs").exists()
    checkpoint.write_text("598")
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    record = json.loads((folder / "results" / "runs" / "dummy" / "long" / "0.json").read_text())
    assert record["metrics"]["first_epoch"] == 598


def test_a_run_that_lives_elsewhere_is_left_alone(folder, capsys, monkeypatch):
    monkeypatch.setattr(jobs, "HEARTBEAT_SECONDS", -14)  # gives up after one second
    for user in (reproduce, execution):
        monkeypatch.setattr(user, "look_up", lambda job, *_: vars(job).update(action="wait", folder=folder / "runs"))
    assert reproduce.main(arguments(folder, "--rows", "quick", "--seeds", "1")) == 1
    assert "repeat this command when it has ended" in capsys.readouterr().err
    assert not (folder / "runs" / "dummy").exists()


def test_what_another_command_has_just_started_is_not_started_again(folder, capsys, monkeypatch):
    """Its run folder does not say so before Sacred has begun."""
    monkeypatch.setattr(jobs, "HEARTBEAT_SECONDS", -13)  # gives up after two seconds
    setting = Setting(folder / "runs", 1, COMMIT)
    job = Job("dummy", "quick", 0)
    with monkeypatch.context() as patch:
        patch.setattr(jobs, "command", lambda *_: ["sleep", "600"])
        other = jobs.train(job, setting)
    assert reproduce.main(arguments(folder, "--rows", "quick", "--seeds", "1")) == 1
    assert "missing: dummy quick seed 0: it is running; repeat this command" in capsys.readouterr().err
    with pytest.raises(jobs.Taken, match="another command is training dummy quick seed 0"):
        jobs.train(job, setting)
    other.kill()
    other.wait()
    assert reproduce.main(arguments(folder, "--rows", "quick", "--seeds", "1")) == 0


def test_a_folder_that_cannot_be_written_is_one_line(folder, capsys):
    (folder / "runs").touch()
    assert reproduce.main(arguments(folder, "--rows", "quick")) == 2
    assert "error: cannot write" in capsys.readouterr().err.splitlines()[-1]


def test_what_cannot_be_recorded_is_reported_and_no_run_is_left_behind(folder, capsys, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(execution, "collect", lambda *_: write_result(folder / "dummy.py" / "0.json", b""))
        assert reproduce.main(arguments(folder, "--rows", "quick", "--seeds", "1")) == 1
        assert "missing: dummy quick seed 0: cannot write" in capsys.readouterr().err
    executor = Local(Setting(folder / "runs", 1, COMMIT), 1, [])
    monkeypatch.setattr(reproduce, "make_executor", lambda *_: executor)
    monkeypatch.setattr(executor, "ended", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        reproduce.main(arguments(folder, "--rows", "long", "--seeds", "1"))
    ((process, _, _),) = executor.processes.values()
    assert process.poll() is not None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--collect", "runs/dpsom/1", "--dry-run"], "give one of them"),
        (["--tables", "nothing"], "no table nothing"),
        (["--seeds", "0"], "--seeds 0"),
        (["--jobs", "-1"], "--jobs -1"),
        (["--retries", "-1"], "--retries -1"),
        (["--executor", "slurm", "--time-limit", "0"], "--time-limit 0"),
        (["--gpus", "1"], "--gpus is of Slurm's jobs: add --executor slurm"),
        (["--collect", "runs/dpsom/1", "--rows", "mnist", "fmnist"], "give one config in --rows"),
        (["--results", "nowhere", "--dry-run"], "nowhere/references.yaml"),
    ],
)
def test_wrong_arguments_are_one_line(wrong, message, capsys):
    assert reproduce.main(wrong) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
