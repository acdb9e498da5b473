use super::*;

const BOUNDS: Bounds = Bounds {
    functions: 3,
    function_bytes: 1_000_000,
};

fn component(fields: &str) -> Vec<u8> {
    wat::parse_str(format!("(component (core module {fields}))")).unwrap()
}

#[track_caller]
fn refused(fields: &str, expected: &str) {
    let said = check(&component(fields), BOUNDS).unwrap_err().to_string();
    assert_eq!(said, expected);
}

#[test]
fn what_there_is_too_much_of_is_named_with_its_bound() {
    let function = "(func)";
    check(&component(&function.repeat(3)), BOUNDS).unwrap();
    refused(
        &function.repeat(4),
        "it has 4 functions, more than the 3 that are compiled (`components.compile.functions`)",
    );
    refused(
        &format!("(func) (func {})", "(drop (i32.const 1))".repeat(400_000)),
        "function 1 of its code has 1200002 bytes, more than the 1000000 that are compiled \
         (`components.compile.function_bytes`)",
    );
    refused(
        &format!("(func (local {}))", "i32 ".repeat(20_001)),
        "function 0 of its code has 20001 locals, more than the 20000 that are compiled",
    );
    refused(
        "(table 1000001 funcref)",
        "it has 1000001 elements of tables, more than the 1000000 that are compiled",
    );
    refused(
        &"(global i32 (i32.const 0))".repeat(100_001),
        "it has 100001 globals, more than the 100000 that are compiled",
    );
    refused(
        &"(data \"\")".repeat(200_001),
        "it has 200001 segments of data and elements, more than the 200000 that are compiled",
    );
}

#[test]
fn nesting_and_branches_are_counted_in_each_function() {
    let nested = |depth: usize| {
        let (open, close) = ("block ".repeat(depth), "end ".repeat(depth));
        format!("(func {open} {close} block end)")
    };
    check(&component(&nested(10_000)), BOUNDS).unwrap();
    refused(
        &nested(10_001),
        "function 0 of its code has 10001 levels of nested blocks, more than the 10000 that are compiled",
    );
    let table = format!("(br_table {} (i32.const 0))", "0 ".repeat(50_001));
    check(
        &component(&format!("(func {table}) (func {table})")),
        BOUNDS,
    )
    .unwrap();
    refused(
        &format!("(func {table} {table})"),
        "function 0 of its code has 100002 branch targets, more than the 100000 that are compiled",
    );
}

#[test]
fn what_is_nested_counts_as_a_part_of_the_whole() {
    let module = "(core module (func) (func))";
    let whole = wat::parse_str(format!("(component {module} (component {module}))")).unwrap();
    let said = check(&whole, BOUNDS).unwrap_err().to_string();
    assert!(said.contains("it has 4 functions"), "{said}");
    let deep = |levels: usize| {
        let (open, close) = ("(component ".repeat(levels), ")".repeat(levels));
        wat::parse_str(format!("(component {open}{close})")).unwrap()
    };
    check(&deep(16), BOUNDS).unwrap();
    let said = check(&deep(17), BOUNDS).unwrap_err().to_string();
    assert!(said.contains("17 levels of nested components"), "{said}");
    let modules = format!("(component {})", "(core module)".repeat(1_001));
    let said = check(&wat::parse_str(modules).unwrap(), BOUNDS).unwrap_err();
    assert!(said.to_string().contains("1001 nested modules"), "{said}");
}

#[test]
fn bytes_that_are_no_component_are_told() {
    for bytes in [
        &b""[..],
        b"\0asm",
        b"\0asm\x0d\0\x01\0\x01\xff\xff\xff\xff\x0f",
    ] {
        let said = check(bytes, BOUNDS).unwrap_err();
        assert!(matches!(said, SizeError::Malformed(_)), "{said}");
    }
    let whole = component("(func) (table 1 funcref) (elem (i32.const 0) 0)");
    for end in 1..whole.len() {
        // Whatever it says: it ends.
        let _cut = check(&whole[..end], BOUNDS);
    }
}
