"""Fixtures of all tests: one thread, no database but the tests' own, a real MongoDB server on demand."""

import os
import signal
import uuid

from experiments.engine import bfloat16

import hypothesis
import pymongo
import pytest
import torch
from mongo import Mongod
from pymongo.uri_parser import parse_uri
from sacred import SETTINGS

USERS_MONGO_URL = os.environ.pop("SACRED_MONGO_URL", None)

torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
hypothesis.settings.register_profile("busy machine", deadline=None)
hypothesis.settings.load_profile("busy machine")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """What the marker `gpu` promises."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture(scope="module")
def in_process():
    """For experiments launched within the test's process: nothing captured by Sacred, signal handlers put back."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SETTINGS, "CAPTURE_MODE", "no")
        yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def collapse(monkeypatch):
    """Makes the models that an experiment builds have one unit near the latents and all others far away."""

    def collapse(experiment):
        build = experiment.build

        def collapsed(*arguments):
            model = build(*arguments)
            with torch.no_grad():
                model.centroids[1:] += 1e4
            return model

        monkeypatch.setattr(experiment, "build", collapsed)

    return collapse


@pytest.fixture(autouse=True)
def native_bfloat16():
    """No test sees what another one's run has emulated."""
    yield
    bfloat16.emulate(False)


@pytest.fixture(scope="session")
def mongo_server(tmp_path_factory):
    """URL of a running server without a database: that of SACRED_MONGO_URL, else one that we start."""
    if USERS_MONGO_URL:
        yield USERS_MONGO_URL
        return
    server = Mongod(tmp_path_factory.mktemp("mongod") / "data").start()
    yield server.url()
    server.stop()


@pytest.fixture
def mongo_url(mongo_server):
    """URL of an empty database that is dropped after the test."""
    database = f"test_{uuid.uuid4().hex[:12]}"
    path = parse_uri(mongo_server)["database"]
    before, _, options = mongo_server.partition("?")
    before = before.removesuffix(f"/{path}").rstrip("/")
    yield f"{before}/{database}?{options}"
    with pymongo.MongoClient(mongo_server) as client:
        client.drop_database(database)


@pytest.fixture
def mongod(tmp_path):
    """A server, not yet started, that the test may start, kill and start again."""
    server = Mongod(tmp_path / "mongod")
    yield server
    server.stop()
