;; Two memories, and the one WASI must use is the second: index 0 is private, index 1 is exported as "memory".
;; _start reads the clock into memory 1, copies it into memory 0 (xor-ed), and prints a line from memory 1.
(module
  (import "wasi_snapshot_preview1" "clock_time_get"
    (func $clock_time_get (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory $private 1)
  (memory $shown (export "memory") 1)
  (data (memory $shown) (i32.const 64) "two memories\n")
  (func (export "_start")
    (if (call $clock_time_get (i32.const 0) (i64.const 1) (i32.const 8)) (then unreachable))
    (memory.copy $private $shown (i32.const 128) (i32.const 8) (i32.const 8))
    (i64.store $private (i32.const 136)
      (i64.xor (i64.load $private (i32.const 128)) (i64.const 0x5555555555555555)))
    (i32.store $shown (i32.const 16) (i32.const 64))
    (i32.store $shown (i32.const 20) (i32.const 13))
    (drop (call $fd_write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 24))))
  (func (export "peek") (param $address i32) (result i64)
    (i64.load $private (local.get $address))))
