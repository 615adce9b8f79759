"""A fake AWS endpoint with fixed latency: one S3 object, empty DynamoDB tables and an event bus."""

import asyncio
import sys
from pathlib import Path

_BINARY, _JSON = b"application/octet-stream", b"application/x-amz-json-1.0"


async def _serve(image: bytes, latency: float) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if b"100-continue" in head.lower():
                    # boto3 waits for this before it sends an object.
                    await asyncio.sleep(latency)
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                await reader.readexactly(_length(head))
                await asyncio.sleep(latency)
                writer.write(_answer(head, image))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def _length(head: bytes) -> int:
    lengths = [line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return int(lengths[0]) if lengths else 0


def _answer(head: bytes, image: bytes) -> bytes:
    media_type, body = _JSON, b'{"FailedEntryCount": 0, "Entries": []}'
    if head.startswith(b"GET "):
        media_type, body = _BINARY, image
    elif head.startswith(b"PUT "):
        body = b""
    return b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s" % (media_type, len(body), body)


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]).read_bytes(), float(sys.argv[2])))
