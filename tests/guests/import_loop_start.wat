;; The import-bound loop as a command: 1,000,000 calls of clock_time_get, nothing else read or written.
(module
  (import "wasi_snapshot_preview1" "clock_time_get"
    (func $clock_time_get (param i32 i64 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start") (local $n i32)
    (local.set $n (i32.const 1000000))
    (loop $next
      (if (call $clock_time_get (i32.const 1) (i64.const 1) (i32.const 8)) (then unreachable))
      (br_if $next (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))))
