;; world: export greentic:provider/schema-core-api@1.0.0;
;; Answers with its input.
(func (export "greentic:provider/schema-core-api@1.0.0#invoke") (param i32 i32) (param $at i32) (param $len i32) (result i32)
  (call $list (local.get $at) (local.get $len)))
