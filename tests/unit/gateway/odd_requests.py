"""Bytes that servers have read in different ways, each as a client would send them: one name, one stream of bytes.

They ask for what the gateway answers (a credential, a route, a model), so that what is taken reaches a pod.
"""

from tests.unit.gateway.support import CHAT, KEY

BODY = b'{"model":"chat"}'
SIZE = len(BODY)
AUTH = f"Authorization: Bearer {KEY}".encode()
HOST = b"Host: gateway"
NEXT = b"POST /v1/completions HTTP/1.1\r\n%b\r\n%b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (
    *(HOST, AUTH, SIZE, BODY),
)
"""A second request behind the odd one: it has to be seen as one, or not at all."""
CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (SIZE, BODY)
HIDDEN = b"POST /hidden HTTP/1.1\r\nHost: hidden\r\nContent-Length: 0\r\n\r\n"
"""What a smuggler would like to be taken for a request."""


def request(*lines: bytes, body: bytes = b"", first: bytes = b"", end: bytes = b"\r\n") -> bytes:
    """One request: its first line (a chat by default), a host and a credential, more lines, and its body."""
    line = first or b"POST %b HTTP/1.1" % CHAT.encode()
    return end.join([line, HOST, AUTH, *lines, b"", b""]) + body


def sized(value: bytes, body: bytes = BODY, *more: bytes) -> bytes:
    """A request with a Content-Length."""
    return request(b"Content-Length: " + value, *more, body=body)


def coded(value: bytes, body: bytes = CHUNKS, *more: bytes, first: bytes = b"") -> bytes:
    """A request with a Transfer-Encoding."""
    return request(b"Transfer-Encoding: " + value, *more, body=body, first=first)


def chunked(chunks: bytes) -> bytes:
    """A chunked request whose body is framed so."""
    return coded(b"chunked", chunks)


LENGTH = b"%d" % SIZE
PLAIN = sized(LENGTH)
PATH = CHAT.encode()


def at(target: bytes, version: bytes = b"HTTP/1.1") -> bytes:
    """A request for that target."""
    return request(b"Content-Length: " + LENGTH, body=BODY, first=b"POST " + target + b" " + version)


LENGTHS = {
    "plain": PLAIN,
    "length-blank-before": sized(b"   " + LENGTH),
    "length-blank-behind": sized(LENGTH + b"  "),
    "length-tab-before": sized(b"\t" + LENGTH),
    "length-zeros": sized(b"000" + LENGTH),
    "length-plus": sized(b"+" + LENGTH),
    "length-minus": sized(b"-" + LENGTH),
    "length-hex": sized(b"0x10"),
    "length-float": sized(LENGTH + b".0"),
    "length-exponent": sized(b"1e1"),
    "length-underscore": sized(b"1_6"),
    "length-arabic-digits": sized("١٦".encode()),
    "length-superscript": sized(b"\xb2"),
    "length-list-equal": sized(LENGTH + b", " + LENGTH),
    "length-list-different": sized(LENGTH + b", 0"),
    "length-list-blank": sized(LENGTH + b" 0"),
    "length-empty": sized(b"", b""),
    "length-two-equal": sized(LENGTH, BODY, b"Content-Length: " + LENGTH),
    "length-two-different": sized(LENGTH, BODY, b"Content-Length: 0"),
    "length-two-zero-first": sized(b"0", BODY, b"Content-Length: " + LENGTH),
    "length-two-cases": sized(LENGTH, BODY, b"CONTENT-LENGTH: 0"),
    "length-overflow-64": sized(b"18446744073709551616"),
    "length-overflow-32": sized(b"4294967312"),
    "length-blank-before-colon": request(b"Content-Length : " + LENGTH, body=BODY),
    "length-tab-before-colon": request(b"Content-Length\t: " + LENGTH, body=BODY),
    "length-nul": sized(LENGTH + b"\0"),
    "length-vertical-tab": sized(b"\x0b" + LENGTH),
    "length-underscored-name": request(b"Content_Length: " + LENGTH, body=BODY),
    "length-in-a-fold": request(b"X: y", b" Content-Length: 0", b"Content-Length: " + LENGTH, body=BODY),
    "length-folded": request(b"Content-Length:", b" " + LENGTH, body=BODY),
    "length-short-of-the-body": sized(b"%d" % (SIZE - 1)),
    "length-beyond-the-body": sized(b"%d" % (SIZE + len(HIDDEN)), BODY + HIDDEN),
    "length-none": request(body=BODY),
    "length-1.0": request(b"Content-Length: " + LENGTH, body=BODY, first=b"POST %b HTTP/1.0" % PATH),
    "length-1.0-none": request(body=BODY, first=b"POST %b HTTP/1.0" % PATH),
    "length-get": request(b"Content-Length: %d" % len(HIDDEN), body=HIDDEN, first=b"GET /v1/models HTTP/1.1"),
}
ENCODINGS = {
    "chunked": coded(b"chunked"),
    "chunked-capitals": coded(b"CHUNKED"),
    "chunked-blank-behind": coded(b"chunked "),
    "chunked-tab-before": coded(b"\tchunked"),
    "chunked-quoted": coded(b'"chunked"'),
    "chunked-x": coded(b"xchunked"),
    "chunked-x-behind": coded(b"chunkedx"),
    "chunked-list": coded(b"chunked, chunked"),
    "chunked-comma": coded(b"chunked,"),
    "chunked-comma-before": coded(b",chunked"),
    "chunked-identity": coded(b"chunked, identity"),
    "identity": coded(b"identity", BODY),
    "identity-length": coded(b"identity", BODY, b"Content-Length: " + LENGTH),
    "identity-chunked": coded(b"identity, chunked"),
    "gzip": coded(b"gzip", BODY),
    "gzip-chunked": coded(b"gzip, chunked"),
    "chunked-gzip": coded(b"chunked, gzip"),
    "chunked-parameter": coded(b"chunked;q=1"),
    "chunked-nul": coded(b"chunked\0"),
    "chunked-vertical-tab": coded(b"\x0bchunked"),
    "chunked-return": coded(b"\rchunked"),
    "chunked-newline": request(b"Transfer-Encoding:\nchunked", body=CHUNKS),
    "chunked-folded": request(b"Transfer-Encoding:", b" chunked", body=CHUNKS),
    "chunked-folded-behind": request(b"Transfer-Encoding: chunked", b" , identity", body=CHUNKS),
    "chunked-blank-before-colon": request(b"Transfer-Encoding : chunked", body=CHUNKS),
    "chunked-blank-before-name": request(b" Transfer-Encoding: chunked", body=CHUNKS),
    "chunked-underscored-name": request(b"Transfer_Encoding: chunked", body=CHUNKS),
    "chunked-two": coded(b"chunked", CHUNKS, b"Transfer-Encoding: chunked"),
    "chunked-two-x": coded(b"chunked", CHUNKS, b"Transfer-Encoding: x"),
    "chunked-two-x-first": coded(b"x", CHUNKS, b"Transfer-Encoding: chunked"),
    "chunked-two-identity": coded(b"chunked", CHUNKS, b"Transfer-Encoding: identity"),
    "chunked-empty-first": coded(b"", CHUNKS, b"Transfer-Encoding: chunked"),
    "chunked-length": coded(b"chunked", CHUNKS, b"Content-Length: %d" % len(CHUNKS)),
    "length-chunked": sized(b"%d" % len(CHUNKS), CHUNKS, b"Transfer-Encoding: chunked"),
    "length-zero-chunked": sized(b"0", CHUNKS, b"Transfer-Encoding: chunked"),
    "length-x-chunked": sized(b"5", CHUNKS, b"Transfer-Encoding: xchunked"),
    "chunked-hides-a-request": coded(b"chunked", b"0\r\n\r\n" + HIDDEN, b"Content-Length: %d" % (5 + len(HIDDEN))),
    "chunked-1.0": coded(b"chunked", first=b"POST %b HTTP/1.0" % PATH),
    "chunked-1.0-kept": coded(b"chunked", CHUNKS, b"Connection: keep-alive", first=b"POST %b HTTP/1.0" % PATH),
    "chunked-connection": coded(b"chunked", CHUNKS, b"Connection: Transfer-Encoding"),
    "length-connection": sized(LENGTH, BODY, b"Connection: Content-Length"),
    "te-header": sized(LENGTH, BODY, b"TE: trailers, chunked"),
}
ONE = b"%x\r\n%b\r\n" % (SIZE, BODY)
FRAMES = {
    "chunks-two": chunked(b"1\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (BODY[:1], SIZE - 1, BODY[1:])),
    "chunks-zeros": chunked(b"0000%b00000\r\n\r\n" % ONE),
    "chunks-extension": chunked(ONE.replace(b"\r\n", b";a=b\r\n", 1) + b"0\r\n\r\n"),
    "chunks-extension-quoted": chunked(ONE.replace(b"\r\n", b';a="b;c"\r\n', 1) + b"0\r\n\r\n"),
    "chunks-extension-newline": chunked(ONE.replace(b"\r\n", b";a\n\r\n", 1) + b"0\r\n\r\n"),
    "chunks-extension-return": chunked(ONE.replace(b"\r\n", b";a\rb\r\n", 1) + b"0\r\n\r\n"),
    "chunks-extension-quoted-newline": chunked(ONE.replace(b"\r\n", b';a="\n"\r\n', 1) + b"0\r\n\r\n"),
    "chunks-extension-long": chunked(ONE.replace(b"\r\n", b";" + b"a" * 20_000 + b"\r\n", 1) + b"0\r\n\r\n"),
    "chunks-extension-last": chunked(ONE + b"0;a=b\r\n\r\n"),
    "chunks-blank-behind": chunked(ONE.replace(b"\r\n", b" \r\n", 1) + b"0\r\n\r\n"),
    "chunks-blank-before": chunked(b" " + ONE + b"0\r\n\r\n"),
    "chunks-hex-prefix": chunked(b"0x" + ONE + b"0\r\n\r\n"),
    "chunks-plus": chunked(b"+" + ONE + b"0\r\n\r\n"),
    "chunks-minus": chunked(b"-" + ONE + b"0\r\n\r\n"),
    "chunks-overflow": chunked(b"10000000000000010\r\n%b\r\n0\r\n\r\n" % BODY),
    "chunks-no-size": chunked(b"\r\n%b\r\n0\r\n\r\n" % BODY),
    "chunks-semicolon-only": chunked(b";\r\n%b\r\n0\r\n\r\n" % BODY),
    "chunks-size-newline": chunked(ONE.replace(b"\r\n", b"\n", 1) + b"0\r\n\r\n"),
    "chunks-size-return": chunked(ONE.replace(b"\r\n", b"\r", 1) + b"0\r\n\r\n"),
    "chunks-data-newline": chunked(ONE[:-2] + b"\n0\r\n\r\n"),
    "chunks-data-no-end": chunked(ONE[:-2] + b"0\r\n\r\n"),
    "chunks-data-longer": chunked(ONE[:-2] + b"x\r\n0\r\n\r\n"),
    "chunks-data-shorter": chunked(ONE[:-3] + b"\r\n0\r\n\r\n"),
    "chunks-last-newline": chunked(ONE + b"0\n\n"),
    "chunks-last-newline-only": chunked(ONE + b"0\r\n\n"),
    "chunks-last-return": chunked(ONE + b"0\r\r"),
    "chunks-last-double-zero": chunked(ONE + b"00\r\n\r\n"),
    "chunks-no-last": chunked(ONE),
    "chunks-trailer": chunked(ONE + b"0\r\nX-Trailer: y\r\n\r\n"),
    "chunks-trailer-length": chunked(ONE + b"0\r\nContent-Length: 5\r\n\r\n"),
    "chunks-trailer-encoding": chunked(ONE + b"0\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "chunks-trailer-credential": chunked(ONE + b"0\r\n" + AUTH + b"\r\n\r\n"),
    "chunks-trailer-request": chunked(ONE + b"0\r\nGET /hidden HTTP/1.1\r\n\r\n"),
    "chunks-trailer-folded": chunked(ONE + b"0\r\nX: y\r\n z\r\n\r\n"),
    "chunks-trailer-newline": chunked(ONE + b"0\r\nX: y\n\r\n"),
    "chunks-trailer-no-colon": chunked(ONE + b"0\r\nX\r\n\r\n"),
    "chunks-request-in-data": chunked(b"%x\r\n%b\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN)),
}
HEADS = {
    "newlines": request(b"Content-Length: " + LENGTH, body=BODY, end=b"\n"),
    "newline-in-the-middle": PLAIN.replace(b"\r\nContent", b"\nContent"),
    "newline-at-the-end": PLAIN.replace(b"\r\n\r\n", b"\r\n\n"),
    "newlines-at-the-end": PLAIN.replace(b"\r\n\r\n", b"\n\n"),
    "return-in-the-middle": PLAIN.replace(b"\r\nContent", b"\rContent"),
    "return-twice": PLAIN.replace(b"\r\nContent", b"\r\r\nContent"),
    "return-in-a-value": sized(LENGTH, BODY, b"X: a\rb"),
    "return-hides-a-header": sized(LENGTH, BODY, b"X: a\rTransfer-Encoding: chunked"),
    "newline-hides-a-header": sized(LENGTH, BODY, b"X: a\nTransfer-Encoding: chunked"),
    "nul-in-a-value": sized(LENGTH, BODY, b"X: a\0b"),
    "nul-in-a-name": sized(LENGTH, BODY, b"X\0: a"),
    "control-in-a-value": sized(LENGTH, BODY, b"X: a\x01b"),
    "delete-in-a-value": sized(LENGTH, BODY, b"X: a\x7fb"),
    "tab-in-a-value": sized(LENGTH, BODY, b"X: a\tb"),
    "latin-1-in-a-value": sized(LENGTH, BODY, b"X: \xe4"),
    "latin-1-in-a-name": sized(LENGTH, BODY, b"X\xe4: a"),
    "utf-8-colon": sized(LENGTH, BODY, "X\uff1a a".encode()),
    "blank-in-a-name": sized(LENGTH, BODY, b"X Y: a"),
    "brackets-in-a-name": sized(LENGTH, BODY, b"X[]: a"),
    "no-name": sized(LENGTH, BODY, b": a"),
    "no-colon": sized(LENGTH, BODY, b"X"),
    "no-value": sized(LENGTH, BODY, b"X:"),
    "folded": sized(LENGTH, BODY, b"X: a", b" b"),
    "folded-by-a-tab": sized(LENGTH, BODY, b"X: a", b"\tb"),
    "folded-first": PLAIN.replace(b"\r\nHost", b"\r\n Host", 1),
    "folded-empty": sized(LENGTH, BODY, b"X: a", b" "),
    "blank-line-with-a-blank": PLAIN.replace(b"\r\n\r\n", b"\r\n \r\n"),
    "no-host": PLAIN.replace(HOST + b"\r\n", b""),
    "two-hosts": sized(LENGTH, BODY, HOST),
    "two-hosts-that-differ": sized(LENGTH, BODY, b"Host: other"),
    "host-list": PLAIN.replace(HOST, b"Host: gateway, other"),
    "host-empty": PLAIN.replace(HOST, b"Host:"),
    "host-with-a-path": PLAIN.replace(HOST, b"Host: gateway/x"),
    "host-with-a-user": PLAIN.replace(HOST, b"Host: a@gateway"),
    "host-with-a-fragment": PLAIN.replace(HOST, b"Host: gateway#x"),
    "host-folded": PLAIN.replace(HOST, HOST + b"\r\n other"),
    "two-credentials": sized(LENGTH, BODY, AUTH),
    "long-header": sized(LENGTH, BODY, b"X: " + b"a" * 20_000),
    "many-headers": sized(LENGTH, BODY, *(b"X: a" for _ in range(200))),
    "long-target": at(PATH + b"?" + b"a" * 20_000),
    "expect": sized(LENGTH, BODY, b"Expect: 100-continue"),
    "expect-tea": sized(LENGTH, BODY, b"Expect: tea"),
    "expect-two": sized(LENGTH, BODY, b"Expect: 100-continue", b"Expect: 100-continue"),
    "content-encoding": sized(LENGTH, BODY, b"Content-Encoding: gzip"),
    "upgrade": sized(LENGTH, BODY, b"Connection: Upgrade", b"Upgrade: websocket"),
    "upgrade-h2c": sized(LENGTH, BODY, b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AA"),
    "upgrade-chunked": coded(b"chunked", CHUNKS, b"Connection: Upgrade", b"Upgrade: h2c"),
    "upgrade-get": request(b"Connection: Upgrade", b"Upgrade: websocket", first=b"GET /v1/models HTTP/1.1"),
    "connection-close": sized(LENGTH, BODY, b"Connection: close"),
    "connection-close-and-keep": sized(LENGTH, BODY, b"Connection: keep-alive, close"),
    "connection-two": sized(LENGTH, BODY, b"Connection: keep-alive", b"Connection: close"),
}
LINES = {
    "0.9": b"GET /v1/models\r\n\r\n",
    "0.9-named": request(first=b"GET /v1/models HTTP/0.9"),
    "1.0": request(first=b"GET /v1/models HTTP/1.0"),
    "1.0-kept": request(b"Connection: keep-alive", first=b"GET /v1/models HTTP/1.0"),
    "1.2": request(first=b"GET /v1/models HTTP/1.2"),
    "2.0": request(first=b"GET /v1/models HTTP/2.0"),
    "2.0-preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "version-lower-case": request(first=b"GET /v1/models http/1.1"),
    "version-long": request(first=b"GET /v1/models HTTP/1.10"),
    "version-blank": request(first=b"GET /v1/models HTTP/1 .1"),
    "rtsp": request(first=b"GET /v1/models RTSP/1.0"),
    "blank-behind": request(first=b"GET /v1/models HTTP/1.1 "),
    "two-blanks": request(first=b"GET  /v1/models  HTTP/1.1"),
    "tabs": request(first=b"GET\t/v1/models\tHTTP/1.1"),
    "blank-before": b" " + request(first=b"GET /v1/models HTTP/1.1"),
    "blank-lines-before": b"\r\n\r\n" + request(first=b"GET /v1/models HTTP/1.1"),
    "newlines-before": b"\n\n" + request(first=b"GET /v1/models HTTP/1.1"),
    "method-lower-case": request(first=b"get /v1/models HTTP/1.1"),
    "method-unknown": request(first=b"SMUGGLE /v1/models HTTP/1.1"),
    "method-with-a-colon": request(first=b"GET: /v1/models HTTP/1.1"),
    "connect": request(first=b"CONNECT gateway:80 HTTP/1.1"),
    "no-target": request(first=b"GET HTTP/1.1"),
    "blank-in-the-target": at(PATH + b" /x"),
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 32,
}
TARGETS = {
    f"target-{name}": at(target)
    for name, target in {
        "absolute": b"http://gateway" + PATH,
        "absolute-other": b"http://other" + PATH,
        "absolute-no-path": b"http://gateway",
        "absolute-user": b"http://u:p@gateway" + PATH,
        "authority": b"gateway:80",
        "asterisk": b"*",
        "dots": b"/v1/../v1/chat/completions",
        "dot": b"/v1/./chat/completions",
        "dots-encoded": b"/v1/%2e%2e/v1/chat/completions",
        "slash-encoded": b"/v1%2fchat%2fcompletions",
        "letters-encoded": b"/v1/ch%61t/completions",
        "two-slashes": b"//v1/chat/completions",
        "two-slashes-inside": b"/v1//chat/completions",
        "backslash": b"/v1\\chat\\completions",
        "parameters": PATH + b";a=b",
        "query": PATH + b"?a=b",
        "query-odd": PATH + b"?a=b?c=d&&",
        "fragment": PATH + b"#a",
        "fragment-encoded": PATH + b"%23a",
        "nul-encoded": PATH + b"%00",
        "nul": PATH + b"\0",
        "line-end-encoded": PATH + b"%0d%0aX:%20y",
        "percent": PATH + b"%",
        "percent-odd": PATH + b"%zz",
        "latin-1": PATH + b"/\xe4",
        "utf-8": PATH + "/é".encode(),
        "control": PATH + b"\x01",
        "delete": PATH + b"\x7f",
        "capitals": PATH.upper(),
        "slash-behind": PATH + b"/",
        "quote": PATH + b'"',
        "brackets": PATH + b"?<>{}|^`",
    }.items()
}
ODD: dict[str, bytes] = {**LENGTHS, **ENCODINGS, **FRAMES, **HEADS, **LINES, **TARGETS}
"""Each odd request is followed by a plain one."""
STREAMS: dict[str, bytes] = {name: content + NEXT for name, content in ODD.items()}
