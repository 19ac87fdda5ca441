"""The system calls that `seccomp` denies, and their numbers on known machines."""

from typing import NamedTuple


class Machine(NamedTuple):
    """A machine's own number in the kernel's records, that of `seccomp`, and those of calls."""

    architecture: int
    install: int
    numbers: dict[str, int]


# Calls that the filter inspects instead of denying them.
SPECIAL = ("clone", "clone3", "socket", "socketpair", "setsockopt")
# Name, number on x86_64, number on aarch64.
_CALLS = """
add_key 248 217, request_key 249 218, keyctl 250 219,
io_uring_setup 425 425, io_uring_enter 426 426, io_uring_register 427 427,
ptrace 101 117, process_vm_readv 310 270, process_vm_writev 311 271, process_madvise 440 440,
kcmp 312 272, pidfd_getfd 438 438,
bpf 321 280, perf_event_open 298 241, userfaultfd 323 282, fanotify_init 300 262,
mount 165 40, umount2 166 39, pivot_root 155 41, chroot 161 51, unshare 272 97, setns 308 268,
open_tree 428 428, move_mount 429 429, fsopen 430 430, fsconfig 431 431, fsmount 432 432,
fspick 433 433, mount_setattr 442 442,
open_by_handle_at 304 265, name_to_handle_at 303 264, quotactl 179 60, acct 163 89,
swapon 167 224, swapoff 168 225,
kexec_load 246 104, kexec_file_load 320 294, init_module 175 105, finit_module 313 273,
delete_module 176 106, reboot 169 142, syslog 103 116,
sethostname 170 161, setdomainname 171 162, settimeofday 164 170, clock_settime 227 112,
clock_adjtime 305 266, adjtimex 159 171,
ioprio_set 251 30, migrate_pages 256 238, move_pages 279 239,
shmget 29 194, msgget 68 186, semget 64 190, mq_open 240 180,
inotify_init1 294 26, io_setup 206 0, vmsplice 278 75, personality 135 92, quotactl_fd 443 443,
statmount 457 457, listmount 458 458, open_tree_attr 467 467,
clone 56 220, clone3 435 435, socket 41 198, socketpair 53 199, setsockopt 54 208
"""
_ROWS = [row.split() for row in _CALLS.split(",")]
_X86_ONLY = {"iopl": 172, "ioperm": 173, "modify_ldt": 154, "inotify_init": 253}

MACHINES = {
    "x86_64": Machine(0xC000003E, 317, {name: int(x86) for name, x86, _ in _ROWS} | _X86_ONLY),
    "aarch64": Machine(0xC00000B7, 277, {name: int(arm) for name, _, arm in _ROWS}),
}
