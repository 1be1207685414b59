;; A start function that cannot reach an import: such a module needs no derived form.
;; It fills 16 bytes at 0; run(x) calls the import with what the start function left.
(module
  (import "env" "double" (func $double (param i32) (result i32)))
  (memory (export "memory") 1)
  (func $begin
    (memory.fill (i32.const 0) (i32.const 7) (i32.const 16)))
  (start $begin)
  (func (export "run") (param $x i32) (result i32)
    (call $double (i32.add (local.get $x) (i32.load8_u (i32.const 3))))))
