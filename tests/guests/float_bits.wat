;; Float bit patterns through imports: NaN payloads, signalling NaNs, both zeros, infinities, subnormals.
;;
;; run() passes every pattern of the tables at 0 (f32) and 256 (f64) through env.id_f32 / env.id_f64 by reinterpretation
;; and stores what came back, bit for bit, at 1024 and 1280. It returns how many came back changed; a recorder must
;; keep the bits that came back, whether or not the host changed them.
(module
  (import "env" "id_f32" (func $id_f32 (param f32) (result f32)))
  (import "env" "id_f64" (func $id_f64 (param f64) (result f64)))
  (memory (export "memory") 1)
  (data (i32.const 0)
    "\00\00\00\00" "\00\00\00\80" "\00\00\80\7f" "\00\00\80\ff"   ;; +0 -0 +inf -inf
    "\00\00\c0\7f" "\00\00\c0\ff" "\01\00\80\7f" "\ef\be\ad\ff"   ;; qNaN -qNaN sNaN(1) sNaN(payload)
    "\ff\ff\ff\7f" "\01\00\00\00" "\db\0f\49\40" "\ff\ff\7f\7f")  ;; qNaN(all) subnormal pi max
  (data (i32.const 256)
    "\00\00\00\00\00\00\00\00" "\00\00\00\00\00\00\00\80"  ;; +0 -0
    "\00\00\00\00\00\00\f0\7f" "\00\00\00\00\00\00\f0\ff"  ;; +inf -inf
    "\00\00\00\00\00\00\f8\7f" "\00\00\00\00\00\00\f8\ff"  ;; qNaN -qNaN
    "\01\00\00\00\00\00\f0\7f" "\ef\be\ad\de\00\00\f4\ff"  ;; sNaN(1) sNaN(payload)
    "\ff\ff\ff\ff\ff\ff\ff\7f" "\01\00\00\00\00\00\00\00"  ;; qNaN(all) subnormal
    "\18\2d\44\54\fb\21\09\40" "\ff\ff\ff\ff\ff\ff\ef\7f") ;; pi max
  (func (export "run") (result i32)
    (local $i i32) (local $bits32 i32) (local $bits64 i64) (local $changed i32)
    (loop $next
      (local.set $bits32
        (i32.reinterpret_f32
          (call $id_f32 (f32.reinterpret_i32 (i32.load (i32.shl (local.get $i) (i32.const 2)))))))
      (i32.store offset=1024 (i32.shl (local.get $i) (i32.const 2)) (local.get $bits32))
      (local.set $changed
        (i32.add (local.get $changed)
          (i32.ne (local.get $bits32) (i32.load (i32.shl (local.get $i) (i32.const 2))))))
      (local.set $bits64
        (i64.reinterpret_f64
          (call $id_f64 (f64.reinterpret_i64 (i64.load offset=256 (i32.shl (local.get $i) (i32.const 3)))))))
      (i64.store offset=1280 (i32.shl (local.get $i) (i32.const 3)) (local.get $bits64))
      (local.set $changed
        (i32.add (local.get $changed)
          (i64.ne (local.get $bits64) (i64.load offset=256 (i32.shl (local.get $i) (i32.const 3))))))
      (br_if $next (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 12))))
    (local.get $changed))
  (func (export "pass_f32") (param f32) (result f32) (call $id_f32 (local.get 0)))
  (func (export "pass_f64") (param f64) (result f64) (call $id_f64 (local.get 0))))
