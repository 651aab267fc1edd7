"""The Slurm executor without a Slurm: small programs answer in its place. test_system_slurm.py has a real one."""

import json
import subprocess
import sys
import time
from pathlib import Path

from experiments.errors import UserError
from scripts.scheduling import slurm
from scripts.scheduling.jobs import Job, Setting
from scripts.scheduling.slurm import Slurm, Worker, check_slurm, minutes

import pytest

COMMIT = "0123456789abcdef"


@pytest.fixture
def bin_folder(tmp_path, monkeypatch) -> Path:
    """The only folder on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def programs(folder: Path, **answers: str) -> None:
    """Gives each of Slurm's programs a shell script."""
    for name in ("sbatch", "srun", "squeue", "sinfo", "scontrol"):
        path = folder / name
        path.write_text(f"#!/bin/sh\n{answers.get(name, '')}\n")
        path.chmod(0o755)


def executor(tmp_path: Path) -> Slurm:
    return Slurm(Setting(tmp_path / "runs", 1, COMMIT), 2, "main", 30, 0, 4)


def job(seed: int = 0) -> Job:
    return Job("dpsom", "fast", seed)


SINFO = "echo 'main*|1:00:00'; echo 'gpu|infinite'"


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("30", 0.5), ("2:30", 2.5), ("1:00:00", 60), ("1-00:00:00", 1440), ("7-12:00:30", 10800.5)],
)
def test_slurms_limits_are_read(limit, expected):
    assert minutes(limit) == expected
    assert minutes("infinite") == minutes("n/a") == float("inf")


def test_no_slurm_is_one_line(bin_folder):
    with pytest.raises(UserError, match=r"no Slurm here \(sbatch is not on the PATH\).*--executor local"):
        check_slurm(None, 60)


@pytest.mark.parametrize(
    ("sinfo", "partition", "limit", "message"),
    [
        ("echo 'sinfo: error: no route' >&2; exit 1", None, 60, r"does not answer \(sinfo: error: no route\)"),
        (SINFO, "gpus", 60, "no partition 'gpus': did you mean gpu?"),
        (SINFO, "zzz", 60, "no partition 'zzz': there are gpu, main"),
        (SINFO, "main,zzz", 60, "no partition 'zzz': there are gpu, main"),
        (SINFO, None, 61, "--time-limit 61: partition main allows 60 minutes"),
        ("echo 'gpu|infinite'", None, 60, "no default partition: choose one with --partition .gpu."),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_submitted(bin_folder, sinfo, partition, limit, message):
    programs(bin_folder, sinfo=sinfo)
    with pytest.raises(UserError, match=message) as error:
        check_slurm(partition, limit)
    assert "\n" not in str(error.value)


def test_the_partition_may_come_from_sbatchs_variable(bin_folder, monkeypatch):
    programs(bin_folder, sinfo="echo 'gpu|infinite'")
    monkeypatch.setenv("SBATCH_PARTITION", "gpu")
    check_slurm(None, 60)
    programs(bin_folder, sinfo=SINFO)
    check_slurm("main,gpu", 61)  # the longer limit is the other's
    with pytest.raises(UserError, match="no partition 'zzz'"):
        check_slurm("zzz", 60)


def test_a_refused_submission_is_one_line(bin_folder, tmp_path):
    refusal = "echo 'sbatch: error: Batch job submission failed: Invalid account' >&2; exit 1"
    programs(bin_folder, sinfo=SINFO, sbatch=refusal)
    with pytest.raises(UserError, match=r"refuses the jobs: Batch job submission failed: Invalid account$"):
        executor(tmp_path).start([job(0), job(1)])


def queued(tmp_path: Path, commit: str = COMMIT) -> Path:
    """An array of two runs as a former reproduce.py has left it."""
    folder = tmp_path / "runs" / "slurm" / "reproduce-1"
    folder.mkdir(parents=True)
    (folder / "runs.json").write_text(json.dumps({"code": commit, "runs": [job(0).key, job(1).key]}))
    return folder


QUEUE = "echo '0|FAILED|None|reproduce-1'; echo '1|PENDING|Resources|reproduce-1'; echo 'N/A|RUNNING|None|their|own'"


@pytest.mark.parametrize(("commit", "adopted"), [(COMMIT, [1]), ("another", [])])
def test_what_is_in_the_queue_is_not_submitted_again(bin_folder, tmp_path, commit, adopted):
    programs(bin_folder, sinfo=SINFO, squeue=QUEUE)
    queued(tmp_path, commit)
    ours = executor(tmp_path)
    ours.adopt([job(0), job(1), job(2)])
    assert [job.seed for job in ours.running] == adopted
    assert ours.status() == "Slurm: " + "1 pending (Resources)" * len(adopted)


def test_a_job_ends_by_its_exit_status_or_by_its_state(bin_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(slurm, "POLL_SECONDS", -1)
    monkeypatch.setattr(slurm, "LAG_SECONDS", -1)
    programs(bin_folder, sinfo=SINFO, squeue="echo '0|RUNNING|None|reproduce-1'; echo '1|RUNNING|None|reproduce-1'")
    folder = queued(tmp_path)
    ours = executor(tmp_path)
    ours.adopt([job(0), job(1)])
    assert ours.ended() == []
    assert ours.status() == "Slurm: 2 running"
    (folder / "0.exit").write_text("2")
    (ended,) = ours.ended()
    assert (ended.job.seed, ended.exit_status) == (0, 2)
    programs(bin_folder, squeue="exit 1")
    assert ours.ended() == [], "a controller that is away says nothing about its jobs"
    assert ours.status() == "waiting for Slurm to answer"
    programs(bin_folder, squeue="echo '1|CANCELLED|None|reproduce-1'")
    (ended,) = ours.ended()
    assert (ended.job.seed, ended.exit_status, ended.on_purpose) == (1, None, True)
    assert ended.reason == "Slurm says CANCELLED: it left no log"
    assert not ours.running


def test_a_job_that_slurm_has_forgotten_is_gone(bin_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(slurm, "POLL_SECONDS", -1)
    monkeypatch.setattr(slurm, "LAG_SECONDS", -1)
    programs(bin_folder, sinfo=SINFO, squeue=QUEUE)
    queued(tmp_path)
    ours = executor(tmp_path)
    ours.adopt([job(1)])
    programs(bin_folder, squeue="")
    (ended,) = ours.ended()
    assert (ended.exit_status, ended.on_purpose) == (None, False)


def test_a_controller_that_stays_away_is_given_up(bin_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(slurm, "PATIENCE_SECONDS", -1)
    programs(bin_folder, sinfo=SINFO, squeue="echo 'squeue: error: down' >&2; exit 1")
    with pytest.raises(UserError, match=r"not answered for ten minutes \(squeue: error: down\)"):
        executor(tmp_path).poll()


@pytest.mark.parametrize(
    ("script", "exit_status"), [("exit 0", "0"), ("exit 2", "2"), ("exit 143", None), ("kill -9 $$", None)]
)
def test_a_worker_leaves_the_exit_status_of_a_run_that_ended_by_itself(tmp_path, monkeypatch, script, exit_status):
    monkeypatch.setattr(slurm, "train", lambda *_: subprocess.Popen(["sh", "-c", script]))
    worker = Worker(job(), Setting(tmp_path / "runs", 1, COMMIT), tmp_path / "0.exit")
    if exit_status == "0":
        worker()
    else:
        with pytest.raises(RuntimeError, match="the training ended with exit status"):
            worker()
    assert (worker.exit_file.read_text() if worker.exit_file.exists() else None) == exit_status


def test_before_the_time_limit_a_worker_interrupts_its_run_and_is_pickled_without_it(tmp_path):
    worker = Worker(job(), Setting(tmp_path / "runs", 1, COMMIT), tmp_path / "0.exit")
    script = (
        "import pathlib, signal, sys, time\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\n"
        "def save(*_):\n    (folder / 'state').write_text('saved')\n    sys.exit(130)\n"
        "signal.signal(signal.SIGINT, save)\n"
        "(folder / 'ready').touch()\n"
        "time.sleep(60)\n"
    )
    worker.process = subprocess.Popen([sys.executable, "-c", script])
    while not (tmp_path / "ready").exists():
        time.sleep(0.05)
    again = worker.checkpoint().function
    assert (tmp_path / "state").read_text() == "saved", "it waits until the run has saved"
    assert (again.process, again.job, again.exit_file) == (None, worker.job, worker.exit_file)
    assert worker.process.wait() == 130


def test_a_workers_log_is_found_of_an_array_and_of_a_single_job(tmp_path):
    array, single = tmp_path / "array", tmp_path / "single"
    for folder, names in ((array, ("12_0_0", "12_4_0", "12_10_0", "12_14_0")), (single, ("12_0", "13_0"))):
        folder.mkdir()
        for name in names:
            (folder / f"{name}_log.err").touch()
    found = {index: [log.name for log in slurm.worker_logs(array, index)] for index in (0, 1, 4)}
    assert found == {0: ["12_0_0_log.err"], 1: [], 4: ["12_4_0_log.err"]}
    assert [log.name for log in slurm.worker_logs(single, 0)] == ["12_0_log.err", "13_0_log.err"]
