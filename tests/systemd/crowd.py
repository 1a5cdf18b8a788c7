"""Callers that ask all the time, each time over a new connection, until a file is there. One line of figures at the end.

Arguments: how many callers, the profile, the file.

asked    calls
broken   calls whose connection ended before the answer
refused  connections that were not made
again    of the broken calls, those whose first repetition failed too
other    answers that are not 200, or whose token has expired
stall    the longest that one caller waited, in milliseconds
"""

import os
import socket
import sys
import threading
import time

from plain import loads

callers, profile, end = int(sys.argv[1]), sys.argv[2], sys.argv[3]
REQUEST = f"GET /v1/profiles/{profile}/token HTTP/1.1\r\nHost: tokend\r\nConnection: close\r\n\r\n".encode()
lock = threading.Lock()
figures = dict.fromkeys(["asked", "broken", "refused", "again", "other", "stall"], 0)


def count(name):
    with lock:
        figures[name] += 1


def once():
    """What became of one call."""
    stream = socket.socket(socket.AF_UNIX)
    stream.settimeout(60)
    with stream:
        try:
            stream.connect("/run/tokend/tokend.sock")
        except OSError:
            return "refused"
        answer = b""
        try:
            stream.sendall(REQUEST)
            while part := stream.recv(65536):
                answer += part
        except OSError:
            return "broken"
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head:
        return "broken"
    try:
        good = head.startswith(b"HTTP/1.1 200 ") and loads(body)["expires_in"] > 0
    except (ValueError, SyntaxError):
        return "broken"
    return "good" if good else "other"


def ask():
    while not os.path.exists(end):
        begin = time.monotonic()
        outcome = once()
        count("asked")
        if outcome != "good":
            count(outcome)
            if outcome == "broken" and once() != "good":
                count("again")
        took = int((time.monotonic() - begin) * 1000)
        with lock:
            figures["stall"] = max(figures["stall"], took)
        time.sleep(0.01)


threads = [threading.Thread(target=ask) for _ in range(callers)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(" ".join(f"{name} {number}" for name, number in figures.items()), flush=True)
