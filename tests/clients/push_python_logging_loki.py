"""python-logging-loki pushes three records to the store at argv[1]; it raises when an answer is not 204."""

import logging
import sys

import logging_loki


class Strict(logging_loki.LokiHandler):
    """The published handler prints errors and goes on; here they count."""

    def handleError(self, record):
        raise


handler = Strict(url=f"http://{sys.argv[1]}/loki/api/v1/push", tags={"app": "py-loki"}, version="1")
logger = logging.getLogger("shop.cart")
logger.setLevel(logging.DEBUG)
logger.addHandler(handler)
logger.info("cart opened")
logger.warning("cart %s is slow", 7, extra={"tags": {"region": "eu"}})
logger.error('{"msg": "declined", "status": 402}')
