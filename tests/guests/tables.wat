;; A growable funcref table, exported: the guest calls through it, grows it, and hands functions in and out of it.
;;
;; call(i, x) = table[i](x); grow(n) appends n copies of $square; set(i, j) copies entry j to i; clear(i) nulls it;
;; pick(i) returns the reference itself; imported(i) puts the import env.note into entry i.
(module
  (type $unary (func (param i32) (result i32)))
  (import "env" "note" (func $note (type $unary)))
  (memory (export "memory") 1)
  (table $table (export "table") 4 64 funcref)
  (elem (table $table) (i32.const 0) func $double $square $note)
  (func $double (type $unary) (i32.shl (local.get 0) (i32.const 1)))
  (func $square (type $unary) (i32.mul (local.get 0) (local.get 0)))
  (func (export "call") (param $i i32) (param $x i32) (result i32)
    (call_indirect $table (type $unary) (local.get $x) (local.get $i)))
  (func (export "grow") (param $n i32) (result i32)
    (table.grow $table (ref.func $square) (local.get $n)))
  (func (export "size") (result i32) (table.size $table))
  (func (export "set") (param $i i32) (param $j i32)
    (table.set $table (local.get $i) (table.get $table (local.get $j))))
  (func (export "clear") (param $i i32)
    (table.set $table (local.get $i) (ref.null func)))
  (func (export "pick") (param $i i32) (result funcref) (table.get $table (local.get $i)))
  (func (export "imported") (param $i i32)
    (table.set $table (local.get $i) (ref.func $note))))
