"""HTTPS, gRPC's health service and ADBC with TLS. argv: HTTP address, gRPC address, the authority's certificate, and, for
a server that asks for them, a client's certificate and key."""

import ssl
import sys
import urllib.request

import adbc_driver_flightsql.dbapi as flightsql
import grpc
from adbc_driver_flightsql import DatabaseOptions

http, rpc, authority, *client = sys.argv[1:]
with open(authority, "rb") as file:
    root = file.read()
pems = []
for path in client:
    with open(path, "rb") as file:
        pems.append(file.read())

context = ssl.create_default_context(cafile=authority)
if client:
    context.load_cert_chain(*client)
line = b'{"level":"info","service":"tls","msg":"over TLS"}\n'
request = urllib.request.Request(f"https://{http}/api/v1/ingest", data=line)
assert b'"accepted":1' in urllib.request.urlopen(request, context=context, timeout=20).read()

certificate, key = pems or (None, None)
credentials = grpc.ssl_channel_credentials(root, key, certificate)
with grpc.secure_channel(rpc, credentials) as channel:
    answer = channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=20)
    assert answer == b"\x08\x01", answer  # SERVING

options = {DatabaseOptions.TLS_ROOT_CERTS.value: root.decode()}
if client:
    options[DatabaseOptions.MTLS_CERT_CHAIN.value] = certificate.decode()
    options[DatabaseOptions.MTLS_PRIVATE_KEY.value] = key.decode()
with flightsql.connect(f"grpc+tls://{rpc}", db_kwargs=options) as connection, connection.cursor() as cursor:
    cursor.execute("SELECT count(*) FROM logs WHERE service = 'tls'")
    assert cursor.fetchone()[0] > 0
