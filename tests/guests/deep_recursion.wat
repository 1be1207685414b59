;; Pure guest recursion until the stack is exhausted. The depth reached is at 0; no import is ever called.
(module
  (memory (export "memory") 1)
  (func $down (param $depth i32) (result i32)
    (i32.store (i32.const 0) (local.get $depth))
    (i32.add (call $down (i32.add (local.get $depth) (i32.const 1))) (i32.const 1)))
  (func (export "_start") (drop (call $down (i32.const 1)))))
