"""Files: written in one step, read where a kill may have left none, and named in messages."""

import json
import os
import threading
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the file in one step, so that neither a reader nor a killed process ever leaves half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_mapping(path: Path) -> dict:
    """The mapping in a JSON file of a run folder; empty where a kill left none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def shown(path: str | Path) -> str:
    """`path` as a message or a command states it: relative to the working directory if inside it."""
    path = Path(os.path.abspath(os.path.expanduser(path)))
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
