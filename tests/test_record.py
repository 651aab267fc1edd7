"""What a record says of the code behind it."""

import subprocess

from experiments.ingredients import record
from experiments.ingredients.record import Provenance

import pytest


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A repository with one commit, taken for the project's."""
    for name in ("models/som.py", "results/runs/0.json", "README.md"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("committed")
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    for command in (["init", "--quiet"], ["add", "."], [*identity, "commit", "--quiet", "--message=all"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    monkeypatch.setattr(record, "PROJECT_FOLDER", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("changed", "dirty"),
    [("models/som.py", True), ("models/new.py", True), ("results/runs/1.json", False), ("README.md", False)],
)
def test_what_is_rendered_is_no_change_of_the_code(clone, changed, dirty):
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=clone, check=True, capture_output=True, text=True)
    assert Provenance.now() == Provenance(commit.stdout.strip(), False)
    (clone / changed).write_text("changed")
    assert Provenance.now().git_dirty is dirty


def test_outside_a_clone_the_code_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "PROJECT_FOLDER", tmp_path)
    assert Provenance.now() == Provenance(None, True)
