"""Starts clean Python processes: nothing is forked, and only one channel is inherited."""

import os
import socket
import subprocess
import sys
from pathlib import Path

# The two packages are created empty instead of imported, so that their `__init__` files, and all
# that these may import, stay out of a process that programs are forked from.
_BOOTSTRAP = """
import importlib, sys, types
module, descriptor, *folders = sys.argv[1:]
del sys.argv[1:], sys.orig_argv[1:]
above, package, _ = module.split(".")
for name, folder in zip((above, above + "." + package), folders):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [folder]
importlib.import_module(module).main(int(descriptor))
"""
FOLDER = Path(__file__).resolve().parent
_FLAGS = ("-s", "-S", "-P", "-B")  # no site-packages, no user site, no script folder, no .pyc files


def start(
    module: str, channel: socket.socket, new_session: bool = False
) -> subprocess.Popen[bytes]:
    """Start the `main(channel)` of a module of this package in a fresh interpreter.

    Its environment is `environment()` and the PATH, which bubblewrap is searched in.
    """
    descriptor = channel.fileno()
    return subprocess.Popen(
        command(sys.executable, module, descriptor),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**environment(), "PATH": os.environ.get("PATH", os.defpath)},
        pass_fds=(descriptor,),
        start_new_session=new_session,
    )


def command(python: str, module: str, descriptor: int) -> list[str]:
    """Return the command line that runs `module` with its channel at `descriptor`."""
    folders = (str(FOLDER.parent), str(FOLDER))
    return [python, *_FLAGS, "-c", _BOOTSTRAP, f"{__package__}.{module}", str(descriptor), *folders]


def environment() -> dict[str, str]:
    """Return the variables that the interpreter needs to start, and no others.

    The seed of string hashes is fixed, because the order of a set must not decide a verdict. The
    loader binds all functions at once, because otherwise every forked program would bind them
    again.
    """
    passed_on = {name: text for name, text in os.environ.items() if name == "LD_LIBRARY_PATH"}
    return {"PYTHONHASHSEED": "0", "LD_BIND_NOW": "1", **passed_on}


def end(process: subprocess.Popen[bytes], patience_s: float) -> None:
    """Wait for a process whose channel has been closed, and kill it if it does not end."""
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
