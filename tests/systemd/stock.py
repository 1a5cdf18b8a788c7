"""Stock gRPC callers that wait for ready, and watchers, until a file is there. One line of figures for each kind of round.

Arguments: the socket, how many callers, how many watchers, the profile, the file that ends it, and a file of rounds, each a
line with its beginning and its kind. A call counts for the round in which it began, unless it was still there in one of a kind
that may break it: then for that one, however long the machine took. The file that ends it, with .since behind its name, says
since when (microseconds of the epoch) each caller has begun a call that was answered.

asked    calls
broken   calls that failed with UNAVAILABLE
again    of those, calls whose first repetition failed too, 50 ms later: at once it may meet the connection that has just died
other    calls that failed otherwise, or whose token has expired, and events of watchers that are no credential
ended    streams that ended, and were opened again
stall    the longest that one caller waited for one answer, in milliseconds
"""

import bisect
import os
import sys
import threading
import time

import grpc
from tokend.v1 import credential_pb2 as pb
from tokend.v1 import credential_pb2_grpc as stubs

path, callers, watchers, profile, end, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:7]
PATIENCE = 60
BREAKING = ("kill", "hang")
lock = threading.Lock()
# From when to when, what, how much of it.
events = []
# Of each caller, when the latest call began that was answered.
answers = [0.0] * callers


def note(begin, ended, what, much=1):
    with lock:
        events.append((begin, ended, what, much))


def tell():
    while not over():
        with open(f"{end}.new", "w") as file:
            file.write(str(int(min(answers) * 1e6)))
        os.replace(f"{end}.new", f"{end}.since")
        time.sleep(0.02)


def over():
    return os.path.exists(end)


def client(n):
    # Every other one has a connection of its own; the rest share one, as channels of one process
    # do.
    options = [("grpc.use_local_subchannel_pool", n % 2)]
    return stubs.CredentialServiceStub(grpc.insecure_channel(f"unix:{path}", options))


def lives(credential):
    return credential.token != "" and credential.expires_at.seconds > time.time()


def ask(tokend):
    """Whether a call was answered; None: it was not there to be asked."""
    try:
        answer = tokend.GetToken(pb.GetTokenRequest(profile=profile), timeout=PATIENCE, wait_for_ready=True)
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.UNAVAILABLE:
            return None
        print(f"{error.code()}: {error.details()}", file=sys.stderr)
        return False
    return answer.expires_in.ToSeconds() > 0 and lives(answer.credential)


def call(n):
    tokend = client(n)
    while not over():
        begin, clock = time.time(), time.monotonic()
        answered = ask(tokend)
        ended = time.time()
        note(begin, ended, "asked")
        if answered is None:
            note(begin, ended, "broken")
            time.sleep(0.05)
            answered = ask(tokend)
            if answered is None:
                note(begin, ended, "again")
        elif answered:
            answers[n] = begin
        if answered is False:
            note(begin, ended, "other")
        note(begin, ended, "stall", int((time.monotonic() - clock) * 1000))
        time.sleep(0.05)


def watch(n):
    tokend = client(n)
    while not over():
        begin = time.time()
        stream = tokend.WatchToken(pb.WatchTokenRequest(profile=profile), wait_for_ready=True)
        ender = threading.Thread(target=cancel, args=[stream])
        ender.start()
        seen = 0
        try:
            for event in stream:
                seen += 1
                if event.WhichOneof("event") != "credential" or not lives(event.credential):
                    note(time.time(), time.time(), "other")
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.UNAVAILABLE and not over():
                print(f"{error.code()}: {error.details()}", file=sys.stderr)
                note(time.time(), time.time(), "other")
        if not over():
            note(begin if seen == 0 else time.time(), time.time(), "ended")


def cancel(stream):
    while not over() and stream.is_active():
        time.sleep(0.1)
    stream.cancel()


threads = [threading.Thread(target=call, args=[n]) for n in range(callers)]
threads += [threading.Thread(target=watch, args=[n]) for n in range(watchers)]
threads += [threading.Thread(target=tell)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()

with open(rounds) as file:
    lines = [line.split() for line in file]
begins = [float(begin) for begin, _ in lines]
figures = {kind: dict.fromkeys(["asked", "broken", "again", "other", "ended", "stall"], 0) for _, kind in lines}
for begin, ended, what, much in events:
    first, last = (max(0, bisect.bisect_right(begins, when) - 1) for when in (begin, ended))
    kinds = [kind for _, kind in lines[first : last + 1]]
    of = figures[next((kind for kind in kinds if kind in BREAKING), kinds[0])]
    of[what] = max(of[what], much) if what == "stall" else of[what] + much
for kind, of in figures.items():
    print(kind, " ".join(f"{name} {number}" for name, number in of.items()), flush=True)
