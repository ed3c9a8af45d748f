import subprocess
import sys

SAYS = """
import logging, sys
from flows.console import show_own_lines

show_own_lines()
log = logging.getLogger("tasks")
log.warning("read")
sys.stdin.readline()
for line in range(3):
    log.warning("read by nobody")
open(sys.argv[1], "w").write("came to its end")
"""


def test_a_reader_who_has_gone_ends_no_run(tmp_path):
    end = tmp_path / "end"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen([sys.executable, "-c", SAYS, end], **pipes) as process:
        said = process.stdout.readline()
        process.stdout.close()
        process.stdin.write("\n")
        process.stdin.flush()
        process.wait()

    assert said.rstrip().endswith("read")
    assert end.read_text() == "came to its end"
