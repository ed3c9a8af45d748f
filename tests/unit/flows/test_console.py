import os
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
FAILS_TO_LOG = """
import sys
from flows.console import show_own_lines

show_own_lines()
from prefect.logging.handlers import APILogWorker

APILogWorker.instance().send({"message": "a line that the server refuses"})
APILogWorker.drain_all(timeout=60)
sys.stderr.write("error: what the user must read\\n")
"""
"""What a full disk does to Prefect's server: it takes no line."""


def test_a_line_that_prefect_does_not_take_hangs_on_to_no_message():
    nobody = {"PREFECT_API_URL": "http://127.0.0.1:1/api", "PREFECT_CLIENT_MAX_RETRIES": "0"}

    ended = subprocess.run(
        [sys.executable, "-c", FAILS_TO_LOG], env=os.environ | nobody, capture_output=True, text=True
    )

    assert ended.stderr == "error: what the user must read\n"


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
