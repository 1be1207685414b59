;; The import-bound loop as an export: run(n) calls clock_time_get n times and returns the last time read.
;; For per-call costs from an embedder; import_loop_start.wat is the same as a command.
(module
  (import "wasi_snapshot_preview1" "clock_time_get"
    (func $clock_time_get (param i32 i64 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "run") (param $n i32) (result i64)
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $n)))
        (br_if $done (call $clock_time_get (i32.const 1) (i64.const 1) (i32.const 8)))
        (local.set $n (i32.sub (local.get $n) (i32.const 1)))
        (br $next)))
    (i64.load (i32.const 8))))
