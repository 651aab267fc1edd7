"""The run folder: Sacred's file observer, made safe to be the source of truth.

Nothing here imports torch: tensors and arrays are recognised by their `tolist`.
"""

import contextlib
import json
import math
import os
import threading
from pathlib import Path

from experiments.errors import UserError
from experiments.files import shown, write_atomically
from experiments.observers.redaction import redact

from sacred.observers import FileStorageObserver
from sacred.utils import apply_backspaces_and_linefeeds

CHECKPOINT = "checkpoint.pt"
OUTPUT_HEAD, OUTPUT_TAIL = 200_000, 800_000  # characters kept of the captured output; a Mongo document holds 16 MB
_OUTPUT_GAP = "\n[… the middle of a very long output is left out …]\n"
_LARGEST_ARRAY = 10_000  # elements


def plain(value):
    """`value` as JSON and MongoDB can hold it; anything else becomes its description."""
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, int):
        return int(value) if -(2**63) <= value < 2**63 else str(value)
    if isinstance(value, dict):
        return {plain(str(key)): plain(item) for key, item in list(value.items())}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # torch, NumPy
        shape = list(getattr(value, "shape", ()))
        return plain(value.tolist()) if math.prod(shape) <= _LARGEST_ARRAY else f"array of shape {shape}"
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return plain(str(value))


def captured_output(text: str) -> str:
    """What is kept of the captured output: progress bars as a terminal would show them, no credentials, bounded length.

    Sacred calls this at every heartbeat with the text returned last time plus what is new.
    """
    control = min((at for at in (text.find("\r"), text.find("\b")) if at >= 0), default=len(text))
    clean = text.rfind("\n", 0, control) + 1
    text = redact(text[:clean] + apply_backspaces_and_linefeeds(text[clean:]))
    if len(text) > OUTPUT_HEAD + len(_OUTPUT_GAP) + OUTPUT_TAIL:
        text = text[:OUTPUT_HEAD] + _OUTPUT_GAP + text[-OUTPUT_TAIL:]
    return text


def make_capture_safe(run) -> None:
    """Let Sacred's main and heartbeat threads both read the captured output of a run that has started.

    As Sacred has it, the heartbeat moves the position at which the main thread is writing, either may overwrite what
    the other has read, and a heartbeat during the very last read ends its thread, and with it the last metrics.
    """
    output, lock, read = run._output_file, threading.Lock(), run._get_captured_output

    def get():
        text = output.buffer.getvalue()  # moves nothing
        new, output.read_position = text[output.read_position :], len(text)
        return new

    def get_captured_output():
        with lock, contextlib.suppress(ValueError):  # the buffer has just been closed: everything has been read
            read()

    if hasattr(output.buffer, "getvalue"):  # not with --capture=fd
        output.get = get
    run._get_captured_output = get_captured_output


def _guarded(event: str):
    """An event of the file observer, one at a time (heartbeats come from a second thread), its failure remembered."""

    def handle(self, *args, **kwargs):
        with self.lock:
            if self.dir is None:  # the run never started
                return
            try:
                getattr(super(RunFolderObserver, self), event)(*args, **kwargs)
            except Exception as error:
                self.error = self.error or error
                raise

    return handle


class RunFolderObserver(FileStorageObserver):
    """Sacred's `FileStorageObserver`, with four differences.

    Every file is written atomically; every value is made storable and free of credentials; the captured output is
    rewritten as a whole (Sacred appends from a cursor that is wrong once a progress bar has shortened the text); and a
    failure is remembered in `error`, after which the run can no longer end as COMPLETED.
    """

    def __init__(self, folder: Path):
        super().__init__(folder, priority=40)  # first of all observers: it gives the run its id
        self.lock = threading.RLock()
        self.error: Exception | None = None

    log_metrics = _guarded("log_metrics")
    heartbeat_event = _guarded("heartbeat_event")
    interrupted_event = _guarded("interrupted_event")
    failed_event = _guarded("failed_event")
    resource_event = _guarded("resource_event")
    artifact_event = _guarded("artifact_event")
    _complete = _guarded("completed_event")

    def queued_event(self, *args, **kwargs):
        raise UserError("--queue is not supported: nothing would start the queued run")

    def started_event(self, ex_info, *args, **kwargs):
        try:
            return super().started_event(dict(ex_info), *args, **kwargs)
        except OSError as error:
            self.dir = None
            raise _unwritable(self.basedir, error) from error

    def completed_event(self, stop_time, result):
        if self.error:
            self.failed_event(stop_time, [self.complaint()])
        else:
            self._complete(stop_time, result)

    def save_json(self, obj, filename):
        text = json.dumps(redact(plain(obj)), sort_keys=True, indent=2)
        write_atomically(Path(self.dir, filename), text.encode())

    def save_cout(self):
        write_atomically(Path(self.dir, "cout.txt"), redact(self.cout).encode("utf-8", "replace"))

    def save_file(self, filename, target_name=None):
        super().save_file(filename, target_name)
        name = target_name or os.path.basename(filename)
        if name in self.run_entry["artifacts"]:  # saved again: a later version of the same picture
            self.run_entry["artifacts"].remove(name)

    def complaint(self) -> str:
        """One line that says why the run folder is not whole."""
        reason = self.error.strerror if isinstance(self.error, OSError) and self.error.strerror else str(self.error)
        return (
            f"the run folder {shown(self.dir)} could not be written ({reason}), so its record is incomplete: "
            "mend that, then start again or resume from a checkpoint"
        )


def _unwritable(folder: str | Path, error: OSError) -> UserError:
    return UserError(
        f"cannot write run folders to {shown(folder)} ({error.strerror}): "
        "choose another place with tracking.runs_dir=FOLDER"
    )


def check_writable(folder: Path) -> None:
    """Raise UserError if run folders cannot be made below `folder`; creates nothing."""
    # os.path, because Path.exists and .is_dir raise where a folder may not be entered
    existing = next(parent for parent in (folder, *folder.parents) if os.path.exists(parent))
    if not os.path.isdir(existing):
        raise _unwritable(folder, NotADirectoryError(0, f"{existing.name} is a file"))
    if not os.access(existing, os.W_OK | os.X_OK):
        raise _unwritable(folder, PermissionError(0, "no permission to write there"))


def check_observers(run) -> None:
    """Raise UserError if the run folder of a Sacred run is not whole; call it after the run has ended."""
    if run._heartbeat is not None:
        run._heartbeat.join()  # Sacred waits two seconds for the last one
    for observer in run.observers:
        if isinstance(observer, RunFolderObserver) and observer.error:
            raise UserError(observer.complaint())
