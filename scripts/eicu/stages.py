"""Queries whose results are kept as parquet files, so that an interrupted command continues where it stopped."""

import contextlib
import hashlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from pathlib import Path

from experiments.errors import UserError
from scripts.locks import lock

import duckdb
import numpy as np
from tqdm import tqdm

BAR = "{desc:30} {percentage:3.0f} % |{bar:24}| {elapsed}"


class Stages:
    """A DuckDB database whose tables are the results of stages.

    The file of a stage, `<folder>/<name>-<key>.parquet`, appears in one step when it is complete. Its key is the
    SHA-256 of the query and of the keys of its inputs, hence of every byte of the source that it depends on.
    """

    def __init__(self, folder: Path, memory: str, threads: int) -> None:
        """`memory`, such as 4GB, is what DuckDB may hold; the rest goes to a temporary folder in `folder`.

        Raises:
            UserError: a `memory` that DuckDB does not understand, or a folder that cannot be used or is in use.
        """
        self.folder, self.memory, self.keys = folder, memory, {}
        spill = folder / "spill"
        try:
            self.database = duckdb.connect(
                config={"memory_limit": memory, "temp_directory": str(spill), "threads": threads}
            )
            self.database.execute("SET enable_progress_bar = true; SET enable_progress_bar_print = false")
        except duckdb.Error as error:
            raise UserError(f"--memory {memory} is not understood: write it like 4GB or 500MB") from error
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.descriptor = os.open(folder, os.O_RDONLY)
        except OSError as error:
            raise UserError(f"{folder} cannot be written ({error.strerror}): name another folder") from error
        if not lock(self.descriptor):
            os.close(self.descriptor)
            raise UserError(f"another command is at work in {folder}: wait for it or name another folder")
        shutil.rmtree(spill, ignore_errors=True)

    def __enter__(self) -> "Stages":
        return self

    def __exit__(self, *_) -> None:
        self.database.close()
        shutil.rmtree(self.folder / "spill", ignore_errors=True)
        os.close(self.descriptor)

    def source(self, name: str, relation: str, key: str) -> None:
        """Make `relation`, a table function of DuckDB, readable under `name`; `key` is the checksum of its content."""
        self.keys[name] = key
        self.database.execute(f'CREATE OR REPLACE VIEW "{name}" AS FROM {relation}')

    def run(self, name: str, query: str, *inputs: str) -> None:
        """Make the result of `query` on the named inputs readable as table `name`, computing it unless it is there.

        The table has a further column `file_row_number`, the row's position from 0.
        """
        key = hashlib.sha256("\n".join([query, *(self.keys[name] for name in inputs)]).encode()).hexdigest()
        path = self.folder / f"{name}-{key[:16]}.parquet"
        if not path.exists():
            partial = path.with_suffix(".partial")
            try:
                self._execute(f"COPY ({query}) TO {quoted(partial)} (FORMAT parquet, COMPRESSION zstd)", name)
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
        for other in self.folder.glob(f"{name}-*"):
            if other != path:
                other.unlink()
        self.source(name, f"read_parquet({quoted(path)}, file_row_number = true)", key)

    def fetch(self, query: str) -> dict[str, np.ndarray]:
        """The columns of a small result."""
        with self._translated("reading"):
            return {name: np.ma.filled(column) for name, column in self.database.execute(query).fetchnumpy().items()}

    def rows(self, query: str) -> list[tuple]:
        """The rows of a small result."""
        with self._translated("reading"):
            return self.database.execute(query).fetchall()

    def _execute(self, query: str, name: str) -> None:
        """Run the query in a thread, so that its progress is seen and Ctrl-C ends it."""
        with self._translated(name), ThreadPoolExecutor(1) as pool, tqdm(total=100, desc=name, bar_format=BAR) as bar:
            running = pool.submit(self.database.execute, query)
            try:
                while not running.done():
                    with contextlib.suppress(NotYet):
                        running.result(timeout=0.2)
                    bar.update(max(0.0, self.database.query_progress() - bar.n))
                running.result()
                bar.update(100 - bar.n)
            except BaseException:
                self.database.interrupt()
                raise

    @contextlib.contextmanager
    def _translated(self, name: str):
        try:
            yield
        except duckdb.OutOfMemoryException as error:
            raise UserError(f"{name} needs more memory than {self.memory}: give it more with --memory") from error
        except duckdb.Error as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            told = [line for line in lines[:3] if not line.startswith("Original Line:")]  # which holds a patient's data
            raise UserError(f"{name} failed, check its source ({' '.join(told)})") from error


def quoted(text: str | Path) -> str:
    """`text` as a string in SQL."""
    return "'" + str(text).replace("'", "''") + "'"
