"""The same isolation made by `bwrap`, if an AppArmor profile allows it and not us.

It builds the file system that `rootfs` describes, plus the interpreter and the source of this
package, since the zygote starts inside. Inside, no process has a capability: the zygote cannot
mount anything, so it empties the program's folder, and ends if it cannot. A set-uid bubblewrap does
not limit the size of that folder, and is refused.
"""

import os
import shutil
import socket
import subprocess
import sys

import mtp_harness.sandbox.interpreter as interpreter
import mtp_harness.sandbox.linux as linux
import mtp_harness.sandbox.rootfs as rootfs
from mtp_harness.sandbox.types import NOBODY, NoNamespaces


def start(channel: socket.socket, box_bytes: int, errors: int) -> subprocess.Popen[bytes]:
    """Start a zygote as process 1 inside bubblewrap; raises `NoNamespaces`.

    Args:
        channel: The zygote's end of its channel.
        box_bytes: Size of the program's folder.
        errors: File for bubblewrap's error messages.
    """
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise NoNamespaces("bubblewrap: not installed")
    python = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    options = ["--unshare-all", "--unshare-user", *_no_more_users(bwrap)]
    options += ["--die-with-parent", "--as-pid-1", "--new-session"]
    for name, value in interpreter.environment().items():
        options += ["--setenv", name, value]
    options += _files([python, str(interpreter.FOLDER)])
    # Last: the folder that stays writable when the root is read-only.
    options += [*_folder(rootfs.BOX, box_bytes), "--remount-ro", "/", "--chdir", "/"]
    try:
        return subprocess.Popen(
            [bwrap, *options, "--", *interpreter.command(python, "zygote", channel.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env={},
            pass_fds=(channel.fileno(),),
            preexec_fn=_prepare,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise NoNamespaces(f"bubblewrap: {error}") from None


def complaint(errors: int) -> str:
    """Return the last line of what bubblewrap wrote."""
    os.lseek(errors, 0, os.SEEK_SET)
    lines = os.read(errors, 2**16).decode(errors="replace").strip().splitlines()
    said = lines[-1].removeprefix("bwrap: ") if lines else "it ended without a word"
    return f"bubblewrap{' as nobody' if os.geteuid() == 0 else ''}: {said}"


def _prepare() -> None:
    """Prepare the new process before it becomes bubblewrap."""
    linux.be_killed_first()
    if os.geteuid() == 0:  # root's processes are not counted by the kernel, in any namespace
        linux.become(NOBODY)


def _no_more_users(bwrap: str) -> list[str]:
    """Return the option against user namespaces inside, if this `bwrap` has it."""
    known = subprocess.run([bwrap, "--help"], capture_output=True, text=True).stdout
    return ["--disable-userns"] if "--disable-userns" in known else []


def _files(further: list[str]) -> list[str]:
    """Return the options that show the same as `rootfs`, and `further` paths, read-only."""
    steps = list(rootfs.layout({**rootfs.visible_paths(), **{one: one for one in further}}))
    options: list[str] = []
    for path, real in steps:
        bind = "--dev-bind" if real in rootfs.DEVICES else "--ro-bind"
        options += [bind if path == real else "--symlink", real, path]
    for packages in sorted({os.path.realpath(one) for one in rootfs.package_folders(steps)}):
        options += [*_folder(packages, 4096), "--remount-ro", packages]
    return options


def _folder(path: str, size_bytes: int) -> list[str]:
    return ["--size", str(size_bytes), "--tmpfs", path]
