"""Processes that the tests of units need.

older COMMAND…               becomes COMMAND, for which the kernel is older than Linux 6.5: it knows
                             neither SO_PEERPIDFD nor PIDFD_GET_INFO
caller SOCKET PROCS WHEN     connects to SOCKET from the cgroup of PROCS by a process of its own, and
                             prints the status of a call on that connection: while that process is
                             alive, when it has ended ("dead"), or when a later process in the cgroup
                             has its number ("reused")
"""

import ctypes
import os
import platform
import signal
import socket
import struct
import sys

NUMBERS = {"x86_64": (55, 16), "aarch64": (209, 29)}  # getsockopt, ioctl
SO_PEERPIDFD = 77
PIDFD_GET_INFO = 0xFF0B  # type and number of the request, without its size
ENOTTY, ENOPROTOOPT = 25, 92


def older(command):
    getsockopt, ioctl = NUMBERS[platform.machine()]
    load, equal, mask, give = 0x20, 0x15, 0x54, 0x06
    steps = [
        (load, 0, 0, 0),  # the number of the system call
        (equal, 0, 3, getsockopt),
        (load, 0, 0, 32),  # the third argument
        (equal, 0, 5, SO_PEERPIDFD),
        (give, 0, 0, 0x00050000 | ENOPROTOOPT),
        (equal, 0, 3, ioctl),
        (load, 0, 0, 24),  # the second argument
        (mask, 0, 0, 0xFFFF),
        (equal, 1, 0, PIDFD_GET_INFO),
        (give, 0, 0, 0x7FFF0000),  # everything else is allowed
        (give, 0, 0, 0x00050000 | ENOTTY),
    ]
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    filtered = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(steps), ctypes.addressof(program)))
    libc = ctypes.CDLL(None, use_errno=True)
    set_no_new_privileges, set_seccomp, by_filter = 38, 22, 2
    for arguments in (set_no_new_privileges, 1, 0), (set_seccomp, by_filter, filtered):
        if libc.prctl(*arguments, 0, 0) != 0:
            sys.exit(os.strerror(ctypes.get_errno()))
    os.execvp(command[0], command)


def ask(connection, path):
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: tokend\r\n\r\n".encode())
    return connection.recv(65536).split()[1].decode()


def caller(path, procs, when):
    here, there = socket.socketpair(socket.AF_UNIX)
    child = os.fork()
    if child == 0:
        move(os.getpid(), procs)
        connected = socket.socket(socket.AF_UNIX)
        connected.connect(path)
        # It is accepted once it has been answered.
        ask(connected, "/healthz")
        socket.send_fds(there, [b"x"], [connected.fileno()])
        signal.pause()
    connected = socket.socket(fileno=socket.recv_fds(here, 1, 1)[1][0])
    if when != "alive":
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if when == "reused":
        reborn(child, procs)
    print(ask(connected, "/v1/profiles/unit/token"))
    if when != "dead":
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def reborn(number, procs):
    """Forks until a child has this number, and moves it to the cgroup."""
    for _ in range(100):
        with open("/proc/sys/kernel/ns_last_pid", "w") as last:
            last.write(str(number - 1))
        child = os.fork()
        if child == 0:
            signal.pause()
        if child == number:
            return move(child, procs)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    sys.exit("another process took the number")


def move(process, procs):
    with open(procs, "w") as cgroup:
        cgroup.write(str(process))


if sys.argv[1] == "older":
    older(sys.argv[2:])
else:
    caller(*sys.argv[2:])
