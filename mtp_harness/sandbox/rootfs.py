"""The file system that isolated programs see.

    /            read-only
    /…/lib       Python's standard library and the shared libraries it needs, at their own paths
    /dev         null, zero, urandom
    /box         the program's own folder: empty, writable, bounded, new for every program

Nothing else of the machine is visible: no home, no other packages (their folders inside a library
folder are covered, because data sets with reference solutions live there), no programs to run, and
no /proc or /sys.
"""

import contextlib
import os
import shutil
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import mtp_harness.sandbox.linux as linux

BOX = "/box"
BOX_UID = 1000
_BOX_INODES = 1024
_BASE = "/tmp"  # any folder works: the new root is mounted over it, invisible to others
_OLD = "/.old"
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
_SYSTEM = (
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/etc/ld.so.cache",
    "/usr/share/zoneinfo",
)


def visible_paths() -> dict[str, str]:
    """Return the paths that a program may read: path → the same without symbolic links."""
    stdlib = str(Path(os.__file__).parent)
    libdir = str(sysconfig.get_config_var("LIBDIR"))
    found = [*_SYSTEM, str(Path(stdlib).parent), stdlib, *sys.path, libdir]
    if stdlib.startswith("/nix/store/"):
        found.append("/nix/store")
    real = {path: os.path.realpath(path) for path in (*found, *DEVICES) if path.startswith("/")}
    usable = {path: target for path, target in real.items() if Path(target).exists()}
    # Folders before what lies inside them, so that nothing is bound twice.
    return dict(sorted(usable.items(), key=lambda item: (len(item[1]), item[0])))


def layout(paths: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the entries of a new root in which every path of `visible_paths` leads to its target.

    An entry is the same real path twice, to be bound, or a symbolic link and its target.
    """
    shown: list[str] = []
    linked: list[str] = []
    for path, real in paths.items():
        if not _within(real, shown):
            shown.append(real)
            yield real, real
        if real != path and not _within(path, [*shown, *linked]):
            linked.append(path)
            yield path, real


def _within(path: str, folders: Iterable[str]) -> bool:
    return any(path == one or path.startswith(one + "/") for one in folders)


def enter_new_root(box_bytes: int) -> None:
    """Build the file system and make it this mount namespace's only one.

    The caller is alone in new user and mount namespaces and holds their capabilities.
    """
    linux.mount("none", "/", None, linux.MS_REC | linux.MS_PRIVATE)
    linux.mount("root", _BASE, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "size=1m,mode=755")
    steps = list(layout(visible_paths()))
    Path(_BASE + _OLD).mkdir()
    linux.call("pivot_root", _BASE, _BASE + _OLD)
    os.chdir("/")
    for path, real in steps:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        if path == real:
            if Path(_OLD + real).is_dir():
                Path(real).mkdir(exist_ok=True)
            else:
                Path(real).touch()
            linux.mount(_OLD + real, real, None, linux.MS_BIND | linux.MS_REC)
        elif not Path(path).exists():
            Path(path).symlink_to(real)
    for packages in package_folders(steps):
        linux.mount("none", str(packages), "tmpfs", linux.MS_RDONLY, "size=4k")
    Path(BOX).mkdir()
    _close_doors()
    linux.detach(_OLD)
    Path(_OLD).rmdir()
    linux.make_read_only("/")
    mount_box(box_bytes)


def mount_box(size_bytes: int) -> None:
    """Mount a new empty folder for one program."""
    options = f"size={size_bytes},nr_inodes={_BOX_INODES},mode=700,uid={BOX_UID},gid={BOX_UID}"
    linux.mount("box", BOX, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, options)


def replace_box(size_bytes: int) -> None:
    """Discard the program's folder with its content, and mount a new one."""
    linux.detach(BOX)
    mount_box(size_bytes)


def empty_box() -> bool:
    """Empty the program's folder; return False unless it is then like new."""
    try:
        Path(BOX).chmod(0o700)
        for entry in os.scandir(BOX) if _inodes_in_box() <= _BOX_INODES else ():
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)  # noqa: PTH108
        return _inodes_in_box() == 1 and not os.listxattr(BOX)
    except (OSError, RecursionError):
        return False


def _inodes_in_box() -> int:
    usage = os.statvfs(BOX)
    return usage.f_files - usage.f_ffree


def package_folders(steps: Iterable[tuple[str, str]]) -> Iterator[Path]:
    """Find the folders of installed packages inside bound folders, to cover them."""
    for folder in (Path(path) for path, real in steps if path == real):
        for pattern in ("python*/site-packages", "python*/dist-packages"):
            yield from (one for one in folder.glob(pattern) if one.is_dir())


def _close_doors() -> None:
    """Close access to kernel objects that outlive a program, if this kernel allows it."""
    for name in ("user/max_user_namespaces", "kernel/shmmni", "kernel/msgmni"):
        with contextlib.suppress(OSError):
            Path(f"{_OLD}/proc/sys/{name}").write_text("0")
