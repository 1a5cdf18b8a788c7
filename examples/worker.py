"""A job worker for Camunda 8's REST API that holds no secret: it asks tokend before each call, and reports what the API refuses.

usage: worker.py PROFILE [JOBS]    without JOBS: ten a second, until SIGTERM

The stubs: python -m grpc_tools.protoc -I proto --python_out=. --grpc_python_out=. proto/tokend/v1/credential.proto
"""

import http.client
import json
import os
import signal
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import grpc
from tokend.v1.credential_pb2 import GetTokenRequest, ReportRejectedRequest
from tokend.v1.credential_pb2_grpc import CredentialServiceStub

NAME = "errand-python"
SOCKET = os.environ.get("TOKEND_SOCKET", "/run/tokend/tokend.sock")
# Back at once after a restart of tokend.
SOON = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 1000)]
tokend = CredentialServiceStub(grpc.insecure_channel(f"unix:{SOCKET}", SOON))
profile = sys.argv[1]
# What is told at the end. `failed`: for want of a credential; `repeated`: because the API was not
# there.
count = {"jobs": 0, "calls": 0, "rejected": 0, "failed": 0, "repeated": 0, "credential_ms": 0, "gap_ms": 0}


def credential():
    return tokend.GetToken(GetTokenRequest(profile=profile), timeout=10, wait_for_ready=True).credential


def credential_after(refused):
    """Another one than the one that was refused, as soon as there is one."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        report = ReportRejectedRequest(profile=profile, fingerprint=refused.fingerprint)
        answer = tokend.ReportRejected(report, timeout=10, wait_for_ready=True)
        if answer.replaced:
            return credential()
        time.sleep(min(max(answer.retry_after.ToTimedelta().total_seconds(), 0.1), 1))
    raise PermissionError(f"{profile}: refused, and no other credential within ten seconds")


def send(method, path, body, media, given):
    address = urlsplit(given.target)
    kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
    connection = kind(address.netloc, timeout=15)
    headers = {"Content-Type": media} | ({"Authorization": given.authorization} if given.authorization else {})
    try:
        connection.request(method, address.path.rstrip("/") + path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def call(method, path, body=None, media="application/json"):
    """The status and the body, once the API has one to give."""
    body = json.dumps(body).encode() if isinstance(body, dict) else body
    while True:
        count["calls"] += 1
        try:
            asked = time.monotonic()
            given = credential()
            waited = time.monotonic() - asked
            status, answer = send(method, path, body, media, given)
            if status == 401:
                count["rejected"] += 1
                asked = time.monotonic()
                given = credential_after(given)
                waited += time.monotonic() - asked
                status, answer = send(method, path, body, media, given)
            count["credential_ms"] = max(count["credential_ms"], round(waited * 1000))
            if status == 401:
                raise PermissionError(f"{method} {path}: {status}")
            if status < 500 and status != 429:
                return status, answer
            count["repeated"] += 1
        except (grpc.RpcError, PermissionError) as error:
            count["failed"] += 1
            print(f"no credential: {error}", file=sys.stderr)
        except (OSError, http.client.HTTPException):
            count["repeated"] += 1
        time.sleep(0.2)


def asked(path, body):
    status, answer = call("POST", path, body)
    if status != 200:
        raise SystemExit(f"POST {path}: {status}: {answer.decode()}")
    return json.loads(answer)


def deploy():
    """One file as multipart/form-data."""
    process = Path(__file__).with_name("errand.bpmn").read_text().replace("errand", NAME)
    head = f'--part\r\nContent-Disposition: form-data; name="resources"; filename="{NAME}.bpmn"\r\n\r\n'
    status, answer = call("POST", "/v2/deployments", f"{head}{process}\r\n--part--\r\n".encode(), "multipart/form-data; boundary=part")
    if status != 200:
        raise SystemExit(f"deployment: {status}: {answer.decode()}")


def work(started):
    """Completes the jobs that are there, or come within five seconds."""
    wanted = {"type": NAME, "worker": NAME, "maxJobsToActivate": 10, "timeout": 10_000, "requestTimeout": 5_000}
    for job in asked("/v2/jobs/activation", wanted)["jobs"]:
        status, answer = call("POST", f"/v2/jobs/{job['key']}/completion", {"variables": {"done": True}})
        # 404: it was completed by a call whose answer was lost.
        if status not in (204, 404):
            raise SystemExit(f"completion: {status}: {answer.decode()}")
        started.discard(job["processInstanceKey"])
        count["jobs"] += 1


def main():
    jobs = int(sys.argv[2]) if len(sys.argv) > 2 else None
    ended = False

    def end(*_):
        nonlocal ended
        ended = True

    signal.signal(signal.SIGTERM, end)
    status, answer = call("GET", "/v2/topology")
    if status != 200:
        raise SystemExit(f"topology: {status}: {answer.decode()}")
    deploy()
    started = set()
    last = next_one = time.monotonic()
    while not ended and (jobs is None or count["jobs"] < jobs):
        if jobs is None:
            next_one = max(next_one + 0.1, time.monotonic() - 1)
            time.sleep(max(0, next_one - time.monotonic()))
        started.add(asked("/v2/process-instances", {"processDefinitionId": NAME})["processInstanceKey"])
        work(started)
        count["gap_ms"] = max(count["gap_ms"], round((time.monotonic() - last) * 1000))
        last = time.monotonic()
    # Nothing that was started stays undone.
    while started:
        work(started)
    print(json.dumps(count))


main()
