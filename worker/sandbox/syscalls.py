"""Numbers of system calls on the machines that torch runs on."""

from __future__ import annotations

import platform
from dataclasses import dataclass

NEWEST = 462  # mseal, of Linux 6.10; what came later was looked at by nobody here


@dataclass(frozen=True)
class Machine:
    """An instruction set: its number in audit records, and where glibc's loader lies."""

    audit: int
    loader: str


MACHINES = {
    "x86_64": Machine(0xC000003E, "/lib64/ld-linux-x86-64.so.2"),
    "aarch64": Machine(0xC00000B7, "/lib/ld-linux-aarch64.so.1"),
}

# name, number on x86_64, number on aarch64; "-": there is none
_NEVER = """
# of other processes
ptrace 101 117
process_vm_readv 310 270
process_vm_writev 311 271
kcmp 312 272
pidfd_getfd 438 438
pidfd_send_signal 424 424
process_madvise 440 440
process_mrelease 448 448
rt_sigqueueinfo 129 138
rt_tgsigqueueinfo 297 240
tkill 200 130
setpriority 141 140
sched_setscheduler 144 119
sched_setparam 142 118
sched_setattr 314 274
ioprio_set 251 30
migrate_pages 256 238
move_pages 279 239
# of files, where Landlock does not look: mode, owner, times, attributes, length by name
chmod 90 -
fchmod 91 52
fchmodat 268 53
fchmodat2 452 452
chown 92 -
fchown 93 55
lchown 94 -
fchownat 260 54
truncate 76 45
utime 132 -
utimes 235 -
futimesat 261 -
utimensat 280 88
setxattr 188 5
lsetxattr 189 6
fsetxattr 190 7
removexattr 197 14
lremovexattr 198 15
fremovexattr 199 16
inotify_init 253 -
inotify_init1 294 26
fanotify_init 300 262
name_to_handle_at 303 264
open_by_handle_at 304 265
# of memory that others share
shmget 29 194
shmat 30 196
shmctl 31 195
semget 64 190
semop 65 193
semctl 66 191
semtimedop 220 192
msgget 68 186
msgsnd 69 189
msgrcv 70 188
msgctl 71 187
mq_open 240 180
mq_unlink 241 181
# mounts and namespaces
mount 165 40
umount2 166 39
pivot_root 155 41
chroot 161 51
open_tree 428 428
move_mount 429 429
fsopen 430 430
fsconfig 431 431
fsmount 432 432
fspick 433 433
mount_setattr 442 442
setns 308 268
unshare 272 97
# the kernel's large surfaces
bpf 321 280
perf_event_open 298 241
userfaultfd 323 282
keyctl 250 219
add_key 248 217
request_key 249 218
io_uring_setup 425 425
io_uring_enter 426 426
io_uring_register 427 427
memfd_secret 447 447
execveat 322 281
# the machine
init_module 175 105
finit_module 313 273
delete_module 176 106
kexec_load 246 104
kexec_file_load 320 294
reboot 169 142
swapon 167 224
swapoff 168 225
acct 163 89
quotactl 179 60
quotactl_fd 443 443
iopl 172 -
ioperm 173 -
modify_ldt 154 -
lookup_dcookie 212 18
syslog 103 116
vhangup 153 58
settimeofday 164 170
clock_settime 227 112
clock_adjtime 305 266
adjtimex 159 171
sethostname 170 161
setdomainname 171 162
"""
_SOMETIMES = """
clone 56 220
clone3 435 435
fork 57 -
vfork 58 -
setsid 112 157
setpgid 109 154
socket 41 198
socketpair 53 199
kill 62 129
tgkill 234 131
prlimit64 302 261
sched_setaffinity 203 122
fcntl 72 25
ioctl 16 29
memfd_create 319 279
mmap 9 222
"""


def machine() -> Machine | None:
    """This one; None if it is none of those."""
    return MACHINES.get(platform.machine())


def _numbers(table: str, name: str) -> dict[str, int]:
    column = 1 + [*MACHINES].index(name)
    rows = [line.split() for line in table.strip().splitlines() if not line.startswith("#")]
    return {row[0]: int(row[column]) for row in rows if row[column] != "-"}


def never(name: str) -> dict[str, int]:
    """Numbers of the calls that no child needs, on a machine of ``MACHINES``."""
    return _numbers(_NEVER, name)


def sometimes(name: str) -> dict[str, int]:
    """Numbers of the calls that are allowed with some arguments, or to some children."""
    return _numbers(_SOMETIMES, name)
