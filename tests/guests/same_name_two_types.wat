;; Imports env.f three times: as i32 -> i32, as i64 -> i64, and as i32 -> i32 again. Imports have positions, not names.
;; Must be linked by position. run(x) = f1(x) + f2(x) * 1000 + f3(x) * 1000000.
(module
  (import "env" "f" (func $f1 (param i32) (result i32)))
  (import "env" "f" (func $f2 (param i64) (result i64)))
  (import "env" "f" (func $f3 (param i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "run") (param $x i32) (result i64)
    (i64.add
      (i64.add
        (i64.extend_i32_s (call $f1 (local.get $x)))
        (i64.mul (call $f2 (i64.extend_i32_s (local.get $x))) (i64.const 1000)))
      (i64.mul (i64.extend_i32_s (call $f3 (local.get $x))) (i64.const 1000000)))))
