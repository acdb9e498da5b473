;; world: import greentic:state/state-store@1.0.0; import greentic:state/state-store@1.1.0; export greentic:component/node@0.6.0;
;; Does with the key `k` what the operation says: `read`, `write` (its payload), `delete`, `new` (writes its payload if
;; there is nothing), `both` (writes its payload, then reads), `foreign` (reads for another tenant). Answers with what it
;; reads, or whether it wrote.
(import "greentic:state/state-store@1.0.0" "read" (func $read (param i32 i32)))
(import "greentic:state/state-store@1.0.0" "write" (func $write (param i32 i32)))
(import "greentic:state/state-store@1.0.0" "delete" (func $delete (param i32 i32)))
(import "greentic:state/state-store@1.1.0" "write-if-absent" (func $write_if_absent (param i32 i32)))

(func (export "greentic:component/node@0.6.0#invoke") (param $in i32) (result i32)
  (local $letter i32)
  (local.set $letter (call $letter (local.get $in)))
  (i32.store (i32.const 2048) (i32.const 4096))
  (i32.store (i32.const 2052) (i32.const 1))
  (if (i32.eq (local.get $letter) (i32.const 0x66)) ;; f
    (then
      (i32.store8 (i32.const 2056) (i32.const 1))
      (i32.store (i32.const 2072) (i32.const 4097))
      (i32.store (i32.const 2076) (i32.const 5))))
  (if (i32.eq (local.get $letter) (i32.const 0x64)) ;; d
    (then (call $delete (i32.const 2048) (i32.const 0)) (return (call $done))))
  (if (i32.or
        (i32.eq (local.get $letter) (i32.const 0x77)) ;; w
        (i32.or (i32.eq (local.get $letter) (i32.const 0x62)) (i32.eq (local.get $letter) (i32.const 0x6e)))) ;; b, n
    (then
      (i32.store (i32.const 2056) (i32.load offset=124 (local.get $in)))
      (i32.store (i32.const 2060) (i32.load offset=128 (local.get $in)))
      (call $text)
      (if (i32.eq (local.get $letter) (i32.const 0x6e))
        (then
          (call $write_if_absent (i32.const 2048) (i32.const 0))
          (if (i32.load8_u (i32.const 0)) (then (return (call $fail (i32.load (i32.const 4)) (i32.load (i32.const 8))))))
          (if (i32.load8_u (i32.const 4)) (then (return (call $answer (i32.const 4112) (i32.const 4)))))
          (return (call $answer (i32.const 4116) (i32.const 5)))))
      (call $write (i32.const 2048) (i32.const 0))
      (if (i32.eq (local.get $letter) (i32.const 0x77)) (then (return (call $done))))
      (i64.store (i32.const 2056) (i64.const 0))))
  (call $read (i32.const 2048) (i32.const 0))
  (if (i32.load8_u (i32.const 0)) (then (return (call $fail (i32.load (i32.const 4)) (i32.load (i32.const 8))))))
  (call $answer (i32.load (i32.const 4)) (i32.load (i32.const 8))))

;; The CBOR text at 2056 without its head: what is written is the JSON in it.
(func $text
  (local $head i32)
  (local.set $head (i32.const 1))
  (if (i32.eq (i32.load8_u (i32.load (i32.const 2056))) (i32.const 0x78)) (then (local.set $head (i32.const 2))))
  (i32.store (i32.const 2056) (i32.add (i32.load (i32.const 2056)) (local.get $head)))
  (i32.store (i32.const 2060) (i32.sub (i32.load (i32.const 2060)) (local.get $head))))

(func $done (result i32)
  (if (result i32) (i32.load8_u (i32.const 0))
    (then (call $fail (i32.load (i32.const 4)) (i32.load (i32.const 8))))
    (else (call $answer (i32.const 4112) (i32.const 4)))))
(data (i32.const 4096) "kother")
(data (i32.const 4112) "truefalse")
