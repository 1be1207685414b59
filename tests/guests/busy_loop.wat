;; Never ends and never calls an import: for deadlines, instruction limits and signals in pure guest code.
;; Memory changes all the time (a counter at 8, a walking xor over the second page), so a stop has a visible position.
(module
  (memory (export "memory") 2)
  (func (export "_start") (local $n i64) (local $address i32)
    (loop $forever
      (local.set $n (i64.add (local.get $n) (i64.const 1)))
      (i64.store (i32.const 8) (local.get $n))
      (local.set $address
        (i32.add (i32.const 65536) (i32.and (i32.wrap_i64 (local.get $n)) (i32.const 0xfff8))))
      (i64.store (local.get $address) (i64.xor (i64.load (local.get $address)) (local.get $n)))
      (br $forever))))
