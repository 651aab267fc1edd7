"""A copy of each run in MongoDB, in Sacred's own format (Omniboard and Sacred's tools read it).

The run folder is the source of truth, and the database is brought up to date from it. So a server that is down at the
start, dies in the middle or comes back later costs nothing but the time it is away, and a run can be copied afterwards:

    SACRED_MONGO_URL=mongodb://... python -m experiments.observers.mongo runs/dpsom/3

Neither of Sacred's observers does this: `MongoObserver` kills the run when the server is down at its start and is
dropped for good when it fails later; `QueuedMongoObserver` does the first too and waits forever for a dead server at
the end.
"""

import argparse
import hashlib
import json
import mimetypes
import os
import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

from experiments.errors import UserError, reported
from experiments.files import shown
from experiments.observers.redaction import redact
from experiments.observers.run_folder import RunFolderObserver

import gridfs
import pymongo
from pymongo.errors import ConnectionFailure, DuplicateKeyError, OperationFailure, PyMongoError
from pymongo.uri_parser import parse_uri
from sacred.observers import MongoObserver, RunObserver
from tqdm import tqdm

TIMEOUTS = {"serverSelectionTimeoutMS": 3_000, "connectTimeoutMS": 3_000, "socketTimeoutMS": 20_000}
DEFAULT_DATABASE = "sacred"
MODULE = "experiments.observers.mongo"
MOST_POINTS = 100_000  # per metric: a document holds 16 MB


def check_mongo_url(url: str) -> dict:
    """The parts of a MongoDB URL, as `pymongo.uri_parser.parse_uri` gives them, without asking any server.

    Raises UserError for a malformed URL; the message repeats no part of it.
    """
    try:
        if any(character.isspace() or character in "'\"\\" for character in url):
            raise ValueError("characters that no URL may hold")
        if url.startswith("mongodb+srv://"):
            url = url.replace("mongodb+srv://", "mongodb://", 1)
            url = re.sub(r"(?<=[?&])srv\w+=[^&]*&?", "", url, flags=re.IGNORECASE)
        return parse_uri(url, warn=True)
    except OSError as error:
        raise UserError(
            f"tracking.mongo_url (or SACRED_MONGO_URL) names a certificate that cannot be read ({error.strerror}): "
            "put it there, or run without the URL and copy the run later"
        ) from error
    except (PyMongoError, ValueError):
        raise UserError(
            "tracking.mongo_url (or SACRED_MONGO_URL) is no MongoDB URL: give "
            "mongodb://user:password@host:port/database, special characters of user and password percent-encoded"
        ) from None


class MongoCopy:
    """Brings the database up to date with one run folder; every call may be repeated and may fail halfway.

    Args:
        url: MongoDB URL; without a database in its path, `sacred`.
        folder: run folder of a `RunFolderObserver`.
    """

    def __init__(self, url: str, folder: Path):
        self.url, self.folder = url, folder
        self.parts = check_mongo_url(url)
        self.client = None
        self.id = None
        self._sent = {}  # what the server is known to hold: (kind, name) -> (state, its id there)

    def update(self) -> None:
        """Copy what is new. Raises what pymongo raises; the next call then asks the server anew what it holds."""
        try:
            self._update()
        except Exception:
            self._sent.clear()
            raise

    def close(self) -> None:
        if self.client is not None:
            self.client.close()
            self.client = None

    def _update(self) -> None:
        if self.client is None:
            given = {option.lower() for option in self.parts["options"]}
            self.client = pymongo.MongoClient(
                self.url, **{name: value for name, value in TIMEOUTS.items() if name.lower() not in given}
            )
        database = self.client[self.parts["database"] or DEFAULT_DATABASE]
        entry = self._read_entry()
        if self.id is None:
            self.id = self._claim_id(database["runs"], entry)
        files = gridfs.GridFS(database)
        sources = entry["experiment"].get("sources", [])
        entry["experiment"]["sources"] = [
            [name, self._store_source(files, stored)]
            for name, stored in sources
            if (self.folder.parent / stored).is_file()
        ]
        entry["artifacts"] = [
            {"name": name, "file_id": self._store_artifact(files, name)}
            for name in entry["artifacts"]
            if (self.folder / name).is_file()
        ]
        entry["info"]["metrics"] = [
            {"name": name, "id": self._store_metric(database["metrics"], name, metric)}
            for name, metric in self._read_json("metrics.json").items()
        ]
        database["runs"].update_one({"_id": self.id}, {"$set": entry}, upsert=True)

    def _read_json(self, name: str) -> dict:
        path = self.folder / name
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def _read_entry(self) -> dict:
        """The document of the run, its files still under their names."""
        entry = self._read_json("run.json")
        for key in ("start_time", "stop_time", "heartbeat"):
            if entry.get(key):
                entry[key] = datetime.fromisoformat(entry[key])
        output = self.folder / "cout.txt"
        return entry | {
            "format": MongoObserver.VERSION,
            "config": self._read_json("config.json"),
            "info": self._read_json("info.json"),
            "captured_out": output.read_text(encoding="utf-8") if output.exists() else "",
            "folder": "/".join(self.folder.parts[-2:]),
        }

    def _claim_id(self, runs, entry: dict) -> int:
        """The run's id in the database: the one it has there already, else the next free integer."""
        known = {key: entry[key] for key in ("start_time", "folder")} | {"host.hostname": entry["host"]["hostname"]}
        if found := runs.find_one(known, {"_id": 1}):
            return found["_id"]
        first = {key: entry[key] for key in ("start_time", "folder", "host", "status")}
        while True:
            newest = runs.find_one({"_id": {"$type": "number"}}, {"_id": 1}, sort=[("_id", pymongo.DESCENDING)])
            try:
                return runs.insert_one({"_id": newest["_id"] + 1 if newest else 1, **first}).inserted_id
            except DuplicateKeyError:
                continue  # another run took it

    def _store(self, kind: str, name: str, state, store):
        """The id of a thing on the server; `store()` sends it and returns the id, if its state is new."""
        if (kind, name) not in self._sent or self._sent[kind, name][0] != state:
            self._sent[kind, name] = (state, store())
        return self._sent[kind, name][1]

    def _store_source(self, files: gridfs.GridFS, stored: str):
        """Id of a source file; `stored` is its path below the experiment's folder and names its content by MD5."""
        path = self.folder.parent / stored

        def store():
            found = files.find_one({"filename": path.name})
            return found._id if found else files.put(path.read_bytes(), filename=path.name)

        return self._store("source", path.name, None, store)

    def _store_artifact(self, files: gridfs.GridFS, name: str):
        """Id of an artifact's present version; earlier versions under the same name are deleted."""
        path = self.folder / name

        def store():
            content = path.read_bytes()
            filename = f"artifact://runs/{self.id}/{name}"
            digest = hashlib.sha256(content).hexdigest()
            if found := files.find_one({"filename": filename, "metadata.sha256": digest}):
                return found._id
            kind = mimetypes.guess_type(name)[0]
            file_id = files.put(content, filename=filename, metadata={"sha256": digest}, contentType=kind)
            for earlier in files.find({"filename": filename, "_id": {"$ne": file_id}}):
                files.delete(earlier._id)
            return file_id

        status = path.stat()
        return self._store("artifact", name, (status.st_size, status.st_mtime_ns), store)

    def _store_metric(self, collection, name: str, metric: dict) -> str:
        """Id of a metric, its whole history sent again whenever it has grown (so that a repetition does no harm)."""
        length = len(metric["values"])

        def store():
            thinned = {key: metric[key][:: length // MOST_POINTS + 1] for key in ("steps", "values", "timestamps")}
            thinned["timestamps"] = [datetime.fromisoformat(time) for time in thinned["timestamps"]]
            key = {"run_id": self.id, "name": name}
            collection.update_one(key, {"$set": thinned}, upsert=True)
            return str(collection.find_one(key, {"_id": 1})["_id"])

        return self._store("metric", name, length, store)


def describe(error: Exception) -> str:
    """A pymongo error in a few words on one line, without credentials."""
    if isinstance(error, ConnectionFailure):
        return "the server does not answer"
    if isinstance(error, OperationFailure):
        return f"the server refuses: {redact(str(error.details.get('errmsg', error) if error.details else error))}"
    return redact(f"{type(error).__name__}: {error}".splitlines()[0][:200])


class RunFolderMongoObserver(RunObserver):
    """Copies the run folder to MongoDB at the start, at every heartbeat and at the end; never fails, warns once.

    During the run the copying happens in a thread of its own, so that a slow or dead server delays nothing.
    """

    priority = 10  # after the run folder

    def __init__(self, url: str, run_folder: RunFolderObserver):
        check_mongo_url(url)
        self.url, self.run_folder = url, run_folder
        self.copy = None
        self.lock = threading.Lock()
        self.pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mongo")
        self.task = None
        self.warned = False

    def started_event(self, ex_info, command, host_info, start_time, config, meta_info, _id):
        self.copy = MongoCopy(self.url, Path(self.run_folder.dir))
        self.task = self.pool.submit(self._update)

    def heartbeat_event(self, info, captured_out, beat_time, result):
        if self.task.done():
            self.task = self.pool.submit(self._update)

    def completed_event(self, stop_time, result):
        self._finish()

    def interrupted_event(self, interrupt_time, status):
        self._finish()

    def failed_event(self, fail_time, fail_trace):
        self._finish()

    def _finish(self) -> None:
        if self.copy is not None:
            self.task.result()
            self._update()
            with self.lock:
                self.copy.close()

    def _update(self) -> None:
        with self.lock:
            try:
                self.copy.update()
            except Exception as error:
                if not self.warned:
                    self.warned = True
                    self._warn(error)

    def _warn(self, error: Exception) -> None:
        folder = shown(self.copy.folder)
        tqdm.write(
            f"warning: MongoDB: {describe(error)}. The run goes on and {folder} holds everything; the database gets it "
            f"as soon as it can be reached, or later by: SACRED_MONGO_URL=... python -m {MODULE} {folder}",
            file=sys.stderr,
        )


@reported
def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}",
        description="Copies run folders to the database that SACRED_MONGO_URL names, or brings them up to date there.",
    )
    parser.add_argument("runs", nargs="+", type=Path, help="run folders")
    options = parser.parse_args(arguments)
    url = os.environ.get("SACRED_MONGO_URL")
    if not url:
        raise UserError("SACRED_MONGO_URL is not set: give it mongodb://user:password@host:port/database")
    for folder in options.runs:
        if not os.path.isfile(folder / "run.json"):
            raise UserError(f"{folder} is no run folder: it holds no run.json")
        try:
            copy = MongoCopy(url, folder.resolve())
            copy.update()
        except PyMongoError as error:
            raise UserError(f"MongoDB: {describe(error)}; {folder} was not copied") from error
        except (OSError, ValueError, KeyError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise UserError(f"{folder} is damaged ({reason}) and was not copied") from error
        print(f"{folder}: run {copy.id}")
        copy.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
