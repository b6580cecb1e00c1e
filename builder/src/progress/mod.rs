//! How a build is shown: renderers that fold the solver's event log.

mod plain;
mod rawjson;
mod tails;
mod view;

use std::io::Write;
use std::sync::mpsc::Receiver;

use rbuild_solver::event::Event;

use crate::cli::raw::Progress;

pub use plain::bytes;

/// A renderer of the event log.
pub trait Renderer {
    /// Shows one event.
    fn event(&mut self, event: &Event);
    /// Passes on what was shown so far: somebody waits for it.
    fn flush(&mut self) {}
    /// Shows what is left when the log ends.
    fn finish(&mut self) {}
}

/// Shows every event that `log` yields, until it ends. Output that cannot be written is dropped:
/// a closed terminal does not stop a build.
pub fn show(mode: Progress, is_terminal: bool, log: &Receiver<Event>, out: &mut dyn Write) {
    let mut renderer: Box<dyn Renderer + '_> = match mode {
        Progress::Quiet => Box::new(plain::Plain::quiet(out)),
        Progress::Rawjson => Box::new(rawjson::RawJson::new(out)),
        Progress::Auto | Progress::Plain | Progress::Tty => {
            Box::new(plain::Plain::new(out, is_terminal))
        }
    };
    while let Ok(event) = log.recv() {
        renderer.event(&event);
        // One write for all that is there by now.
        for event in log.try_iter() {
            renderer.event(&event);
        }
        renderer.flush();
    }
    renderer.finish();
}
