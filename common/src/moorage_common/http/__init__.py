"""HTTP/1.1 on raw asyncio protocols: a strict server, a pooled client, and a relay of answers between the two.

Data flow: bytes → `server.ServerConnection` (httptools) → `message.Request` → a handler → `client.Pool` → engine or
pod, and back through a `client.Sink`, usually a `relay.Relay`, into the `responder.Responder`. No framework stands in
between, as each streamed token passes here.
"""
