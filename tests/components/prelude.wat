;; What every test component has: memory, an allocator that never frees, and the answers of the node interfaces.
;; Below 1024 is what an import gives back, from 1024 on what the component gives back, from 2048 on arguments (zeros
;; mean "none"), from 4096 on texts, from 8192 on what is allocated.
(memory (export "memory") 1)
(global $free (mut i32) (i32.const 8192))

(func (export "cabi_realloc") (param $old i32) (param $old_len i32) (param $align i32) (param $len i32) (result i32)
  (local $at i32)
  (local.set $at
    (i32.and
      (i32.add (global.get $free) (i32.sub (local.get $align) (i32.const 1)))
      (i32.sub (i32.const 0) (local.get $align))))
  (global.set $free (i32.add (local.get $at) (local.get $len)))
  (if (i32.gt_u (global.get $free) (i32.mul (memory.size) (i32.const 65536)))
    (then
      (if (i32.eq
            (memory.grow (i32.add (i32.div_u (local.get $len) (i32.const 65536)) (i32.const 1)))
            (i32.const -1))
        (then (unreachable)))))
  (local.get $at))

;; An answer of node@0.6.0: these bytes.
(func $answer (param $at i32) (param $len i32) (result i32)
  (memory.fill (i32.const 1024) (i32.const 0) (i32.const 128))
  (i32.store8 (i32.const 1032) (i32.const 1))
  (i32.store (i32.const 1036) (local.get $at))
  (i32.store (i32.const 1040) (local.get $len))
  (i32.const 1024))

;; An error of node@0.6.0 with this code and message.
(func $fail (param $at i32) (param $len i32) (result i32)
  (memory.fill (i32.const 1024) (i32.const 0) (i32.const 128))
  (i32.store8 (i32.const 1024) (i32.const 1))
  (i32.store (i32.const 1032) (local.get $at))
  (i32.store (i32.const 1036) (local.get $len))
  (i32.store (i32.const 1040) (local.get $at))
  (i32.store (i32.const 1044) (local.get $len))
  (i32.const 1024))

;; A list of bytes, or a record that begins with one.
(func $list (param $at i32) (param $len i32) (result i32)
  (memory.fill (i32.const 1024) (i32.const 0) (i32.const 128))
  (i32.store (i32.const 1024) (local.get $at))
  (i32.store (i32.const 1028) (local.get $len))
  (i32.const 1024))

;; The first letter of the operation.
(func $letter (param $arguments i32) (result i32)
  (i32.load8_u (i32.load (local.get $arguments))))
