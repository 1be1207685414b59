;; Recursion until the stack is exhausted where every level reads the clock: records right up to the overflow.
;; Depth at 0, the last time at 8.
(module
  (import "wasi_snapshot_preview1" "clock_time_get"
    (func $clock_time_get (param i32 i64 i32) (result i32)))
  (memory (export "memory") 1)
  (func $down (param $depth i32) (result i32)
    (i32.store (i32.const 0) (local.get $depth))
    (drop (call $clock_time_get (i32.const 1) (i64.const 1) (i32.const 8)))
    (i32.add (call $down (i32.add (local.get $depth) (i32.const 1))) (i32.const 1)))
  (func (export "_start") (drop (call $down (i32.const 1)))))
