;; world: export greentic:component/node@0.6.0;
;; Answers with its payload; operation `metadata`: with its metadata, `idempotency`: with its idempotency key, `not-ok`:
;; with its payload and `ok: false`, `error`: with an error.
(func (export "greentic:component/node@0.6.0#invoke") (param $in i32) (result i32)
  (local $letter i32) (local $out i32)
  (local.set $letter (call $letter (local.get $in)))
  (if (i32.eq (local.get $letter) (i32.const 0x6d)) ;; m
    (then (return (call $answer (i32.load offset=136 (local.get $in)) (i32.load offset=140 (local.get $in))))))
  (if (i32.eq (local.get $letter) (i32.const 0x69)) ;; i
    (then (return (call $answer (i32.load offset=80 (local.get $in)) (i32.load offset=84 (local.get $in))))))
  (if (i32.eq (local.get $letter) (i32.const 0x65)) ;; e
    (then (return (call $fail (i32.const 4096) (i32.const 3)))))
  (local.set $out (call $answer (i32.load offset=124 (local.get $in)) (i32.load offset=128 (local.get $in))))
  (if (i32.eq (local.get $letter) (i32.const 0x6e)) ;; n
    (then (i32.store8 (i32.const 1032) (i32.const 0))))
  (local.get $out))
(data (i32.const 4096) "bad")
