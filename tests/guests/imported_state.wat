;; All its state is the embedder's: memory, a mutable global and a function table come from "env".
;; step(x) bumps the global, stores into memory, calls env.tick and the table's entry 0, and returns their sum.
(module
  (import "env" "memory" (memory 1 4))
  (import "env" "counter" (global $counter (mut i32)))
  (import "env" "table" (table $table 2 10 funcref))
  (import "env" "tick" (func $tick (param i32) (result i32)))
  (type $unary (func (param i32) (result i32)))
  (func $triple (param $x i32) (result i32) (i32.mul (local.get $x) (i32.const 3)))
  (elem (table $table) (i32.const 0) func $triple)
  (data (i32.const 256) "imported state")
  (export "memory" (memory 0))
  (func (export "step") (param $x i32) (result i32)
    (global.set $counter (i32.add (global.get $counter) (i32.const 1)))
    (i32.store (i32.shl (global.get $counter) (i32.const 2)) (local.get $x))
    (i32.add
      (call $tick (global.get $counter))
      (call_indirect $table (type $unary) (local.get $x) (i32.const 0)))))
