"""A real Slurm for tests: two nodes on this machine, in a folder of its own, from Debian's slurm-wlm and munge."""

import getpass
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "sinfo")
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=20
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/controller.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/controller.log
SlurmdLogFile={folder}/%n.log
SlurmctldPort={ports[0]}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
SlurmdParameters=config_overrides
KillWait=5
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 RealMemory=4000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 RealMemory=4000
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=60 State=UP
"""


class Cluster:
    """munge, a controller and two nodes; `environment` makes Slurm's commands speak to them.

    A cred_expire of 20 seconds is also what a requeued job waits (Slurm's own default: two minutes).
    """

    def __init__(self, folder: Path):
        path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
        if missing := [name for name in PROGRAMS if not shutil.which(name, path=path)]:
            message = f"no {', '.join(missing)}: scripts/install_system_packages.sh installs Slurm"
            (pytest.fail if os.environ.get("CI") else pytest.skip)(message)
        self.folder = folder
        self.environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": path}
        self.processes: dict[str, subprocess.Popen] = {}
        folder.chmod(0o755)
        for name in ("state", "n1", "n2"):
            (folder / name).mkdir()
        key = folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        settings = CONFIGURATION.format(
            host=socket.gethostname(), user=getpass.getuser(), folder=folder, ports=free_ports(3)
        )
        (folder / "slurm.conf").write_text(settings)

    def start(self) -> "Cluster":
        files = {"key-file": "munge.key", "socket": "munge.sock", "pid-file": "munge.pid", "log-file": "munge.log"}
        files["seed-file"] = "munge.seed"
        self.launch(
            "munged", "--force", "--foreground", *(f"--{option}={self.folder / name}" for option, name in files.items())
        )
        self.start_controller()
        for node in ("n1", "n2"):
            self.launch("slurmd", "-D", "-N", node, key=node)
        self.wait_for("both nodes are idle", lambda: self.ask("sinfo", "-hNo", "%t").split() == ["idle", "idle"])
        return self

    def launch(self, program: str, *arguments: str, key: str | None = None) -> None:
        with (self.folder / f"{key or program}.out").open("ab") as output:
            self.processes[key or program] = subprocess.Popen(
                [program, *arguments], env=self.environment, stdout=output, stderr=output, start_new_session=True
            )

    def start_controller(self) -> None:
        self.launch("slurmctld", "-D")

    def stop_controller(self) -> None:
        self.stop_process("slurmctld")

    def stop_process(self, key: str) -> None:
        process = self.processes.pop(key)
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def stop(self) -> None:
        """Ends all jobs, then everything else, the controller before the nodes."""
        if "slurmctld" in self.processes:
            self.ask("scancel", f"--user={os.getuid()}")
        for key in reversed(list(self.processes)):
            self.stop_process(key)

    def ask(self, *command: str) -> str:
        """What a command prints; nothing when it fails."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    def wait_for(self, what: str, condition, seconds: float = 300):
        """The first true value of `condition`; its failure shows the end of the controller's log."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if value := condition():
                return value
            time.sleep(0.05)
        log = self.folder / "controller.log"
        raise AssertionError(f"never: {what}\n{log.read_text()[-3000:] if log.exists() else ''}")


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for number in sockets:
        number.bind(("127.0.0.1", 0))
    ports = [number.getsockname()[1] for number in sockets]
    for number in sockets:
        number.close()
    return ports
