//! Memory goes back to the system after a peak. mimalloc gives free pages back some seconds after they were freed, but only
//! when it is called again: an idle worker would keep them.

use std::io::Write;
use std::thread;
use std::time::Duration;

/// How often free pages are given back whose time has come.
const EVERY: Duration = Duration::from_secs(2);

#[expect(
    unsafe_code,
    reason = "mimalloc has this function in no safe form. It takes no pointer, may be called by any thread at any time, and \
              frees nothing that is in use"
)]
mod sys {
    unsafe extern "C" {
        /// Collects what the calling thread has freed, and gives back pages of any thread that have been free for a while.
        pub safe fn mi_collect(force: bool);
    }
}

/// Starts the thread that does it; it ends with the process.
pub fn start() {
    let started = thread::Builder::new()
        .name("memory-purge".to_owned())
        .spawn(|| {
            loop {
                thread::sleep(EVERY);
                sys::mi_collect(false);
            }
        });
    if let Err(error) = started {
        // The log is not there yet.
        let _unsaid = writeln!(
            std::io::stderr(),
            "warning: memory is not given back after a peak: {error}"
        );
    }
}
