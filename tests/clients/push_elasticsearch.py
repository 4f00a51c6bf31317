"""elasticsearch-py: what it asks first, bulk and single documents; the answers are held against Elasticsearch's."""

import sys

from elasticsearch import BadRequestError, ConflictError, Elasticsearch, NotFoundError, helpers

address = sys.argv[1]
for prefix in ["", "/elasticsearch"]:
    client = Elasticsearch(f"http://{address}{prefix}", retry_on_timeout=False, max_retries=0)
    # The product check, and what tools look at before they send.
    assert client.ping()
    assert client.info()["version"]["number"].startswith("8."), client.info()
    assert client.cluster.health()["status"] == "green"
    assert client.license.get()["license"]["status"] == "active"
    assert client.indices.exists(index="anything")
    assert not client.indices.exists_index_template(name="logs-template")
    assert client.indices.put_index_template(name="logs-template", index_patterns=["logs-*"])["acknowledged"]
    assert client.ilm.put_lifecycle(name="logs", policy={"phases": {}})["acknowledged"]
    assert client.ingest.put_pipeline(id="p", processors=[])["acknowledged"]
    assert client.indices.create_data_stream(name="logs-web-prod")["acknowledged"]
    try:
        client.ilm.get_lifecycle(name="logs")
        raise AssertionError("nothing is kept of a policy")
    except NotFoundError:
        pass

actions = [
    {"_op_type": "create", "_index": "logs-web-prod", "@timestamp": "2026-02-10T12:00:00.5Z", "message": f"bulk {n}", "n": n}
    for n in range(1000)
]
kept, errors = helpers.bulk(client, actions, chunk_size=300)
assert (kept, errors) == (1000, []), (kept, errors)

# One bad document among good ones, one that is too long, and actions that are not supported.
mixed = [
    {"_op_type": "create", "_index": "mixed", "_id": "1", "_source": {"message": "good"}},
    {"_op_type": "create", "_index": "mixed", "_id": "2", "_source": {"message": "x" * (2 << 20)}},
    {"_op_type": "update", "_index": "mixed", "_id": "1", "doc": {"message": "other"}},
    {"_op_type": "delete", "_index": "mixed", "_id": "1"},
    {"_op_type": "index", "_index": "mixed", "_source": {"message": "good, too"}},
    # An id that was created before.
    {"_op_type": "create", "_index": "mixed", "_id": "1", "_source": {"message": "good"}},
]
results = list(helpers.streaming_bulk(client, mixed, raise_on_error=False))
assert [ok for ok, _ in results] == [True, False, False, False, True, False], results
statuses = [next(iter(item.values()))["status"] for _, item in results]
assert statuses == [201, 400, 400, 400, 201, 409], results
assert results[1][1]["create"]["error"]["type"] == "document_parsing_exception", results[1]
assert "line_bytes_max" in str(results[1]) or "limit" in str(results[1]), results[1]

answer = client.index(index="single", document={"message": "one", "level": "warn"})
assert answer["result"] == "created" and answer["_id"], answer
assert client.create(index="single", id="7", document={"message": "two"})["_id"] == "7"
try:
    client.create(index="single", id="7", document={"message": "two"})
    raise AssertionError("an id is created once")
except ConflictError:
    pass
try:
    client.perform_request("POST", "/single/_doc", headers={"content-type": "application/json"}, body=b"[1]")
    raise AssertionError("a document is an object")
except BadRequestError:
    pass
client.indices.refresh(index="single")
