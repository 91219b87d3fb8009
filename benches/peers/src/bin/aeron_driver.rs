//! Aeron's media driver, as the server of the peer `aeron`: `aeron_driver DIRECTORY`, until its input ends. One thread, which backs off when it has
//! nothing to do: on few cores anything that spins takes one away from what is measured.

use std::ffi::CString;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};

use rusteron_media_driver::bindings::aeron_threading_mode_enum::AERON_THREADING_MODE_SHARED;
use rusteron_media_driver::{AeronDriver, AeronDriverContext};

static STOP: AtomicBool = AtomicBool::new(false);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args().nth(1).expect("a directory");
    let context = AeronDriverContext::new()?;
    context.set_dir(&CString::new(dir)?)?;
    context.set_dir_delete_on_start(true)?;
    context.set_dir_delete_on_shutdown(true)?;
    context.set_threading_mode(AERON_THREADING_MODE_SHARED)?;
    context.set_shared_idle_strategy(&CString::new("backoff")?)?;
    let driver = AeronDriver::new(&context)?;
    driver.start(true)?;
    println!("ready");
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        STOP.store(true, Ordering::Relaxed);
    });
    while !STOP.load(Ordering::Relaxed) {
        driver.main_idle_strategy(driver.main_do_work()?);
    }
    Ok(())
}
