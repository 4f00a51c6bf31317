"""The OpenTelemetry SDK sends two log records: argv[1] is `http` or `grpc`, argv[2] the address of that port."""

import sys

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource

protocol, address = sys.argv[1:]
if protocol == "http":
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter

    exporter = OTLPLogExporter(endpoint=f"http://{address}/v1/logs")
else:
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter

    exporter = OTLPLogExporter(endpoint=f"http://{address}", insecure=True)
provider = LoggerProvider(resource=Resource.create({"service.name": f"otel-{protocol}"}))
provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
logger = provider.get_logger("tests")
for number, severity in enumerate([SeverityNumber.INFO, SeverityNumber.ERROR]):
    logger.emit(
        LogRecord(
            timestamp=1_770_725_100_000_000_001 + number,
            severity_number=severity,
            severity_text=severity.name,
            body=f"otel line {number}",
            trace_id=0x4BF92F3577B34DA6A3CE929D0E0E4736,
            span_id=0x00F067AA0BA902B7,
            attributes={"http.status": 200 + number, "ratio": 0.5, "ok": True},
        )
    )
provider.shutdown()
