//! Progress on a terminal: the lines of [`Plain`], which stay, and below them what runs now, drawn over and over.
//!
//! ```text
//! #7 DONE 1.2s
//!
//! [+] 4.2s: 5 of 9 steps done
//!  => [build 2/4] RUN make  3.1s
//!  => [deps 1/2] FROM docker.io/library/debian  12.3MB / 65.4MB  1.1s
//! ```

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write;
use std::time::Duration;

use rbuild_solver::event::{Event, EventKind};
use rbuild_store::digest::Digest;

use super::Renderer;
use super::plain::{Plain, bytes};

/// Most running steps that are named.
const MAX_SHOWN: usize = 12;

/// Columns and rows of the terminal.
pub type Size = (u16, u16);

/// The renderer.
pub struct Tty<'a> {
    out: &'a mut dyn Write,
    size: Box<dyn Fn() -> Size>,
    plain: Plain<Vec<u8>>,
    board: Board,
    /// Rows of the part that is drawn over.
    drawn: usize,
    /// Whether the build takes long enough to be watched.
    watched: bool,
}

impl<'a> Tty<'a> {
    /// Draws on `out`; `size` is asked for each picture.
    pub fn new(out: &'a mut dyn Write, colors: bool, size: Box<dyn Fn() -> Size>) -> Self {
        let plain = Plain::new(Vec::new(), colors);
        Self { out, size, plain, board: Board::default(), drawn: 0, watched: false }
    }

    fn draw(&mut self, picture: &str) {
        let mut text = Vec::new();
        if self.drawn > 0 {
            // Up to the first row, and everything below is gone.
            text.extend(format!("\x1b[{}A\r\x1b[J", self.drawn).into_bytes());
        }
        text.append(self.plain.out_mut());
        if !picture.is_empty() {
            // A row that is too long must not become two.
            text.extend(format!("\x1b[?7l{picture}\x1b[?7h").into_bytes());
        }
        self.drawn = picture.lines().count();
        // A closed terminal does not stop a build.
        drop(self.out.write_all(&text).and_then(|()| self.out.flush()));
    }
}

impl Renderer for Tty<'_> {
    fn event(&mut self, event: &Event) {
        self.plain.event(event);
        self.board.see(event);
    }

    fn flush(&mut self) {
        let picture = if self.watched { self.board.picture((self.size)()) } else { String::new() };
        self.draw(&picture);
    }

    fn tick(&mut self, since_last: Duration) {
        self.watched = true;
        self.board.now = self.board.last + since_last;
        self.flush();
    }

    fn finish(&mut self) {
        self.plain.finish();
        self.draw("");
    }
}

/// What runs now: a fold over the event log.
#[derive(Debug, Default)]
struct Board {
    steps: HashMap<Digest, Step>,
    /// In the order in which they began.
    running: Vec<Digest>,
    ended: usize,
    last: Duration,
    now: Duration,
}

#[derive(Debug, Default)]
struct Step {
    name: String,
    started: Duration,
    /// Bytes of each part that is on its way, and of how many.
    parts: HashMap<String, (u64, u64)>,
}

impl Board {
    fn see(&mut self, event: &Event) {
        self.last = event.at;
        self.now = event.at;
        let id = event.vertex;
        match &event.kind {
            EventKind::Declared { name, .. } => {
                self.steps.entry(id).or_default().name = name.replace('\n', " ");
            }
            EventKind::Started => {
                self.steps.entry(id).or_default().started = event.at;
                if !self.running.contains(&id) {
                    self.running.push(id);
                }
            }
            EventKind::Completed { .. } => {
                self.running.retain(|it| *it != id);
                self.ended += 1;
            }
            EventKind::Status { id: part, current, total, done } => {
                let parts = &mut self.steps.entry(id).or_default().parts;
                if *done {
                    parts.remove(part);
                } else {
                    parts.insert(part.clone(), (*current, *total));
                }
            }
            EventKind::Cached
            | EventKind::Missed { .. }
            | EventKind::Took { .. }
            | EventKind::Log { .. }
            | EventKind::Warning { .. } => {}
        }
    }

    /// What is drawn: nothing if nothing runs.
    fn picture(&self, (columns, rows): Size) -> String {
        if self.running.is_empty() {
            return String::new();
        }
        let seconds = self.now.as_secs_f64();
        let (done, all) = (self.ended, self.steps.len());
        let mut text = format!("[+] {seconds:.1}s: {done} of {all} steps done\n");
        let room = MAX_SHOWN.min(usize::from(rows).saturating_sub(3)).max(1);
        for id in self.running.iter().take(room) {
            let line = self.steps[id].line(self.now, usize::from(columns));
            writeln!(text, "{line}").expect("writing to a string");
        }
        if let Some(more) = self.running.len().checked_sub(room).filter(|more| *more > 0) {
            writeln!(text, " => and {more} more").expect("writing to a string");
        }
        text
    }
}

impl Step {
    /// One row: the name is cut, so that what follows it is seen.
    fn line(&self, now: Duration, columns: usize) -> String {
        let (current, total) =
            self.parts.values().fold((0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1));
        let size = match (current, total) {
            (0, 0) => String::new(),
            (current, 0) => format!("  {}", bytes(current)),
            (current, total) => format!("  {} / {}", bytes(current), bytes(total)),
        };
        let seconds = now.saturating_sub(self.started).as_secs_f64();
        let tail = format!("{size}  {seconds:.1}s");
        let room = columns.saturating_sub(" => ".len() + tail.len()).max(8);
        let clean: String = self.name.chars().filter(|it| !it.is_control()).collect();
        let name = if clean.chars().count() > room {
            clean.chars().take(room - 1).chain(['…']).collect()
        } else {
            clean
        };
        format!(" => {name}{tail}")
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn event(at: f64, vertex: &str, kind: EventKind) -> Event {
        let at = Duration::from_secs_f64(at);
        Event { at, vertex: Digest::of(vertex.as_bytes()), kind }
    }

    fn declared(name: &str) -> EventKind {
        EventKind::Declared { name: name.to_owned(), inputs: vec![] }
    }

    fn status(current: u64, done: bool) -> EventKind {
        EventKind::Status { id: "sha256:1".to_owned(), current, total: 65_400_000, done }
    }

    #[test]
    fn what_runs_is_drawn_over_and_lines_stay() {
        let mut out = Vec::new();
        let mut tty = Tty::new(&mut out, false, Box::new(|| (40, 24)));
        tty.event(&event(0.0, "a", declared("[1/2] FROM debian")));
        tty.event(&event(0.0, "b", declared("[2/2] RUN a command that is longer than the row")));
        tty.event(&event(0.0, "a", EventKind::Started));
        tty.event(&event(0.1, "a", status(12_300_000, false)));
        tty.flush();
        tty.tick(Duration::from_secs(1));
        tty.event(&event(2.0, "a", EventKind::Completed { error: None }));
        tty.event(&event(2.0, "b", EventKind::Started));
        tty.flush();
        tty.event(&event(3.0, "b", EventKind::Completed { error: None }));
        tty.finish();
        drop(tty);
        let text = String::from_utf8(out).unwrap().replace('\x1b', "^").replace('\r', "<");
        expect![[r#"
            #1 [1/2] FROM debian
            #1 sha256:1 12.3MB / 65.4MB
            ^[?7l[+] 1.1s: 0 of 2 steps done
             => [1/2] FROM d…  12.3MB / 65.4MB  1.1s
            ^[?7h^[2A<^[J#1 DONE 2.0s

            #2 [2/2] RUN a command that is longer than the row
            ^[?7l[+] 2.0s: 1 of 2 steps done
             => [2/2] RUN a command that is l…  0.0s
            ^[?7h^[2A<^[J#2 DONE 1.0s
        "#]]
        .assert_eq(&text);
    }

    #[test]
    fn a_quick_build_is_only_lines() {
        let mut out = Vec::new();
        let mut tty = Tty::new(&mut out, false, Box::new(|| (80, 24)));
        tty.event(&event(0.0, "a", declared("[1/1] RUN true")));
        tty.event(&event(0.0, "a", EventKind::Started));
        tty.flush();
        tty.event(&event(0.0, "a", EventKind::Completed { error: None }));
        tty.finish();
        drop(tty);
        assert_eq!(String::from_utf8(out).unwrap(), "#1 [1/1] RUN true\n#1 DONE 0.0s\n");
    }

    #[test]
    fn a_small_terminal_is_not_overrun() {
        let mut board = Board::default();
        for step in 0..9 {
            let name = format!("[{step}] RUN");
            board.see(&event(0.0, &name, declared(&name)));
            board.see(&event(0.0, &name, EventKind::Started));
        }
        assert_eq!(board.picture((80, 6)).lines().count(), 5);
        assert!(board.picture((80, 6)).ends_with(" => and 6 more\n"));
        assert_eq!(board.picture((0, 0)).lines().count(), 3);
    }
}
