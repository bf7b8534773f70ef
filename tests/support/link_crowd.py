"""Many light members of one hub, in one process and one thread: each joins, and sends the update that it has ready.

`python link_crowd.py FOLDER PORT NUM`: certificates of world/0, world/1, ... lie in FOLDER, and one key for all.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
from link_members import layout, payload_of

from hierfl.link._wire import link_pb2 as wire
from hierfl.link.codec import payload_out
from hierfl.link.door import SERVICE
from hierfl.link.identity import server_name
from hierfl.link.permits import NODE_KEY
from hierfl.link.service import VERSIONS
from hierfl.link.session import Stamps

__all__ = ["SMALL", "path_of"]

SMALL = layout(1000)


def path_of(number: int) -> str:
    return f"world/{number}"


async def member(folder: Path, port: int, number: int) -> None:
    """Be one, which dials again after every cut, until the hub says farewell."""
    is_over = False
    while not is_over:
        with contextlib.suppress(grpc.RpcError):
            is_over = await session(folder, port, number)
        await asyncio.sleep(1.0)


async def session(folder: Path, port: int, number: int) -> bool:
    """Dial once, and do what the hub asks; say whether that was its last word."""
    node, update = path_of(number), payload_of(SMALL, number)
    key, certificate, authority = ((folder / name).read_bytes() for name in ("key.pem", f"{number}.pem", "ca.pem"))
    options = [("grpc.ssl_target_name_override", server_name("heart", "world")), ("grpc.use_local_subchannel_pool", 1)]
    metadata, says, stamps = ((NODE_KEY, node.encode()),), asyncio.Queue[wire.MemberSays](), Stamps()
    agreed = {"federation": "heart", "config_digest": "config", "task_digest": "task"}
    says.put_nowait(wire.MemberSays(hello=wire.Hello(versions=VERSIONS, node=node, instance=node, **agreed)))

    async def said() -> AsyncIterator[bytes]:
        while True:
            try:
                message = await asyncio.wait_for(says.get(), 5.0)
            except TimeoutError:
                message = wire.MemberSays(beat=wire.Beat())
            yield stamps.mark(message).SerializeToString()

    async with grpc.aio.secure_channel(
        f"localhost:{port}", grpc.ssl_channel_credentials(authority, key, certificate), options
    ) as channel:
        deliver: Any = channel.stream_unary(f"/{SERVICE}/Deliver")
        async for content in channel.stream_stream(f"/{SERVICE}/Control")(said(), metadata=metadata):
            heard = wire.HubSays.FromString(content)
            match heard.WhichOneof("what"):
                case "welcome":
                    stamps.nonce = heard.welcome.nonce
                case "ask":
                    answer = wire.Answer(id=heard.ask.id)
                    if heard.ask.WhichOneof("what") == "prepare":
                        answer.prepared.SetInParent()
                    else:
                        answer.trained.CopyFrom(
                            wire.Trained(weight=10, update=payload_out(update.shape, update.digest), loss=0.5)
                        )
                    says.put_nowait(wire.MemberSays(answer=answer))
                case "take":
                    await deliver(update.chunks(heard.take.transfer, heard.take.offset), metadata=metadata)
                case "bye":
                    return heard.bye.final
    return False


async def crowd(folder: Path, port: int, num: int) -> None:
    await asyncio.gather(*(member(folder, port, number) for number in range(num)))


if __name__ == "__main__":
    asyncio.run(crowd(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
