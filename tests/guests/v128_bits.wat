;; A v128 through an import: run() passes 16 bytes that are NaNs in every float reading through env.id_v128 and stores
;; what came back at 16. Python cannot host this import; v128_host.wat can, linked as "env".
(module
  (import "env" "id_v128" (func $id_v128 (param v128) (result v128)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\01\00\80\7f\ef\be\ad\ff\01\00\00\00\00\00\f0\7f")
  (func (export "run") (result i32)
    (v128.store (i32.const 16) (call $id_v128 (v128.load (i32.const 0))))
    (i32.eqz
      (v128.any_true (v128.xor (v128.load (i32.const 0)) (v128.load (i32.const 16)))))))
