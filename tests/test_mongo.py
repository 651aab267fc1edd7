"""Runs in MongoDB: complete when the server is there, and never at the run's expense when it is not."""

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from experiments.errors import UserError
from experiments.observers import mongo as mongo_module
from experiments.observers.mongo import MongoCopy, check_mongo_url

import dummy
import gridfs
import pymongo
import pytest
from dummy import run_dummy
from matplotlib.figure import Figure
from mongo import Mongod, wait_for


def run_experiment(runs_dir: Path, mongo_url: str | None, body):
    return run_dummy(body, runs_dir, mongo_url=mongo_url, tensorboard=False)


@contextmanager
def open_database(url: str):
    with pymongo.MongoClient(url) as client:
        yield client.get_default_database()


def status_in(url: str):
    with open_database(url) as database:
        entry = database["runs"].find_one()
        return entry and entry.get("status")


def metric_in(url: str, name: str = "loss") -> list:
    with open_database(url) as database:
        metric = database["metrics"].find_one({"name": name})
        return metric["values"] if metric else []


def assert_folder_is_whole(folder: Path, losses: list):
    run = json.loads((folder / "run.json").read_text())
    assert run["status"] == "COMPLETED"
    assert run["result"] == "done"
    assert json.loads((folder / "metrics.json").read_text())["loss"]["values"] == losses
    assert "last words" in (folder / "cout.txt").read_text()


def assert_database_is_whole(url: str, losses: list):
    with open_database(url) as database:
        (entry,) = database["runs"].find()
        assert entry["status"] == "COMPLETED"
        assert entry["result"] == "done"
        assert "last words" in entry["captured_out"]
        (metric,) = database["metrics"].find()
        assert metric["run_id"] == entry["_id"]
        assert (metric["name"], metric["values"]) == ("loss", losses)
        assert len(metric["steps"]) == len(metric["timestamps"]) == len(losses)
        assert entry["info"]["metrics"] == [{"name": "loss", "id": str(metric["_id"])}]


def updated(copy: MongoCopy) -> bool:
    try:
        copy.update()
    except pymongo.errors.ConnectionFailure:
        return False
    return True


def mongo_lines(output: str) -> list[str]:
    return [line for line in output.splitlines() if "mongo" in line.lower()]


def assert_told_once(capfd, caplog):
    captured = capfd.readouterr()
    (line,) = mongo_lines(captured.out + captured.err)
    assert line.startswith("warning: MongoDB: the server does not answer. The run goes on and ")
    assert "later by: SACRED_MONGO_URL=... python -m experiments.observers.mongo" in line
    assert not [record for record in caplog.records if "observer" in record.getMessage()]


def log(tracker, *losses: float, start: int = 0):
    for step, loss in enumerate(losses, start):
        tracker.scalars({"loss": loss}, step)


# ---------------------------------------------------------------- the server is there


def test_a_run_is_in_the_database_as_it_is_in_its_folder(tmp_path, mongo_url):
    def body(tracker):
        log(tracker, 3.0, 2.0, float("nan"))
        tracker.run.info["note"] = {"list": [1, "two"]}
        print("last words")
        return "done"

    run = run_experiment(tmp_path, mongo_url, body)
    folder = tmp_path / "dummy" / run._id
    with open_database(mongo_url) as database:
        (entry,) = database["runs"].find()
        files = gridfs.GridFS(database)
        assert entry["config"] == json.loads((folder / "config.json").read_text())
        assert entry["captured_out"] == (folder / "cout.txt").read_text() == "last words\n"
        assert (entry["folder"], entry["experiment"]["name"], entry["status"]) == ("dummy/1", "dummy", "COMPLETED")
        assert entry["stop_time"] > entry["start_time"]
        assert entry["info"]["note"] == {"list": [1, "two"]}
        sources = dict(entry["experiment"]["sources"])
        assert files.get(sources["dummy.py"]).read() == Path(dummy.__file__).read_bytes()
        values = database["metrics"].find_one({"run_id": entry["_id"], "name": "loss"})["values"]
        assert values[:2] == [3.0, 2.0]
        assert values[2] != values[2]


def test_artifacts_arrive_in_gridfs_byte_for_byte(tmp_path, mongo_url):
    content = os.urandom(700_000)  # three chunks

    def body(tracker):
        figure = Figure()
        figure.add_subplot().plot([1, 2])
        tracker.figure("map/hits", figure, 0)
        (tracker.folder / "weights.bin").write_bytes(b"an earlier version")
        tracker.artifact(tracker.folder / "weights.bin")
        wait_for(lambda: artifact(mongo_url, "weights.bin") == b"an earlier version")
        (tracker.folder / "weights.bin").write_bytes(content)
        tracker.artifact(tracker.folder / "weights.bin")
        outside = tmp_path / "notes.txt"
        outside.write_text("from elsewhere")
        tracker.artifact(outside)

    run = run_experiment(tmp_path / "runs", mongo_url, body)
    folder = tmp_path / "runs" / "dummy" / run._id
    with open_database(mongo_url) as database:
        (entry,) = database["runs"].find()
        files = gridfs.GridFS(database)
        got = {item["name"]: files.get(item["file_id"]) for item in entry["artifacts"]}
        assert got.keys() == {"figures/map_hits.png", "weights.bin", "notes.txt"}
        assert database["fs.files"].find_one({"filename": {"$regex": "png$"}})["contentType"] == "image/png"
        for name, file in got.items():
            assert file.read() == (folder / name).read_bytes()
        assert (folder / "weights.bin").read_bytes() == content
        assert len(list(files.find({"filename": {"$regex": "weights.bin"}}))) == 1, "an earlier version was left behind"


def artifact(url: str, name: str) -> bytes | None:
    with open_database(url) as database:
        entry = database["runs"].find_one() or {}
        ids = [item["file_id"] for item in entry.get("artifacts", []) if item["name"] == name]
        return gridfs.GridFS(database).get(ids[0]).read() if ids else None


@pytest.mark.parametrize("path", ["/named", ""])
def test_database_is_that_of_the_url_or_sacred(tmp_path, mongod, path):
    mongod.start()
    run_experiment(tmp_path, f"mongodb://127.0.0.1:{mongod.port}{path}", lambda tracker: None)
    with pymongo.MongoClient(mongod.url()) as client:
        assert client["named" if path else "sacred"]["runs"].count_documents({}) == 1


def test_url_may_come_from_the_environment(tmp_path, mongo_url, monkeypatch):
    monkeypatch.setenv("SACRED_MONGO_URL", mongo_url)
    run_experiment(tmp_path, None, lambda tracker: None)
    assert status_in(mongo_url) == "COMPLETED"


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt, "INTERRUPTED"), (ValueError, "FAILED")])
def test_a_run_that_does_not_complete_says_so(tmp_path, mongo_url, error, status):
    def body(tracker):
        log(tracker, 1.0)
        raise error("on purpose")

    with pytest.raises(error):
        run_experiment(tmp_path, mongo_url, body)
    assert status_in(mongo_url) == status
    assert metric_in(mongo_url) == [1.0]


SCRIPT = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_mongo import run_experiment
def body(tracker):
    tracker.scalars({{"loss": float(sys.argv[1])}}, 0)
    Path({flags!r}, sys.argv[1]).touch()
    while len(list(Path({flags!r}).iterdir())) < 2:
        time.sleep(.01)
run_experiment(Path({runs!r}), {url!r}, body)
"""


def test_concurrent_runs_have_ids_of_their_own(tmp_path, mongo_url):
    (tmp_path / "flags").mkdir()
    script = SCRIPT.format(
        tests=str(Path(__file__).parent), flags=str(tmp_path / "flags"), runs=str(tmp_path / "runs"), url=mongo_url
    )
    processes = [subprocess.Popen([sys.executable, "-c", script, number]) for number in "12"]
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    assert {path.name for path in (tmp_path / "runs" / "dummy").iterdir()} == {"1", "2", "_sources"}
    with open_database(mongo_url) as database:
        entries = {entry["_id"]: entry for entry in database["runs"].find()}
        assert sorted(entries) == [1, 2]
        assert {entry["status"] for entry in entries.values()} == {"COMPLETED"}
        for entry in entries.values():
            folder = tmp_path / "runs" / entry["folder"]
            (metric,) = database["metrics"].find({"run_id": entry["_id"]})
            assert metric["values"] == json.loads((folder / "metrics.json").read_text())["loss"]["values"]


def test_two_runs_racing_for_an_id_both_get_one(tmp_path, mongo_url, monkeypatch):
    """Another run takes the next id between our looking for it and our taking it."""
    run = run_experiment(tmp_path, None, lambda tracker: None)
    copy = MongoCopy(mongo_url, tmp_path / "dummy" / run._id)
    find_one, stolen = pymongo.collection.Collection.find_one, []

    def find_one_then_steal(collection, *args, **kwargs):
        found = find_one(collection, *args, **kwargs)
        if kwargs.get("sort") and not stolen:
            stolen.append(collection.insert_one({"_id": 1, "status": "of another run"}))
        return found

    monkeypatch.setattr(pymongo.collection.Collection, "find_one", find_one_then_steal)
    copy.update()
    copy.close()
    with open_database(mongo_url) as database:
        assert {entry["_id"]: entry["status"] for entry in database["runs"].find()} == {
            1: "of another run",
            2: "COMPLETED",
        }


# ---------------------------------------------------------------- the server is not there


def test_server_down_at_start_and_for_good(tmp_path, mongod, capfd, caplog, monkeypatch):
    def body(tracker):
        log(tracker, 2.0, 1.0)
        time.sleep(1.5)  # several heartbeats, each of which finds the server dead
        print("last words")
        return "done"

    start = time.monotonic()
    run = run_experiment(tmp_path / "runs", mongod.url(), body)
    assert time.monotonic() - start < 10
    folder = tmp_path / "runs" / "dummy" / run._id
    assert_folder_is_whole(folder, [2.0, 1.0])
    assert len(mongo_lines((folder / "cout.txt").read_text())) == 1
    assert_told_once(capfd, caplog)

    mongod.start()
    monkeypatch.setenv("SACRED_MONGO_URL", mongod.url())
    for _ in range(2):  # a second time changes nothing
        assert mongo_module.main([str(folder)]) == 0
        assert_database_is_whole(mongod.url(), [2.0, 1.0])
    assert capfd.readouterr().out == f"{folder}: run 1\n" * 2


def test_server_down_at_start_and_back_later(tmp_path, mongod, capfd, caplog):
    def body(tracker):
        log(tracker, 2.0, 1.0)
        wait_for(lambda: mongo_lines(capfd.readouterr().err))
        mongod.start()
        wait_for(lambda: status_in(mongod.url()) == "RUNNING")
        print("last words")
        return "done"

    run = run_experiment(tmp_path / "runs", mongod.url(), body)
    assert_folder_is_whole(tmp_path / "runs" / "dummy" / run._id, [2.0, 1.0])
    assert_database_is_whole(mongod.url(), [2.0, 1.0])
    assert not mongo_lines(capfd.readouterr().err), "told a second time"


def test_server_killed_in_the_middle(tmp_path, mongod, capfd, caplog):
    mongod.start()

    def body(tracker):
        log(tracker, 3.0)
        wait_for(lambda: metric_in(mongod.url()) == [3.0])
        mongod.kill()
        log(tracker, 2.0, 1.0, start=1)
        time.sleep(1.5)
        print("last words")
        return "done"

    run = run_experiment(tmp_path / "runs", mongod.url(), body)
    assert_folder_is_whole(tmp_path / "runs" / "dummy" / run._id, [3.0, 2.0, 1.0])
    assert_told_once(capfd, caplog)
    mongod.start()
    copy = MongoCopy(mongod.url(), tmp_path / "runs" / "dummy" / run._id)
    copy.update()  # into the document that the run began
    copy.close()
    assert_database_is_whole(mongod.url(), [3.0, 2.0, 1.0])


def test_server_killed_in_the_middle_and_back_later(tmp_path, mongod, capfd, caplog):
    mongod.start()

    def body(tracker):
        log(tracker, 3.0)
        wait_for(lambda: metric_in(mongod.url()) == [3.0])
        mongod.kill()
        log(tracker, 2.0, start=1)
        time.sleep(1)
        mongod.start()
        wait_for(lambda: metric_in(mongod.url()) == [3.0, 2.0])
        log(tracker, 1.0, start=2)
        print("last words")
        return "done"

    run = run_experiment(tmp_path / "runs", mongod.url(), body)
    assert_folder_is_whole(tmp_path / "runs" / "dummy" / run._id, [3.0, 2.0, 1.0])
    assert_database_is_whole(mongod.url(), [3.0, 2.0, 1.0])
    assert_told_once(capfd, caplog)


def test_server_that_comes_back_empty_gets_everything_again(tmp_path, mongod):
    def body(tracker):
        log(tracker, 2.0, 1.0)
        print("last words")
        return "done"

    run = run_experiment(tmp_path / "runs", None, body)
    mongod.start()
    copy = MongoCopy(mongod.url(), tmp_path / "runs" / "dummy" / run._id)
    copy.update()
    mongod.kill()
    with pytest.raises(pymongo.errors.ConnectionFailure):
        copy.update()
    mongod.folder = tmp_path / "replacement"
    mongod.start()
    wait_for(lambda: updated(copy))  # the client asks a server it has found dead only twice a second
    copy.close()
    assert_database_is_whole(mongod.url(), [2.0, 1.0])


def test_server_that_refuses_us(tmp_path, mongod, capfd):
    """A wrong password costs the user a warning, not the run."""
    mongod.start()

    def body(tracker):
        log(tracker, 1.0)
        print("last words")
        return "done"

    run = run_experiment(tmp_path / "runs", mongod.url(user="user:pAssw0rd@"), body)
    assert_folder_is_whole(tmp_path / "runs" / "dummy" / run._id, [1.0])
    (line,) = mongo_lines(capfd.readouterr().err)
    assert line.startswith("warning: MongoDB: the server refuses: Authentication failed")
    assert "pAssw0rd" not in line


# ---------------------------------------------------------------- limits and mistakes


def test_a_very_long_metric_and_output_fit_into_documents(tmp_path, mongo_url, monkeypatch):
    monkeypatch.setattr(mongo_module, "MOST_POINTS", 1000)

    def body(tracker):
        log(tracker, *range(2500))
        print("\U0001f600" * 6_000_000)  # 24 MB
        print("last words")
        return "done"

    run = run_experiment(tmp_path, mongo_url, body)
    assert status_in(mongo_url) == "COMPLETED"
    assert metric_in(mongo_url) == list(range(0, 2500, 3))
    assert_folder_is_whole(tmp_path / "dummy" / run._id, list(range(2500)))


@pytest.mark.parametrize(
    "url",
    [
        "not a url",
        "http://user:pAssw0rd@host/db",
        "mongodb://user:pAssw0rd@@host/db",
        "mongodb://user:pAss/w0rd@host/db",
        "mongodb://user:pAssw0rd@host:port/db",
        "mongodb://user:pAssw0rd here@host/db",
        "mongodb+srv://user:pAssw0rd@@host/db",
    ],
)
def test_malformed_url_is_a_users_error_before_anything_is_written(tmp_path, url):
    with pytest.raises(UserError, match="percent-encoded") as error:
        run_experiment(tmp_path / "runs", url, lambda tracker: None)
    assert "\n" not in str(error.value)
    assert "w0rd" not in str(error.value)
    assert not (tmp_path / "runs").exists()


def test_srv_urls_are_checked_without_asking_the_network():
    parts = check_mongo_url("mongodb+srv://user:secret@cluster.example.invalid/mine?retryWrites=true")
    assert parts["database"] == "mine"


@pytest.mark.parametrize(
    "url",
    [
        "mongodb+srv://user:secret@cluster.example.invalid/mine?srvServiceName=x&retryWrites=true",
        "mongodb+srv://user:secret@cluster.example.invalid/mine?srvMaxHosts=2",
        pytest.param("mongodb://host/mine?foo=1", marks=pytest.mark.filterwarnings("ignore:Unknown option foo")),
    ],
)
def test_what_the_driver_takes_is_a_url(url):
    assert check_mongo_url(url)["database"] == "mine"


def test_a_certificate_that_is_not_there_is_one_line(tmp_path):
    url = f"mongodb://user:pAssw0rd@host/?tls=true&tlsCAFile={tmp_path}/missing.pem"
    with pytest.raises(UserError, match="names a certificate that cannot be read") as error:
        check_mongo_url(url)
    assert "pAssw0rd" not in str(error.value)


def test_srv_url_that_cannot_be_resolved_does_not_cost_the_run(tmp_path, capfd):
    def body(tracker):
        log(tracker, 1.0)
        print("last words")
        return "done"

    run = run_experiment(tmp_path, "mongodb+srv://user:pAssw0rd@cluster.example.invalid/db?connectTimeoutMS=300", body)
    assert_folder_is_whole(tmp_path / "dummy" / run._id, [1.0])
    (line,) = mongo_lines(capfd.readouterr().err)
    assert "pAssw0rd" not in line


def test_copying_by_hand_tells_what_is_wrong(tmp_path, mongod, monkeypatch, capsys):
    def error_about(folder: Path) -> str:
        capsys.readouterr()
        assert mongo_module.main([str(folder)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    monkeypatch.delenv("SACRED_MONGO_URL", raising=False)
    assert error_about(tmp_path).startswith("error: SACRED_MONGO_URL is not set")
    monkeypatch.setenv("SACRED_MONGO_URL", mongod.url())
    assert "is no run folder" in error_about(tmp_path)
    run = run_experiment(tmp_path, "", lambda tracker: None)
    folder = tmp_path / "dummy" / run._id
    assert "the server does not answer" in error_about(folder)
    (folder / "run.json").write_text("{")
    assert "is damaged (JSONDecodeError" in error_about(folder)


def test_no_server_means_a_failure_under_ci(monkeypatch, tmp_path):
    monkeypatch.setattr("mongo.find_mongod", lambda: None)
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no mongod"):
        Mongod(tmp_path)
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="no mongod"):
        Mongod(tmp_path)
