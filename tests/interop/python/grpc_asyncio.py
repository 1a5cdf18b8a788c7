"""grpc.aio, the asynchronous half of grpcio, again without channel options."""

import asyncio

import grpc

from checks import SOCKET, check, done, equal, verify
from tokend.v1 import credential_pb2 as pb
from tokend.v1 import credential_pb2_grpc as stubs


async def main():
    async with grpc.aio.insecure_channel(f"unix:{SOCKET}") as channel:
        client = stubs.CredentialServiceStub(channel)
        request = pb.GetTokenRequest(profile="basic")
        with check("the token verifies against the provider's keys"):
            answer = await client.GetToken(request, timeout=10)
            verify("basic", answer.credential.token)
        with check("200 calls at the same time"):
            answers = await asyncio.gather(*(client.GetToken(request, timeout=30) for _ in range(200)))
            equal({answer.credential.generation for answer in answers}, {answer.credential.generation})
        with check("WatchToken, read and cancelled"):
            stream = client.WatchToken(pb.WatchTokenRequest(profile="basic"), timeout=10)
            equal((await stream.read()).credential.generation, answer.credential.generation)
            stream.cancel()
        with check("an unknown profile"):
            try:
                await client.GetToken(pb.GetTokenRequest(profile="nowhere"), timeout=10)
                raise AssertionError("was answered")
            except grpc.aio.AioRpcError as error:
                equal(error.code(), grpc.StatusCode.NOT_FOUND)


asyncio.run(main())
done()
