;; No memory at all: imports one env function, exports run(x) = double(x) + 1 and a mutable global with the last result.
(module
  (import "env" "double" (func $double (param i32) (result i32)))
  (global $last (export "last") (mut i32) (i32.const 0))
  (func (export "run") (param $x i32) (result i32)
    (global.set $last (i32.add (call $double (local.get $x)) (i32.const 1)))
    (global.get $last)))
