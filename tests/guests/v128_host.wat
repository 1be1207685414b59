;; The host side of v128_bits.wat: id_v128 returns its argument and counts its calls in the global "calls".
(module
  (global $calls (export "calls") (mut i32) (i32.const 0))
  (func (export "id_v128") (param v128) (result v128)
    (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
    (local.get 0)))
