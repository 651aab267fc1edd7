"""reproduce.py on a real Slurm of two nodes: whatever happens to jobs and controller, every run finishes exactly once.

Needs Debian packages: `make test-slurm`.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from experiments import PROJECT
from scripts.records import load_records
from scripts.scheduling.slurm import minutes

import pymongo
import pytest
from slurm import Cluster

RUNS = [("dpsom", 0), ("somvae", 0), ("topography", 0), ("topography", 1)]

DRIVER = """
import sys
from scripts import reproduce
from scripts.rendering.metrics import render_metrics
from scripts.rendering.results import Row, Runs, Table
from scripts.contents import TABLES
rows = (("dpsom", 1), ("topography", 2), ("somvae", 1))
TABLES["fast"] = Table(
    title="Fast", reading="", render=render_metrics, labels=("config",),
    metrics={"nmi_geometric": "NMI", "purity": "purity", "quantization_error": "error"},
    rows=tuple(Row((name,), Runs(name, "fast", ((seeds, 1),), 1)) for name, seeds in rows),
)
reproduce.cores = lambda: 1  # one thread for local runs, as for those on the nodes
sys.exit(reproduce.main(["--tables", "fast", *sys.argv[1:]]))
"""

pytestmark = pytest.mark.slurm


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        yield cluster.start()
    finally:
        cluster.stop()


class Sweep:
    """reproduce.py for the four `fast` runs, in a folder of its own."""

    def __init__(self, folder: Path, environment: dict[str, str], *options: str):
        self.runs, self.results, self.output = folder / "runs", folder / "results", folder / "output"
        self.environment = environment
        self.results.mkdir(parents=True)
        shutil.copy(PROJECT / "results" / "references.yaml", self.results)
        (folder / "driver.py").write_text(DRIVER)
        self.command = [sys.executable, str(folder / "driver.py"), *options]
        self.command += ["--runs-dir", str(self.runs), "--results", str(self.results)]

    def start(self) -> "Sweep":
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                self.command,
                cwd=PROJECT,
                env=self.environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        return self

    def said(self, words: str) -> bool:
        return words in self.output.read_text()

    def ends(self, status: int, seconds: float) -> None:
        assert self.process.wait(timeout=seconds) == status, self.output.read_text()

    def training(self, experiment: str) -> list[int]:
        """Process ids of the experiment's trainings in this sweep."""
        return processes(f"experiments/{experiment}.py", f"tracking.runs_dir='{self.runs}")

    def completed(self) -> list[tuple[str, int]]:
        """Experiment and seed of every COMPLETED run folder."""
        found = []
        for path in self.runs.glob("*/*/run.json"):
            if json.loads(path.read_text())["status"] == "COMPLETED":
                config = json.loads((path.parent / "config.json").read_text())
                found.append((path.parents[1].name, config["seed"]))
        return sorted(found)

    def metrics(self) -> dict[tuple[str, int], dict[str, float]]:
        return {(record.experiment, record.seed): record.metrics for record in load_records(self.results / "runs")}

    def tables(self) -> list[str]:
        """The table and its CSV, but for the block that states minutes."""
        return [
            (self.results / "tables" / f"fast.{ending}").read_text().partition("## Runs")[0] for ending in ("md", "csv")
        ]


def processes(*words: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has just ended
            continue
        if all(word in line for word in words):
            found.append(int(path.parent.name))
    return found


def parent(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.fixture
def sweeps():
    """Ends what a failed test leaves running."""
    started: list[Sweep] = []
    yield started
    for sweep in started:
        for process in [sweep.process.pid, *processes(f"tracking.runs_dir='{sweep.runs}")]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


def test_every_run_finishes_exactly_once(cluster, tmp_path, mongo_url, sweeps):
    options = ("--executor", "slurm", "--partition", "main", "--cores", "1", "--memory", "1", "--time-limit", "4")
    sweep = Sweep(tmp_path / "slurm", cluster.environment | {"SACRED_MONGO_URL": mongo_url}, *options)
    sweeps.append(sweep.start())

    # One run is stopped as soon as it has a checkpoint, and its job given a limit that it hits.
    cluster.wait_for("a checkpoint", (sweep.runs / "dpsom" / "1" / "checkpoint.pt").exists)
    (stopped,) = sweep.training("dpsom")
    os.kill(stopped, signal.SIGSTOP)
    (array,) = [path.name for path in (sweep.runs / "slurm").iterdir()]
    (number,) = set(cluster.ask("squeue", "-h", f"--name={array}", "--format=%F").split())
    job = f"{number}_0"
    limit = int(minutes(cluster.ask("squeue", "-h", f"--job={job}", "--format=%M"))) + 2
    cluster.ask("scontrol", "update", f"JobId={job}", f"TimeLimit={limit}")

    # Of another run both processes, the worker and the training, are killed.
    cluster.wait_for("a second run", (sweep.runs / "topography" / "1" / "run.json").exists)
    (killed,) = sweep.training("topography")
    for process in (parent(killed), killed):
        os.kill(process, signal.SIGKILL)
    cluster.wait_for("its death", lambda: sweep.said("died, retry 1 of 2: topography fast seed 0: Slurm says FAILED"))

    # reproduce.py itself is interrupted and repeated: it finds its jobs again. The same runs are made locally, too.
    sweep.process.send_signal(signal.SIGINT)
    sweep.ends(130, seconds=120)
    assert sweep.said(f"the jobs go on in Slurm (to end them: scancel --name={array})")
    sweeps.append(sweep.start())
    local = Sweep(tmp_path / "local", os.environ.copy(), "--jobs", "1")
    sweeps.append(local.start())

    # The job is warned of its limit, the run saves its state, the job is requeued; then the controller is away.
    (log,) = (sweep.runs / "slurm" / array).glob("*_0_0_log.err")
    cluster.wait_for("a warning of the limit", lambda: "Caught signal SIGUSR2" in log.read_text())
    os.kill(stopped, signal.SIGCONT)
    cluster.wait_for("the requeued job", lambda: "Restarts=1" in cluster.ask("scontrol", "show", "job", job))
    cluster.ask("scontrol", "update", f"JobId={job}", "TimeLimit=4")
    cluster.wait_for("the jobs found again", lambda: sweep.said("of them under way since an earlier call"))
    cluster.stop_controller()
    cluster.wait_for("a note of it", lambda: sweep.said("Slurm does not answer"))
    cluster.start_controller()

    sweep.ends(0, seconds=400)
    local.ends(0, seconds=300)
    assert sweep.completed() == local.completed() == RUNS
    assert sweep.metrics() == local.metrics()
    assert sweep.tables() == local.tables()
    assert len(list((sweep.runs / "slurm").glob("*/runs.json"))) == 2, "the first array, and the run that died"
    with pymongo.MongoClient(mongo_url) as client:
        runs = list(client.get_default_database()["runs"].find())
    assert len({run["folder"] for run in runs}) == len(runs) == 4 + 2  # the run that hit its limit, the run that died
    assert sorted(run["experiment"]["name"] for run in runs if run["status"] == "COMPLETED") == [r for r, _ in RUNS]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--partition", "maim"], "error: Slurm has no partition 'maim': did you mean main?"),
        (["--time-limit", "61"], "error: --time-limit 61: partition main allows 60 minutes"),
        (["--cores", "2", "--time-limit", "9"], "error: Slurm refuses the jobs: "),
    ],
)
def test_what_slurm_would_refuse_is_one_line(cluster, tmp_path, options, message):
    sweep = Sweep(tmp_path, cluster.environment, "--executor", "slurm", *options).start()
    sweep.ends(2, seconds=300)
    assert sweep.output.read_text().splitlines()[-1].startswith(message)
    assert not list(tmp_path.glob("runs/*/*/run.json"))
