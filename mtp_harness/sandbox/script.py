"""The program's side of the rule `stdio`: run it as a script, then end the process.

Standard output is the channel to the grader: what has been written arrives, however the process
ends. The exit code says how it ended; only the grader knows the expected output.
"""

import atexit
import builtins
import os
import socket
import sys
import types
from typing import NoReturn

EXIT_EXCEPTION = 1
EXIT_MEMORY = 71
EXIT_SYNTAX = 72


def run(sock: socket.socket, code: str, text: str) -> NoReturn:
    """Run `code` as `__main__`; its standard input is `text`, its standard output `sock`."""
    leave = os._exit  # stored here, since the program may replace it
    given = os.memfd_create("input")
    os.dup2(given, 0)
    os.close(given)
    rest = memoryview(text.encode())
    while rest:
        rest = rest[os.write(0, rest) :]
    os.lseek(0, 0, os.SEEK_SET)
    os.dup2(sock.fileno(), 1)
    sock.close()
    sys.stdin = vars(sys)["__stdin__"] = open(0, encoding="utf-8")
    sys.stdout = vars(sys)["__stdout__"] = open(1, "w", encoding="utf-8", errors="replace")
    vars(builtins)["exit"] = vars(builtins)["quit"] = sys.exit  # `site` gives these to scripts
    status = EXIT_EXCEPTION
    try:
        status = _execute(code)
    except MemoryError:
        status = EXIT_MEMORY
    finally:
        leave(status)


def _execute(code: str) -> int:
    """Return the exit code, once every thread has ended and all output is written."""
    try:
        compiled = compile(code, "<candidate>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, OverflowError, RecursionError):
        return EXIT_SYNTAX
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    status = 0
    try:
        exec(compiled, module.__dict__)
    except SystemExit as left:  # as at the end of a script: None and 0 are fine
        status = EXIT_EXCEPTION if left.code else 0
    if "threading" in sys.modules:  # programs use a thread to get a big stack
        sys.modules["threading"]._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.__stdout__):
        if stream is not None and not stream.closed:
            stream.flush()
    return status
