"""A trace's spans as OpenTelemetry spans, through the SDK's own objects and encoder.

Ids derive from the recording (the trace id from the manifest, a span's id from that and its number), so exporting twice gives the
same spans. A file holds OTLP's JSON encoding, one request per line, as the collector's file receiver reads it.

OpenTelemetry is an optional dependency: it is imported when something is exported.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from traces._errors import TraceError, UsageError
from traces.manifest import Manifest
from traces.render import span_attributes
from traces.tables import RUN_SPAN, read_spans
from traces.tracedir import SPANS, Trace

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import SpanContext

BATCH: Final = 512
"""Spans in one request."""
SCOPE: Final = "reprise"
_EXPORTER: Final = "opentelemetry.exporter.otlp.proto"
_IDS: Final = ("traceId", "spanId", "parentSpanId")


def spans(trace: Trace) -> Iterator[ReadableSpan]:
    """The trace's spans, in the order in which they began."""
    _need("opentelemetry.sdk.trace")
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    manifest = trace.manifest
    identity = _trace_id(manifest)
    began = manifest.started.get("realtime_ns")
    if not isinstance(began, int) or not 0 <= began < 1 << 62:
        raise TraceError(f"{trace.given}: the manifest does not say when the recording began; restore it from a copy")
    resource = Resource(_resource(manifest))
    scope = InstrumentationScope(SCOPE, manifest.producer.rpartition(" ")[2])
    for batch in read_spans(trace.path / SPANS).to_batches(max_chunksize=4096):
        for row in batch.to_pylist():
            yield _span(row, identity, began, resource, scope)


def _span(row: Mapping[str, Any], identity: int, began: int, resource: Any, scope: Any) -> ReadableSpan:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.status import Status, StatusCode

    attributes = _attributes(row)
    start = began + row["start_ns"]
    fine = row["status"] == "ok"
    return ReadableSpan(
        name=_name(row, attributes),
        context=_context(identity, row["span_id"]),
        parent=None if row["parent"] is None else _context(identity, row["parent"]),
        resource=resource,
        attributes=attributes,
        kind=SpanKind.INTERNAL,
        status=Status(StatusCode.OK) if fine else Status(StatusCode.ERROR, row["status"]),
        start_time=start,
        end_time=start + max(row["duration_ns"] or 0, 0),
        instrumentation_scope=scope,
    )


def _name(row: Mapping[str, Any], attributes: Mapping[str, Any]) -> str:
    """As the GenAI conventions name spans: the operation, then what it was done with."""
    operation = attributes.get("gen_ai.operation.name")
    if row["span_id"] == RUN_SPAN:
        return str(operation or row["name"])
    return f"{operation} {row['name']}" if operation else str(row["name"])


def _attributes(row: Mapping[str, Any]) -> dict[str, Any]:
    plain = {k: v for k, v in span_attributes(row).items() if isinstance(v, str | bool | int | float)}
    return {**plain, "reprise.start_seq": row["start_seq"], "reprise.end_seq": row["end_seq"], "reprise.status": row["status"]}


def _resource(manifest: Manifest) -> dict[str, Any]:
    named = manifest.invocation.get("argv") or ["agent"]
    found = {
        "service.name": str(named[0]),
        "reprise.trace_id": manifest.trace_id,
        "reprise.module.sha256": str(manifest.module.get("sha256", "")),
        "reprise.outcome": str(manifest.outcome.get("kind", "")),
    }
    return {**found, **{f"reprise.note.{key}": str(value) for key, value in manifest.notes.items()}}


def _trace_id(manifest: Manifest) -> int:
    try:
        identity = int(manifest.trace_id, 16)
    except ValueError:
        identity = 0
    if not 0 < identity < 1 << 128:
        raise TraceError("the manifest's trace id is not 128 bits in hexadecimal; restore the manifest from a copy")
    return identity


def span_id(identity: int, number: int) -> int:
    """A span's id: never 0, and the same whenever it is exported."""
    digest = hashlib.sha256(identity.to_bytes(16, "big") + number.to_bytes(8, "big", signed=True)).digest()
    return int.from_bytes(digest[:8], "big") or 1


def _context(identity: int, number: int) -> SpanContext:
    from opentelemetry.trace import SpanContext, TraceFlags

    return SpanContext(identity, span_id(identity, number), is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))


# -- out -----------------------------------------------------------------------------------------------------------------


def json_lines(trace: Trace) -> Iterator[str]:
    """OTLP requests in JSON, one per line."""
    encoder = _need(f"{_EXPORTER}.common.trace_encoder")
    to_dict = _need("google.protobuf.json_format").MessageToDict
    for batch in _batches(spans(trace)):
        request = to_dict(encoder.encode_spans(batch), use_integers_for_enums=True)
        yield json.dumps(_hexadecimal(request), ensure_ascii=False, separators=(",", ":")) + "\n"


def send(trace: Trace, endpoint: str) -> int:
    """Sends the spans to a collector over HTTP; returns how many."""
    if not endpoint.startswith(("http://", "https://")):
        raise UsageError(f"--endpoint {endpoint}: write a collector's URL, such as http://localhost:4318/v1/traces")
    module = _need(f"{_EXPORTER}.http.trace_exporter")
    result = _need("opentelemetry.sdk.trace.export").SpanExportResult
    exporter = module.OTLPSpanExporter(endpoint=endpoint, timeout=10)
    count = 0
    try:
        for batch in _batches(spans(trace)):
            if exporter.export(batch) is not result.SUCCESS:
                raise UsageError(f"--endpoint {endpoint}: the collector did not take the spans; is it running?")
            count += len(batch)
    finally:
        exporter.shutdown()
    return count


def _batches(found: Iterator[ReadableSpan]) -> Iterator[list[ReadableSpan]]:
    batch: list[ReadableSpan] = []
    for span in found:
        batch.append(span)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _hexadecimal(value: Any) -> Any:
    """OTLP's JSON gives ids in hexadecimal, where protobuf's own mapping has base64."""
    import base64

    if isinstance(value, dict):
        return {
            key: base64.b64decode(item).hex() if key in _IDS and isinstance(item, str) else _hexadecimal(item)
            for key, item in value.items()
        }
    return [_hexadecimal(item) for item in value] if isinstance(value, list) else value


def _need(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UsageError("the export needs OpenTelemetry; install it with `pip install 'reprise-wasm[otel]'`") from None
