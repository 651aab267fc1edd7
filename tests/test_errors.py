"""How the scripts end: what `reported` makes of their mistakes and of a reader that leaves."""

import os
import subprocess
import sys

from experiments.errors import UserError, reported

import pytest

MANY_LINES = """
from experiments.errors import reported

@reported
def main():
    for line in range({lines}):
        print(line, "x" * 100)
    return 0

raise SystemExit(main())
"""


def with_closed_output(lines: int) -> subprocess.CompletedProcess:
    """A script that prints lines to a pipe that nobody reads, as behind `| head`."""
    reader, writer = os.pipe()
    os.close(reader)
    program = MANY_LINES.format(lines=lines)
    with os.fdopen(writer, "wb") as output:
        return subprocess.run(
            [sys.executable, "-c", program], stdout=output, stderr=subprocess.PIPE, text=True, check=False
        )


@pytest.mark.parametrize("lines", [1, 5000])
def test_a_script_ends_without_a_word_when_nobody_reads_it(lines):
    done = with_closed_output(lines)
    assert (done.returncode, done.stderr) == (141, "")


def test_another_broken_pipe_is_an_error():
    @reported
    def main() -> int:
        raise BrokenPipeError("of a socket")

    with pytest.raises(BrokenPipeError, match="of a socket"):
        main()


def test_a_mistake_is_one_line(capsys):
    @reported
    def main() -> int:
        raise UserError("no such thing: name another")

    assert main() == 2
    assert capsys.readouterr().err == "error: no such thing: name another\n"
