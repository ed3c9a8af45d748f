"""In processes of their own: what it changes, it changes for the whole of one."""

import subprocess
import sys

LOOK = "import gc; from amopo_core.collector import look_less_often; look_less_often(); "
CYCLES = "class Node: pass\ndef cycle():\n  node = Node(); node.own = node\n  return node\n"


def said(script: str) -> str:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()


def test_garbage_is_still_found() -> None:
    count = "count = lambda: sum(isinstance(found, Node) for found in gc.get_objects())\n"
    made = f"{CYCLES}{count}for _ in range(100_000): cycle()\nprint(gc.isenabled(), count() < 20_000)"

    assert said(f"{LOOK}\n{made}") == "True True"


def test_at_the_end_nothing_is_looked_through() -> None:
    last = "import atexit, gc; atexit.register(lambda: print(gc.get_freeze_count() > 1000)); "

    assert [said(last), said(last + LOOK)] == ["False", "True"]
