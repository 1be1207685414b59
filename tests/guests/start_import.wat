;; A start function (the section, not the export _start) that calls imports while the module is being instantiated.
;; The time lands at 8, random bytes at 16; time() and noise() give them back, run() reads the clock again.
(module
  (import "wasi_snapshot_preview1" "clock_time_get"
    (func $clock_time_get (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func $begin
    (if (call $clock_time_get (i32.const 0) (i64.const 1) (i32.const 8)) (then unreachable))
    (if (call $random_get (i32.const 16) (i32.const 8)) (then unreachable)))
  (start $begin)
  (func (export "time") (result i64) (i64.load (i32.const 8)))
  (func (export "noise") (result i64) (i64.load (i32.const 16)))
  (func (export "run") (result i64)
    (drop (call $clock_time_get (i32.const 1) (i64.const 1) (i32.const 24)))
    (i64.sub (i64.load (i32.const 24)) (i64.load (i32.const 8)))))
