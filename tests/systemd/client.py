"""A caller of tokend's socket. Each argument is a step; they are done in order, by one process.

connect           opens a connection to the daemon
get:PROFILE       asks on it: prints the status, and the token or the reason
often:PROFILE:F   asks until the file F is there: prints "always", or after how many tokens there was none
give:PATH         passes the connection on to whoever takes at PATH
take:PATH         takes the connection that somebody gives
hold:COUNT        opens so many connections and asks on each whether the daemon is there: prints how many were answered
mark:F, wait:F    makes the file F; waits for it
pid, where        prints the number of this process; its control group
sub:PATH          makes a control group below its own and moves there
reborn:PID:DIR:U  forks until a child has this number; the child moves to the control group DIR, becomes the user U and goes on
die:COUNT:PROFILE has so many children killed between their connect and the answer
"""

import array
import os
import pwd
import signal
import socket
import sys
import time

from plain import loads

DAEMON = "/run/tokend/tokend.sock"
PATIENCE = 20

connection = None
kept = []


def say(*words):
    print(*words, flush=True)


def connect():
    connected = socket.socket(socket.AF_UNIX)
    connected.settimeout(PATIENCE)
    connected.connect(DAEMON)
    return connected


def request(profile):
    return f"GET /v1/profiles/{profile}/token HTTP/1.1\r\nHost: tokend\r\n\r\n".encode()


def ask(profile):
    """Status and body; None: the daemon has closed the connection."""
    try:
        connection.sendall(request(profile))
        answer = b""
        while b"\r\n\r\n" not in answer:
            part = connection.recv(65536)
            if not part:
                return None
            answer += part
        head, _, body = answer.partition(b"\r\n\r\n")
        status, *headers = head.decode().split("\r\n")
        length = [int(line.split(":")[1]) for line in headers if line.lower().startswith("content-length:")]
        while len(body) < length[0]:
            part = connection.recv(65536)
            if not part:
                return None
            body += part
    except (BrokenPipeError, ConnectionResetError):
        return None
    return int(status.split()[1]), loads(body)


def get(profile):
    answer = ask(profile)
    if answer is None:
        return "closed"
    status, body = answer
    return f"{status} {body['token'] if status == 200 else body['reason']}"


def step_connect():
    global connection
    try:
        connection = connect()
    except OSError as error:
        say("no connection:", os.strerror(error.errno))
        sys.exit(1)


def step_get(profile):
    say(get(profile))


def step_often(profile, file):
    good = 0
    while not os.path.exists(file):
        answer = get(profile)
        if not answer.startswith("200 "):
            return say(f"{good} times, then {answer}")
        good += 1
    say("always" if good else "never asked")


def step_hold(count):
    answered = 0
    for _ in range(int(count)):
        held = connect()
        kept.append(held)
        try:
            held.sendall(b"GET /healthz HTTP/1.1\r\nHost: tokend\r\n\r\n")
            answered += bool(held.recv(65536))
        except (BrokenPipeError, ConnectionResetError):
            pass
    say(f"{answered} of {count}")


def step_give(path):
    until(lambda: os.path.exists(path), path)
    with socket.socket(socket.AF_UNIX) as giving:
        giving.connect(path)
        number = array.array("i", [connection.fileno()])
        giving.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, number)])


def step_take(path):
    global connection
    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(PATIENCE)
        listener.bind(path)
        os.chmod(path, 0o666)
        listener.listen()
        giver, _ = listener.accept()
        with giver:
            giver.settimeout(PATIENCE)
            numbers = array.array("i")
            _, messages, _, _ = giver.recvmsg(1, socket.CMSG_SPACE(numbers.itemsize))
            numbers.frombytes(messages[0][2])
        os.unlink(path)
    connection = socket.socket(fileno=numbers[0])
    connection.settimeout(PATIENCE)


def until(done, what):
    end = time.monotonic() + PATIENCE
    while not done():
        if time.monotonic() > end:
            sys.exit(f"waited in vain for {what}")
        time.sleep(0.01)


def step_mark(file):
    os.close(os.open(file, os.O_CREAT | os.O_WRONLY, 0o666))


def step_wait(file):
    until(lambda: os.path.exists(file), file)


def step_pid():
    say(os.getpid())


def where():
    with open("/proc/self/cgroup") as lines:
        return next(line.rstrip("\n")[3:] for line in lines if line.startswith("0::"))


def step_where():
    say(where())


def move_to(directory):
    with open(f"{directory}/cgroup.procs", "w") as members:
        members.write(str(os.getpid()))


def step_sub(path):
    directory = f"/sys/fs/cgroup{where()}/{path}"
    os.makedirs(directory)
    move_to(directory)


def step_reborn(number, directory, user):
    number = int(number)
    # The one before is not quite gone as soon as it has exited.
    until(lambda: not os.path.exists(f"/proc/{number}"), f"the end of {number}")
    for _ in range(2000):
        # What is forked next gets the number after this one, unless somebody else forks before us.
        with open("/proc/sys/kernel/ns_last_pid", "w") as last:
            last.write(str(number - 1))
        child = os.fork()
        if child == 0 and os.getpid() == number:
            break
        if child == 0:
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if child == number:
            os._exit(os.waitstatus_to_exitcode(status))
    else:
        sys.exit(f"no process got the number {number}")
    move_to(directory)
    entry = pwd.getpwnam(user)
    os.initgroups(user, entry.pw_gid)
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)


def step_die(count, profile):
    for turn in range(int(count)):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            connected = connect()
            if turn % 5 == 1:
                connected.sendall(request(profile)[:20])
            elif turn % 5 == 2:
                connected.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            elif turn % 5 > 2:
                connected.sendall(request(profile))
            if turn % 5 == 4:
                os.write(writer, b"x")
                time.sleep(PATIENCE)
            os.kill(os.getpid(), signal.SIGKILL)
        os.close(writer)
        if os.read(reader, 1):
            # Somewhere in what the daemon does in the meantime: between 0 and 1.9 ms.
            time.sleep(turn % 20 / 10000)
            os.kill(child, signal.SIGKILL)
        os.close(reader)
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
            sys.exit(f"child {turn} was not killed: {status}")
    say(count, "killed")


def main():
    for step in sys.argv[1:]:
        name, *values = step.split(":")
        globals()[f"step_{name}"](*values)


main()
