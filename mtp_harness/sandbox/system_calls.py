"""The system calls that `seccomp` denies, and their numbers on the machines that are known here."""

from typing import NamedTuple


class Machine(NamedTuple):
    """A machine's own number in the kernel's records, that of `seccomp`, and those of calls."""

    architecture: int
    install: int
    numbers: dict[str, int]


# What the filter looks into instead of denying it.
SPECIAL = ("clone", "clone3", "socket", "socketpair", "setsockopt")
_NAMES = """
add_key request_key keyctl
io_uring_setup io_uring_enter io_uring_register
ptrace process_vm_readv process_vm_writev process_madvise kcmp pidfd_getfd
bpf perf_event_open userfaultfd fanotify_init
mount umount2 pivot_root chroot unshare setns
open_tree move_mount fsopen fsconfig fsmount fspick mount_setattr
open_by_handle_at name_to_handle_at quotactl acct swapon swapoff
kexec_load kexec_file_load init_module finit_module delete_module reboot syslog
sethostname setdomainname settimeofday clock_settime clock_adjtime adjtimex
ioprio_set migrate_pages move_pages
shmget msgget semget mq_open
inotify_init1 io_setup vmsplice personality quotactl_fd statmount listmount open_tree_attr
""".split()
_X86_64 = """
248 249 250
425 426 427
101 310 311 440 312 438
321 298 323 300
165 166 155 161 272 308
428 429 430 431 432 433 442
304 303 179 163 167 168
246 320 175 313 176 169 103
170 171 164 227 305 159
251 256 279
29 68 64 240
294 206 278 135 443 457 458 467
56 435 41 53 54
"""
_AARCH64 = """
217 218 219
425 426 427
117 270 271 440 272 438
280 241 282 262
40 39 41 51 97 268
428 429 430 431 432 433 442
265 264 60 89 224 225
104 294 105 273 106 142 116
161 162 170 112 266 171
30 238 239
194 186 190 180
26 0 75 92 443 457 458 467
220 435 198 199 208
"""
_X86_ONLY = {"iopl": 172, "ioperm": 173, "modify_ldt": 154, "inotify_init": 253}


def _numbers(text: str) -> dict[str, int]:
    return dict(zip((*_NAMES, *SPECIAL), map(int, text.split()), strict=True))


MACHINES = {
    "x86_64": Machine(0xC000003E, 317, _numbers(_X86_64) | _X86_ONLY),
    "aarch64": Machine(0xC00000B7, 277, _numbers(_AARCH64)),
}
