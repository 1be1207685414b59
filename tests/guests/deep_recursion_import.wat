;; Recursion through the host: again(depth) calls env.call_me(depth), which is expected to call again(depth + 1).
;; A host that stops at some depth gets a normal return, one that never stops exhausts the stack. Depth at 0.
(module
  (import "env" "call_me" (func $call_me (param i32) (result i32)))
  (memory (export "memory") 1)
  (func $again (export "again") (param $depth i32) (result i32)
    (i32.store (i32.const 0) (local.get $depth))
    (i32.add (call $call_me (local.get $depth)) (i32.const 1)))
  (func (export "_start") (i32.store (i32.const 4) (call $again (i32.const 1)))))
