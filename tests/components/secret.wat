;; world: import greentic:secrets-store/secrets-store@1.0.0; import greentic:secrets-store/secrets-store@1.1.0; import greentic:runtime-config/runtime-config@1.0.0; import greentic:oauth-broker/broker-v1@1.0.0; export greentic:component/node@0.6.0;
;; Answers with the secret whose name is the operation. An operation that begins with `put` writes a secret, one that
;; begins with `config` reads the pack's setting `region`, one that begins with `oauth` asks for a token.
(import "greentic:secrets-store/secrets-store@1.0.0" "get" (func $get (param i32 i32 i32)))
(import "greentic:secrets-store/secrets-store@1.1.0" "put" (func $put (param i32 i32 i32 i32)))
(import "greentic:runtime-config/runtime-config@1.0.0" "get" (func $config (param i32 i32 i32)))
(import "greentic:oauth-broker/broker-v1@1.0.0" "get-token" (func $token (param i32 i32 i32 i32 i32 i32 i32)))

(func (export "greentic:component/node@0.6.0#invoke") (param $in i32) (result i32)
  (local $letter i32)
  (local.set $letter (call $letter (local.get $in)))
  (if (i32.eq (local.get $letter) (i32.const 0x70)) ;; p
    (then (call $put (i32.const 4096) (i32.const 6) (i32.const 4096) (i32.const 6)) (unreachable)))
  (if (i32.eq (local.get $letter) (i32.const 0x6f)) ;; o
    (then
      (call $token (i32.const 4096) (i32.const 6) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))
      (return (call $answer (i32.load (i32.const 0)) (i32.load (i32.const 4))))))
  (if (i32.eq (local.get $letter) (i32.const 0x63)) ;; c
    (then (call $config (i32.const 4096) (i32.const 6) (i32.const 0)))
    (else (call $get (i32.load (local.get $in)) (i32.load offset=4 (local.get $in)) (i32.const 0))))
  (if (i32.load8_u (i32.const 0)) ;; the number of the error, as a digit
    (then
      (i32.store8 (i32.const 4104) (i32.add (i32.const 0x30) (i32.load8_u (i32.const 4))))
      (return (call $fail (i32.const 4104) (i32.const 1)))))
  (call $answer (i32.load (i32.const 8)) (i32.load (i32.const 12))))
(data (i32.const 4096) "region")
