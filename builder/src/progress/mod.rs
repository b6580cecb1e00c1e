//! How a build is shown: renderers that fold the solver's event log.

mod plain;
mod rawjson;
mod tails;
mod tty;
mod view;

use std::io::Write;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use rbuild_solver::event::Event;

use crate::cli::raw::Progress;

pub use plain::bytes;

/// How often a terminal is drawn anew while nothing happens.
const TICK: Duration = Duration::from_millis(150);

/// A renderer of the event log.
pub trait Renderer {
    /// Shows one event.
    fn event(&mut self, event: &Event);
    /// Passes on what was shown so far: somebody waits for it.
    fn flush(&mut self) {}
    /// Time passed since the last event, and nothing happened.
    fn tick(&mut self, _since_last: Duration) {}
    /// Shows what is left when the log ends.
    fn finish(&mut self) {}
}

/// Shows every event that `log` yields, until it ends. Output that cannot be written is dropped:
/// a closed terminal does not stop a build.
pub fn show(mode: Progress, colors: bool, log: &Receiver<Event>, out: &mut dyn Write) {
    let mut renderer: Box<dyn Renderer + '_> = match mode {
        Progress::Quiet => Box::new(plain::Plain::quiet(out)),
        Progress::Rawjson => Box::new(rawjson::RawJson::new(out)),
        Progress::Auto | Progress::Plain => Box::new(plain::Plain::new(out, colors)),
        Progress::Tty => Box::new(tty::Tty::new(out, colors, Box::new(crate::env::terminal_size))),
    };
    let mut last = Instant::now();
    loop {
        let event = match mode {
            Progress::Tty => log.recv_timeout(TICK),
            Progress::Auto | Progress::Plain | Progress::Quiet | Progress::Rawjson => {
                log.recv().map_err(|_| RecvTimeoutError::Disconnected)
            }
        };
        match event {
            Ok(event) => {
                renderer.event(&event);
                // One write for all that is there by now.
                for event in log.try_iter() {
                    renderer.event(&event);
                }
                last = Instant::now();
                renderer.flush();
            }
            Err(RecvTimeoutError::Timeout) => renderer.tick(last.elapsed()),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    renderer.finish();
}
