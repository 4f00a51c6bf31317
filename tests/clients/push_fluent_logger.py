"""fluent-logger sends three events to the Forward port at argv[1], as its users do (Message mode, with EventTime)."""

import sys

from fluent import sender

host, port = sys.argv[1].rsplit(":", 1)
logger = sender.FluentSender("shop", host=host, port=int(port), nanosecond_precision=True)
assert logger.emit_with_time("cart", 1_770_725_100.5, {"message": "cart opened", "user": {"id": 7, "name": "é"}})
assert logger.emit("cart", {"log": '{"level":"error","msg":"declined","status":402}', "container_name": "/cart"})
assert logger.emit(None, {"from": "a", "to": ["b", "c"]})
logger.close()
assert logger.last_error is None, logger.last_error
