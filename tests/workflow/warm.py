"""A Python that starts at once: a server has imported what Snakemake and its jobs need, and forks for each call.

A call is a process of its own, with the folder, environment and streams of its caller, but not in its process group:
what a test kills is started by `sys.executable`.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

#: What stands in for the interpreter: it passes its call on, and ends as the forked process does.
CALLER = """#!{python} -SI
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    call = json.dumps([sys.argv, os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(server, [len(call).to_bytes(4, "big")], [0, 1, 2])
    server.sendall(call)
    status = server.recv(1)
sys.exit(status[0] if status else 255)  # nothing is said by one that was killed
"""


@contextlib.contextmanager
def warm_python(folder: Path, repository: Path) -> Iterator[Path]:
    """Start the server for the duration of the `with` block, and yield the path of what stands in for Python."""
    caller, address = folder / "python", folder / "socket"
    caller.write_text(CALLER.format(python=sys.executable, address=str(address)))
    caller.chmod(0o755)
    environment = {**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, str(caller), str(address)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as server:
        assert server.stdout.readline() == b"listening\n"
        yield caller
        server.stdin.close()  # by which it ends, as it does when this process is killed


def serve(caller: str, address: str) -> None:
    """Import everything, then fork for each call until the other end of standard input is closed."""
    from pipeline_lib.stages import STAGES

    for module in ("snakemake.cli", "matplotlib.pyplot", *STAGES.values()):
        importlib.import_module(module)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        print("listening", flush=True)
        if os.fork() == 0:
            os.read(0, 1)
            os.kill(os.getppid(), signal.SIGTERM)
            os._exit(0)
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                answer(connection, caller)
            connection.close()


def answer(connection: socket.socket, caller: str) -> None:
    """Do in this process, as `python` would, what a caller asks for, and tell it the exit status."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    head, streams, *_ = socket.recv_fds(connection, 4, 3)
    with connection.makefile("rb") as stream:
        argv, folder, environment = json.loads(stream.read(int.from_bytes(head, "big")))
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.executable, status = caller, 0
    try:
        if argv[1] == "-m":
            sys.argv = argv[2:]
            runpy.run_module(argv[2], run_name="__main__", alter_sys=True)
        else:
            sys.argv = argv[1:]
            runpy.run_path(argv[1], run_name="__main__")
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    connection.sendall(bytes([status]))
    os._exit(status)


if __name__ == "__main__":
    serve(*sys.argv[1:])
