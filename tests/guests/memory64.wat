;; A 64-bit memory: pointers and lengths are i64. fill(address, length) asks the host to fill that range and sums it.
(module
  (import "env" "fill" (func $fill (param i64 i64) (result i64)))
  (memory (export "memory") i64 2)
  (func (export "run") (param $address i64) (param $length i64) (result i64)
    (local $end i64) (local $sum i64)
    (local.set $end
      (i64.add (local.get $address) (call $fill (local.get $address) (local.get $length))))
    (block $done
      (loop $next
        (br_if $done (i64.ge_u (local.get $address) (local.get $end)))
        (local.set $sum (i64.add (local.get $sum) (i64.load8_u (local.get $address))))
        (local.set $address (i64.add (local.get $address) (i64.const 1)))
        (br $next)))
    (local.get $sum))
  (func (export "grow") (param $pages i64) (result i64) (memory.grow (local.get $pages))))
