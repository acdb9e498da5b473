//! Input of people who mean harm, or whose programs are broken: nothing of it may panic, run for ever or pass for what it is
//! not. Thousands of random cases a run; `fuzz/` has the same doors for a fuzzer.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails by panicking"
)]

mod hostile {
    /// So many cases, or as many as `PROPTEST_CASES` says if that is more. What fails is printed whole; nothing is written
    /// beside the tests.
    fn cases(cases: u32) -> proptest::test_runner::Config {
        let usual = proptest::test_runner::Config::default();
        proptest::test_runner::Config {
            cases: usual.cases.max(cases),
            failure_persistence: None,
            ..usual
        }
    }

    mod archives;
    mod bodies;
    mod depth;
    mod flows;
    mod json;
    mod names;
    mod programs;
    mod yaml;
}
