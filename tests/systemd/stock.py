"""Stock gRPC callers that wait for ready, and watchers, until a file is there. One line of figures for each kind of round.

Arguments: the socket, how many callers, how many watchers, the profile, the file that ends it, and a file of rounds, each a
line with its beginning and its kind. What happens counts for the round in which it began.

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
lock = threading.Lock()
# When, what, how much of it.
events = []


def note(when, what, much=1):
    with lock:
        events.append((when, what, much))


def over():
    return os.path.exists(end)


def client(n):
    # Every other one has a connection of its own; the rest share one, as channels of one process do.
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
        note(begin, "asked")
        if n == 0 and answered:
            open(f"{end}.asked", "w").close()
        if answered is None:
            note(begin, "broken")
            time.sleep(0.05)
            answered = ask(tokend)
            if answered is None:
                note(begin, "again")
        if answered is False:
            note(begin, "other")
        note(begin, "stall", int((time.monotonic() - clock) * 1000))
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
                    note(time.time(), "other")
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.UNAVAILABLE and not over():
                print(f"{error.code()}: {error.details()}", file=sys.stderr)
                note(time.time(), "other")
        if not over():
            note(begin if seen == 0 else time.time(), "ended")


def cancel(stream):
    while not over() and stream.is_active():
        time.sleep(0.1)
    stream.cancel()


threads = [threading.Thread(target=call, args=[n]) for n in range(callers)]
threads += [threading.Thread(target=watch, args=[n]) for n in range(watchers)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()

with open(rounds) as file:
    lines = [line.split() for line in file]
begins = [float(begin) for begin, _ in lines]
figures = {kind: dict.fromkeys(["asked", "broken", "again", "other", "ended", "stall"], 0) for _, kind in lines}
for when, what, much in events:
    of = figures[lines[max(0, bisect.bisect_right(begins, when) - 1)][1]]
    of[what] = max(of[what], much) if what == "stall" else of[what] + much
for kind, of in figures.items():
    print(kind, " ".join(f"{name} {number}" for name, number in of.items()), flush=True)
