;; A shared memory and an atomic read-modify-write: must be refused, by the name of the feature.
(module
  (memory (export "memory") 1 2 shared)
  (func (export "_start")
    (drop (i32.atomic.rmw.add (i32.const 0) (i32.const 1)))))
