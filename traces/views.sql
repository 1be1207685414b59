-- What `reprise query` offers on top of the tables of one trace, or of every trace of a store.
--
-- query.py makes these first, each with a last column `trace` (the directory's name):
--   raw_events   events.parquet as it is: one row per journal record
--   spans, states, runs
-- Columns are described in docs/format.md. Sequence numbers count within a trace, so every join is on (trace, seq).

-- A little-endian u32 of a blob, `start` bytes in.
CREATE MACRO u32(data, start) AS
  ((data[start + 4 : start + 4] || data[start + 3 : start + 3] || data[start + 2 : start + 2] || data[start + 1 : start + 1])
    ::BIT::UINTEGER);

-- The pieces of guest memory a record carries: [{address, memory, sent, bytes}], in order. Walks the chunks
-- (traces/layout.py) from `chunks_at`; a record that lies about their lengths ends the walk.
CREATE MACRO pieces(record, chunks_at) AS (
  WITH RECURSIVE walk(step, position, address, word, bytes) AS (
    SELECT 0, chunks_at::BIGINT, NULL::UBIGINT, NULL::BIGINT, NULL::BLOB
    UNION ALL
    SELECT step + 1, body + ((word & 16777215) + 3) // 4 * 4, address, word, record[body + 1 : body + (word & 16777215)]
    FROM (
      SELECT step, word, position + 8 + 4 * (word >> 30 & 1) AS body,
        u32(record, position)::UBIGINT
          + CASE WHEN word >> 30 & 1 = 1 THEN u32(record, position + 8)::UBIGINT * 4294967296 ELSE 0 END AS address
      FROM (
        SELECT step, position, u32(record, position + 4)::BIGINT AS word FROM walk WHERE position + 8 <= octet_length(record)
      )
      WHERE position + 8 + 4 * (word >> 30 & 1) <= octet_length(record)
    )
  )
  SELECT coalesce(list({
    'address': address, 'memory': (word >> 24 & 63)::INTEGER, 'sent': word >> 31 = 1, 'bytes': bytes
  } ORDER BY step), [])
  FROM walk WHERE step > 0 AND word >> 24 & 63 <> 63
);

CREATE MACRO joined(blobs) AS list_reduce(list_concat([''::BLOB], blobs), lambda a, b: a || b);
CREATE MACRO sent_bytes(pieces) AS joined([p.bytes FOR p IN pieces IF p.sent]);
CREATE MACRO received_bytes(pieces) AS joined([p.bytes FOR p IN pieces IF NOT p.sent]);

-- All bytes a record sent or received, as one blob: `SELECT sent_blob(record, chunks_at) FROM events`.
CREATE MACRO sent_blob(record, chunks_at) AS sent_bytes(pieces(record, chunks_at));
CREATE MACRO received_blob(record, chunks_at) AS received_bytes(pieces(record, chunks_at));

-- The u32 the host wrote to an address, null when it wrote none there.
CREATE MACRO u32_at(pieces, where_) AS
  u32([p.bytes FOR p IN pieces IF NOT p.sent AND p.address = where_ AND octet_length(p.bytes) >= 4][1], 0);

-- One row per thing that happened. Most calls are complete in place and need no join; only records left open look for
-- their return, and only calls that never returned look for what ended them.
CREATE VIEW events AS
SELECT seq, kind, "import", target, depth, status, time_ns, duration_ns, args, results, detail, sent, received, span, "of",
  seq AS ended, record, chunks_at, trace
FROM raw_events
WHERE status <> 'open' AND kind <> 'return' AND kind <> 'data'
UNION ALL
SELECT o.seq, o.kind, o."import", o.target, o.depth,
  CASE
    WHEN c.kind = 'return' THEN c.status
    WHEN c.kind IS NOT NULL THEN CASE c.kind WHEN 'exit' THEN 'ok' WHEN 'trap' THEN 'trap' ELSE 'unfinished' END
    ELSE coalesce((
      SELECT CASE arg_min(e.kind, e.seq) WHEN 'exit' THEN 'ok' WHEN 'trap' THEN 'trap' ELSE 'unfinished' END
      FROM raw_events e
      WHERE e.kind IN ('trap', 'exit', 'stop') AND e.trace = o.trace AND e.seq > o.seq AND e.depth < o.depth
    ), 'unfinished')
  END,
  o.time_ns, coalesce(o.duration_ns, c.duration_ns), o.args, coalesce(c.results, o.results),
  CASE WHEN c.kind = 'return' AND c.detail IS NOT NULL THEN concat_ws(' ', o.detail, c.detail) ELSE o.detail END,
  o.sent + coalesce(c.sent, 0) + coalesce(d.sent, 0), o.received + coalesce(c.received, 0) + coalesce(d.received, 0),
  o.span, o."of", c.seq, o.record, o.chunks_at, o.trace
FROM raw_events o
LEFT JOIN raw_events c
  ON c."of" = o.seq AND c.trace = o.trace AND c.kind IN ('return', 'trap', 'exit', 'stop')
LEFT JOIN (
  SELECT trace, "of", sum(sent)::BIGINT AS sent, sum(received)::BIGINT AS received FROM raw_events WHERE kind = 'data' GROUP BY ALL
) d ON d."of" = o.seq AND d.trace = o.trace
WHERE o.status = 'open';

-- WASI calls of the operations named, with the memory they read and wrote wherever it was recorded: in place, in data rows,
-- or in the return. A macro and not a view: the operations are chosen before any record is taken apart.
CREATE MACRO wasi_calls(operations) AS TABLE
SELECT seq, split_part("import", '.', 2) AS operation, status, time_ns, args, results, detail, pieces(record, chunks_at) AS pieces, trace
FROM (
  SELECT * FROM raw_events
  WHERE kind = 'call' AND status <> 'open' AND starts_with("import", 'wasi_') AND list_contains(operations, split_part("import", '.', 2))
)
UNION ALL
SELECT o.seq, split_part(any_value(o."import"), '.', 2), coalesce(any_value(p.status) FILTER (p.kind = 'return'), 'unfinished'),
  any_value(o.time_ns), any_value(o.args), coalesce(any_value(p.results) FILTER (p.kind = 'return'), []),
  concat_ws(' ', any_value(o.detail), any_value(p.detail) FILTER (p.kind = 'return')),
  flatten(list(p.pieces ORDER BY p.seq)), o.trace
FROM (
  SELECT * FROM raw_events
  WHERE kind = 'call' AND status = 'open' AND starts_with("import", 'wasi_') AND list_contains(operations, split_part("import", '.', 2))
) o
JOIN (
  SELECT trace, seq, kind, status, detail, results, coalesce(CASE WHEN kind = 'call' THEN seq END, "of") AS owner,
    pieces(record, chunks_at) AS pieces
  FROM (
    SELECT * FROM raw_events WHERE (kind = 'call' AND status = 'open') OR kind IN ('data', 'return')
  )
) p ON p.trace = o.trace AND p.owner = o.seq
GROUP BY o.trace, o.seq;

-- What the guest wrote to stdout and stderr, as far as the host accepted it.
CREATE VIEW output AS
SELECT seq, stream, time_ns, octet_length(bytes) AS size, try(decode(bytes)) AS text, bytes, trace
FROM (
  -- fd_write(fd, iovs, iovs_len, nwritten): the first 8 * iovs_len bytes sent are the list, the rest is what it points to.
  SELECT seq, CASE args[1] WHEN 1 THEN 'stdout' ELSE 'stderr' END AS stream, time_ns, trace,
    sent_bytes(pieces)[8 * args[3]::BIGINT + 1 : 8 * args[3]::BIGINT + coalesce(u32_at(pieces, args[4]), 0)::BIGINT] AS bytes
  FROM wasi_calls(['fd_write'])
  WHERE status = 'ok' AND args[1] IN (1, 2)
);

-- Paths the guest touched. For path_open: the descriptor it got, and what was read and written through it until that
-- number was opened again.
CREATE VIEW files AS
WITH paths AS (
  SELECT seq, operation, status, detail, results[1] AS errno, time_ns, trace,
    try(decode([p.bytes FOR p IN pieces IF p.sent][1])) AS path,
    try(decode([p.bytes FOR p IN pieces IF p.sent][2])) AS other_path,
    CASE WHEN operation = 'path_open' AND status = 'ok' THEN u32_at(pieces, args[9]) END AS fd
  FROM wasi_calls([
    'path_open', 'path_create_directory', 'path_filestat_get', 'path_filestat_set_times', 'path_link', 'path_readlink',
    'path_remove_directory', 'path_rename', 'path_symlink', 'path_unlink_file'
  ])
), moves AS (
  SELECT trace, seq, args[1] AS fd, ends_with(operation, 'write') AS writes,
    u32_at(pieces, CASE WHEN operation IN ('fd_pread', 'fd_pwrite') THEN args[5] ELSE args[4] END) AS size
  FROM wasi_calls(['fd_read', 'fd_pread', 'fd_write', 'fd_pwrite']) WHERE status = 'ok'
), used AS (
  SELECT p.trace, p.seq, (sum(m.size) FILTER (NOT m.writes))::BIGINT AS bytes_read, (sum(m.size) FILTER (m.writes))::BIGINT AS bytes_written
  FROM moves m ASOF JOIN (SELECT * FROM paths WHERE fd IS NOT NULL) p ON p.trace = m.trace AND p.fd = m.fd AND p.seq <= m.seq
  GROUP BY p.trace, p.seq
)
SELECT p.seq, p.operation, p.path, p.other_path, p.fd, p.status, p.errno,
  CASE WHEN p.fd IS NOT NULL THEN coalesce(u.bytes_read, 0) END AS bytes_read,
  CASE WHEN p.fd IS NOT NULL THEN coalesce(u.bytes_written, 0) END AS bytes_written,
  p.detail, p.time_ns, p.trace
FROM paths p LEFT JOIN used u ON u.trace = p.trace AND u.seq = p.seq;

-- Socket calls. sock_send(fd, iovs, iovs_len, flags, nwritten) sends like fd_write.
CREATE VIEW network AS
SELECT seq, operation, args[1] AS fd, status, results[1] AS errno,
  CASE WHEN operation IN ('sock_send', 'sock_recv') THEN u32_at(pieces, args[5]) END AS size,
  CASE WHEN operation = 'sock_accept' THEN u32_at(pieces, args[3]) END AS accepted,
  CASE WHEN operation = 'sock_send'
    THEN sent_bytes(pieces)[8 * args[3]::BIGINT + 1 : 8 * args[3]::BIGINT + coalesce(u32_at(pieces, args[5]), 0)::BIGINT]
  END AS bytes,
  detail, time_ns, trace
FROM wasi_calls(['sock_accept', 'sock_recv', 'sock_send', 'sock_shutdown']);
