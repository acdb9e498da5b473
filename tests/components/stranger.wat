;; world: import tests:stranger/first; import tests:stranger/second; export greentic:component/node@0.6.0;
;; Imports what no worker has.
(import "tests:stranger/first" "go" (func $first))
(import "tests:stranger/second" "go" (func $second))
(func (export "greentic:component/node@0.6.0#invoke") (param $in i32) (result i32)
  (call $first)
  (call $second)
  (unreachable))
