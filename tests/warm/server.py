"""Run each program that comes over a socket in a fork of this process: server.py SOCKET MODULE..."""

import atexit
import importlib
import json
import os
import runpy
import signal
import socket
import socketserver
import sys
import threading
import traceback
from types import ModuleType

ROOT = os.environ["PYTHONPATH"]  # as the one who starts this process sets it
os.fsync = lambda fd: None  # as in tests/conftest.py


class Program(socketserver.StreamRequestHandler):
    """One program, in a process of its own."""

    def handle(self) -> None:
        """Receive the program, run it and answer its exit status."""
        size, files, *_ = socket.recv_fds(self.connection, 8, 3)
        arguments, environment, folder = json.loads(self.rfile.read(int.from_bytes(size, "big")))
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        if "PYTHONPATH" not in environment:
            sys.path.remove(ROOT)
        sys.executable = os.environ.get("TESTS_WARM_NESTED", sys.executable)
        hub = sys.modules.get("huggingface_hub.constants")
        if hub is not None:
            importlib.reload(hub)  # of this environment; all that asks for them asks there, each time
        threading.Thread(target=self._end_with_the_client, daemon=True).start()
        self.wfile.write(f"{os.getpid()}\n".encode())
        status = ended(arguments)
        self.wfile.write(f"{status}\n".encode())

    def _end_with_the_client(self) -> None:
        self.rfile.read()
        os.kill(os.getpid(), signal.SIGKILL)


def ended(arguments: list[str]) -> int:
    """Run a program to its end, as an interpreter with these arguments does; return its exit status."""
    status = 0
    try:
        run(arguments)
    except SystemExit as stop:
        if isinstance(stop.code, str):
            sys.stderr.write(f"{stop.code}\n")
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def run(arguments: list[str]) -> None:
    kind, *rest = arguments[1:] if arguments[0] == "-u" else arguments  # torchrun's
    if kind == "-c":
        code, *rest = rest
        sys.argv, sys.path[0] = ["-c", *rest], ""
        main = sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(code, "<string>", "exec"), main.__dict__)
    elif kind == "-m":
        sys.argv, sys.path[0] = rest, os.getcwd()
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = [kind, *rest], os.path.dirname(os.path.abspath(kind))
        runpy.run_path(kind, run_name="__main__")


class Server(socketserver.ForkingMixIn, socketserver.UnixStreamServer):
    """Forks for every program."""

    max_children = 1000

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing more: the program has printed what happened."""


if __name__ == "__main__":
    for name in sys.argv[2:]:
        importlib.import_module(name)
    with Server(sys.argv[1], Program) as server:
        os.write(1, b"ready\n")
        server.serve_forever()
