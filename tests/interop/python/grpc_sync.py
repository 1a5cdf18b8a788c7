"""Stock grpcio with generated stubs and no channel options at all."""

import base64
import itertools
import os
import time
from datetime import timedelta
from urllib.parse import quote

import grpc
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

from checks import PROFILES, SIGNED, SOCKET, WORK, check, done, equal, introspect, secret, verify
from tokend.v1 import credential_pb2 as pb
from tokend.v1 import credential_pb2_grpc as stubs

NOT_FOUND, UNAVAILABLE = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE
FAILED_PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION


def get(client, profile, timeout=10, **fields):
    return client.GetToken(pb.GetTokenRequest(profile=profile, **fields), timeout=timeout)


def refused(code, reason, call):
    """Expects the status with its ErrorInfo; returns that and the RetryInfo, if there is one."""
    try:
        call()
    except grpc.RpcError as error:
        equal((error.code(), error.details() != ""), (code, True))
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        details = rpc_status.from_call(error).details
        if not any(detail.Unpack(info) for detail in details):
            raise AssertionError("no google.rpc.ErrorInfo") from error
        equal((info.domain, info.reason), ("tokend", reason))
        return info, retry if any(detail.Unpack(retry) for detail in details) else None
    raise AssertionError(f"was answered, instead of {code.name}")


def addresses():
    odd = f"{WORK}/odd name [1]"
    os.makedirs(odd, exist_ok=True)
    link = f"{odd}/tokend:50051@%41.sock"
    if not os.path.islink(link):
        os.symlink(SOCKET, link)
    for target in (f"unix:{SOCKET}", f"unix://{SOCKET}", f"unix:{quote(link)}"):
        with check(f"target {target.replace(WORK, '…')}"), grpc.insecure_channel(target) as channel:
            equal(get(stubs.CredentialServiceStub(channel), "fixed").credential.authorization, "Bearer short")


def tokens(client):
    for profile, (_, _, _, scopes) in SIGNED.items():
        with check(f"{profile}: the token verifies against the provider's keys"):
            answer = get(client, profile)
            credential = answer.credential
            claims = verify(profile, credential.token)
            equal(credential.token_type, "Bearer")
            equal(credential.authorization, f"Bearer {credential.token}")
            equal(list(credential.scopes), scopes)
            left = answer.expires_in.ToTimedelta().total_seconds()
            equal(0 < left <= 600, True)
            equal(credential.refresh_at.seconds < credential.expires_at.seconds <= claims["exp"], True)
            equal(abs(credential.expires_at.seconds - time.time() - left) < 2, True)
            equal((credential.stale, credential.confirmation, credential.generation > 0), (False, "", True))
            equal(credential.target, "https://orders.example/v2" if profile == "basic" else "")
    with check("opaque: the provider knows the token"):
        credential = get(client, "opaque").credential
        equal("." in credential.token, False)
        seen = introspect(credential.token)
        equal((seen["active"], seen["client_id"]), (True, "basic"))
    with check("none, basic and static"):
        none = get(client, "open")
        equal((none.credential.authorization, none.credential.token_type, none.credential.token), ("", "", ""))
        equal((none.HasField("expires_in"), none.credential.target), (False, "http://localhost:8080"))
        basic = get(client, "legacy").credential
        equal(basic.authorization, f"Basic {basic.token}")
        equal(base64.b64decode(basic.token).decode(), f"demo:{secret()}")
        equal(get(client, "fixed").credential.token, "short")
    with check("asked twice, the same credential"):
        first, second = get(client, "basic"), get(client, "basic")
        equal(first.credential, second.credential)
        equal(second.expires_in.ToTimedelta() <= first.expires_in.ToTimedelta(), True)
    with check("ListProfiles"):
        listed = {p.name: p for p in client.ListProfiles(pb.ListProfilesRequest(), timeout=5).profiles}
        equal(list(listed), PROFILES)
        equal([listed[name].method for name in ("basic", "open", "legacy", "fixed")], ["oauth2", "none", "basic", "static"])
        equal([listed[name].available for name in ("basic", "stuck", "rejected", "broken")], [True, True, False, False])


def refusals(client):
    with check("an unknown profile"):
        _, retry = refused(NOT_FOUND, "PROFILE_NOT_FOUND", lambda: get(client, "nowhere"))
        equal(retry, None)
    # This process is the daemon's user, and so an administrator. Others see no difference: tests/it/access.rs.
    with check("a profile of somebody else's has the code of an unknown one, and its own words"):
        texts = []
        for name in ("hidden", "nohide"):
            try:
                get(client, name)
            except grpc.RpcError as error:
                texts.append((error.code(), error.details().replace(name, "…")))
        equal([code for code, _ in texts], [NOT_FOUND] * 2)
        equal(["exists, and no rule" in words for _, words in texts], [True, False])
    with check("rejected by the provider, with its error code"):
        info, _ = refused(FAILED_PRECONDITION, "UPSTREAM_REJECTED", lambda: get(client, "rejected"))
        equal(dict(info.metadata), {"oauth_error": "invalid_client"})
    with check("provider whose certificate nobody trusts: UNAVAILABLE with RetryInfo"):
        _, retry = refused(UNAVAILABLE, "UPSTREAM_UNAVAILABLE", lambda: get(client, "untrusted"))
        equal(0 < retry.retry_delay.ToTimedelta().total_seconds() <= 61, True)
    with check("a profile whose secret is missing"):
        refused(FAILED_PRECONDITION, "PROFILE_INVALID", lambda: get(client, "broken"))
    with check("min_ttl beyond what the issuer ever gives"):
        refused(grpc.StatusCode.OUT_OF_RANGE, "MIN_TTL_TOO_LONG", lambda: get(client, "basic", min_ttl=timedelta(hours=2)))
    with check("a negative min_ttl"):
        refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", lambda: get(client, "basic", min_ttl=timedelta(seconds=-1)))
    with check("a provider that never answers: DEADLINE_EXCEEDED, on time"):
        start = time.monotonic()
        try:
            get(client, "stuck", timeout=0.5)
            raise AssertionError("was answered")
        except grpc.RpcError as error:
            equal(error.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        equal(0.4 < time.monotonic() - start < 3, True)


def services(channel):
    health = health_pb2_grpc.HealthStub(channel)
    serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING

    def state(service):
        return health.Check(health_pb2.HealthCheckRequest(service=service), timeout=5).status

    with check("health, overall and of a profile"):
        equal([state(name) for name in ("", "basic", "open", "stuck")], [serving] * 4)
        equal([state(name) for name in ("rejected", "untrusted", "broken")], [not_serving] * 3)
    for name in ("nowhere", "hidden"):
        with check(f"health of a profile that the caller may not see ({name})"):
            try:
                raise AssertionError(f"was answered: {state(name)}")
            except grpc.RpcError as error:
                equal(error.code(), NOT_FOUND)
    with check("health can be watched"):
        stream = health.Watch(health_pb2.HealthCheckRequest(service="basic"), timeout=5)
        equal(next(stream).status, serving)
        stream.cancel()
    with check("reflection lists the services and describes them"):
        database = ProtoReflectionDescriptorDatabase(channel)
        found = set(database.get_services())
        wanted = {"tokend.v1.CredentialService", "tokend.v1.AdminService", "grpc.health.v1.Health"}
        equal(wanted - found, set())
        described = database.FindFileContainingSymbol("tokend.v1.CredentialService")
        methods = [method.name for service in described.service for method in service.method]
        equal(methods, ["GetToken", "WatchToken", "ReportRejected", "ListProfiles"])


def load(channel, client):
    with check("10 000 calls on one connection, 50 at a time"):
        want = get(client, "basic").credential.token
        for _ in range(200):
            flight = [client.GetToken.future(pb.GetTokenRequest(profile="basic"), timeout=60) for _ in range(50)]
            equal({call.result().credential.token for call in flight}, {want})
    for size in (20_000, 50_000):
        with check(f"{size // 1000} KB of metadata"):
            noise = [(f"x-noise-{i}", "n" * 1000) for i in range(size // 1000)]
            request = pb.GetTokenRequest(profile="fixed")
            equal(client.GetToken(request, timeout=10, metadata=noise).credential.token, "short")


def streams(client):
    with check("WatchToken: the present credential at once"):
        stream = client.WatchToken(pb.WatchTokenRequest(profile="basic"), timeout=10)
        equal(next(stream).credential.token, get(client, "basic").credential.token)
        stream.cancel()
    with check("WatchToken: a replacement before the old one expires"):
        stream = client.WatchToken(pb.WatchTokenRequest(profile="brief"), timeout=30)
        old, new = (event.credential for event in itertools.islice(stream, 2))
        equal(time.time() < old.expires_at.seconds + 1, True)
        equal((new.generation > old.generation, new.token != old.token), (True, True))
        stream.cancel()
    with check("WatchToken: why there is none"):
        stream = client.WatchToken(pb.WatchTokenRequest(profile="rejected"), timeout=10)
        equal(next(stream).unavailable.reason, "UPSTREAM_REJECTED")
        stream.cancel()
    with check("ReportRejected: another credential follows"):
        old = get(client, "colon").credential
        report = pb.ReportRejectedRequest(profile="colon", fingerprint=old.fingerprint)
        watched = client.WatchToken(pb.WatchTokenRequest(profile="colon"), timeout=30)
        client.ReportRejected(report, timeout=10)
        new = next(event.credential for event in watched if event.credential.fingerprint not in ("", old.fingerprint))
        verify("colon", new.token)
        equal(client.ReportRejected(report, timeout=10).replaced, True)


addresses()
with grpc.insecure_channel(f"unix:{SOCKET}") as channel:
    client = stubs.CredentialServiceStub(channel)
    tokens(client)
    services(channel)
    refusals(client)
    load(channel, client)
    streams(client)
done()
