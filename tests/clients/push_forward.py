"""Fluent Forward as Fluentd and Fluent Bit speak it, by the specification (v1.5): handshake, packed and compressed
chunks, acknowledgements. argv: a JSON object of `address`, and of what is asked: `shared_key`, `user`, `password`, `ca`
(TLS), `mode` (forward, packed, gzip, zstd), `chunk`, `first` and `count` of the events; `refused`: the server has to
refuse with this reason."""

import gzip
import hashlib
import json
import os
import socket
import ssl
import struct
import sys

import msgpack
import pyarrow

asked = json.loads(sys.argv[1])
host, port = asked["address"].rsplit(":", 1)
connection = socket.create_connection((host, int(port)), timeout=20)
if "ca" in asked:
    connection = ssl.create_default_context(cafile=asked["ca"]).wrap_socket(connection, server_hostname="localhost")
answers = msgpack.Unpacker(raw=False)


def receive():
    while True:
        for answer in answers:
            return answer
        received = connection.recv(4096)
        if not received:
            raise ConnectionError("the server closed")
        answers.feed(received)


def digest(*parts):
    return hashlib.sha512(b"".join(parts)).hexdigest()


if "shared_key" in asked:
    key, name, salt = asked["shared_key"].encode(), b"client", os.urandom(16)
    kind, options = receive()
    assert kind == "HELO", kind
    nonce, auth = options["nonce"], options["auth"]
    user, password = asked.get("user", "").encode(), asked.get("password", "").encode()
    secret = digest(auth, user, password) if auth else ""
    connection.sendall(
        msgpack.packb(["PING", name.decode(), salt, digest(salt, name, nonce, key), user.decode(), secret])
    )
    kind, is_in, reason, server, proof = receive()
    assert kind == "PONG", kind
    if "refused" in asked:
        assert not is_in and reason == asked["refused"], reason
        sys.exit()
    assert is_in, reason
    assert proof == digest(salt, server.encode(), nonce, key), "the server does not know the key"

event_time = msgpack.ExtType(0, struct.pack(">II", 1_770_725_100, 5))
first, count = asked.get("first", 0), asked["count"]
entries = [[event_time, {"log": f"event {n}", "n": n}] for n in range(first, first + count)]
packed = b"".join(msgpack.packb(entry) for entry in entries)
option = {"size": count}
if "chunk" in asked:
    option["chunk"] = asked["chunk"]
mode = asked.get("mode", "forward")
if mode == "gzip":
    packed, option["compressed"] = gzip.compress(packed), "gzip"
if mode == "zstd":
    packed, option["compressed"] = pyarrow.compress(packed, codec="zstd", asbytes=True), "zstd"
connection.sendall(msgpack.packb(None))
connection.sendall(msgpack.packb(["app.web", entries if mode == "forward" else packed, option]))
if "chunk" in asked:
    assert receive() == {"ack": asked["chunk"]}
connection.close()
