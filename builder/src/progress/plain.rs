//! Progress as lines, in the form that BuildKit's users know.
//!
//! `#5 [build 2/4] RUN make`, `#5 0.312 output`, `#5 CACHED`, `#5 DONE 1.2s`. Output of a step is
//! never clipped. When another vertex has something to say, the one before is left with `#5 ...`
//! and an empty line, and named again when it continues.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::time::Duration;

use rbuild_solver::event::{Event, EventKind, Stream};
use rbuild_store::digest::Digest;

use super::Renderer;
use super::tails::Tails;
use super::view::View;

/// A part's progress is shown again when it has advanced by this many bytes.
const STATUS_STEP: u64 = 16 * 1024 * 1024;

/// Longest line that is kept back until its end comes; a longer one is shown in pieces.
const MAX_LINE: usize = 64 * 1024;

/// The renderer.
pub struct Plain<W> {
    out: W,
    colors: bool,
    /// Only the end is shown.
    quiet: bool,
    tails: Tails,
    view: View,
    current: Option<Digest>,
    /// The two streams of a step do not end each other's lines.
    partial: BTreeMap<(Digest, Stream), Vec<u8>>,
    statuses: HashMap<(Digest, String), u64>,
}

impl<W: Write> Plain<W> {
    /// Lines go to `out`.
    pub fn new(out: W, colors: bool) -> Self {
        Self {
            out,
            colors,
            quiet: false,
            tails: Tails::default(),
            view: View::default(),
            current: None,
            partial: BTreeMap::new(),
            statuses: HashMap::new(),
        }
    }

    /// Only the last lines of failed steps go to `out`.
    pub fn quiet(out: W) -> Self {
        Self { quiet: true, ..Self::new(out, false) }
    }

    /// Where the lines go.
    pub fn out_mut(&mut self) -> &mut W {
        &mut self.out
    }

    /// Makes `vertex` the one that lines belong to, and returns its number.
    fn focus(&mut self, vertex: Digest) -> usize {
        if self.current != Some(vertex) {
            if let Some(before) = self.current {
                let before = self.view.number(before);
                let (number, ended) = (before.number, before.ended);
                if !ended {
                    self.write(&format!("#{number} ...\n"));
                }
                self.write("\n");
            }
            self.current = Some(vertex);
            let view = self.view.number(vertex);
            view.shown = true;
            let line = format!("#{} {}\n", view.number, view.name.replace('\n', " "));
            self.write(&line);
        }
        self.view.number(vertex).number
    }

    fn write(&mut self, text: &str) {
        if self.quiet {
            return;
        }
        // A closed terminal does not stop a build.
        drop(self.out.write_all(text.as_bytes()));
    }

    fn log(&mut self, at: Duration, (vertex, stream): (Digest, Stream), data: &[u8]) {
        let mut buffer = self.partial.remove(&(vertex, stream)).unwrap_or_default();
        buffer.extend_from_slice(data);
        while let Some(end) =
            line_end(&buffer).or((buffer.len() > MAX_LINE).then_some(MAX_LINE - 1))
        {
            let rest = buffer.split_off(end + 1);
            self.log_line(at, vertex, &buffer);
            buffer = rest;
        }
        if !buffer.is_empty() {
            self.partial.insert((vertex, stream), buffer);
        }
    }

    fn log_line(&mut self, at: Duration, vertex: Digest, line: &[u8]) {
        // A carriage return redraws a line: each state of it is one.
        if line == b"\r" {
            return;
        }
        let number = self.focus(vertex);
        let started = self.view.number(vertex).started.unwrap_or(at);
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let text = format!("{} {}", offset(at.saturating_sub(started)), sanitize(line));
        self.write(&format!("#{number} {text}\n"));
        self.tails.line(vertex, text);
    }

    fn flush_partial(&mut self, at: Duration, vertex: Digest) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            if let Some(line) = self.partial.remove(&(vertex, stream)) {
                self.log_line(at, vertex, &line);
            }
        }
    }

    fn status(&mut self, vertex: Digest, id: &str, current: u64, total: u64, done: bool) {
        let key = (vertex, id.to_owned());
        let shown = self.statuses.get(&key).copied();
        if !done && shown.is_some_and(|shown| current < shown + STATUS_STEP) {
            return;
        }
        if done && shown == Some(u64::MAX) {
            return;
        }
        self.statuses.insert(key, if done { u64::MAX } else { current });
        let number = self.focus(vertex);
        let mut line = format!("#{number} {id}");
        if total > 0 {
            line = format!("{line} {} / {}", bytes(current), bytes(total));
        } else if current > 0 {
            line = format!("{line} {}", bytes(current));
        }
        if done {
            line += " done";
        }
        self.write(&(line + "\n"));
    }

    fn completed(&mut self, at: Duration, vertex: Digest, error: Option<&str>) {
        self.flush_partial(at, vertex);
        let number = self.focus(vertex);
        let view = self.view.number(vertex);
        view.ended = true;
        let seconds = at.saturating_sub(view.started.unwrap_or(at)).as_secs_f64();
        match error {
            None => self.tails.succeeded(vertex),
            Some("canceled") => {}
            Some(_) => self.tails.failed(vertex, &view.name),
        }
        let line = match (error, view.cached) {
            (Some("canceled"), _) => format!("#{number} CANCELED\n"),
            (Some(error), _) if self.colors => format!("#{number} \x1b[31mERROR\x1b[0m: {error}\n"),
            (Some(error), _) => format!("#{number} ERROR: {error}\n"),
            (None, true) => format!("#{number} CACHED\n"),
            (None, false) => format!("#{number} DONE {seconds:.1}s\n"),
        };
        self.write(&line);
    }
}

impl<W: Write> Renderer for Plain<W> {
    fn flush(&mut self) {
        // A closed terminal does not stop a build.
        drop(self.out.flush());
    }

    fn event(&mut self, event: &Event) {
        let vertex = event.vertex;
        match &event.kind {
            EventKind::Declared { name, inputs: _ } => self.view.declare(vertex, name),
            EventKind::Started => {
                self.view.number(vertex).started.get_or_insert(event.at);
                self.focus(vertex);
            }
            EventKind::Cached => self.view.number(vertex).cached = true,
            EventKind::Missed { changed, out_of_reach } => {
                let number = self.focus(vertex);
                let text = if *out_of_reach {
                    "in the cache, but its files are torn, or of ids that this rung has not"
                        .to_owned()
                } else if changed.is_empty() {
                    "not in the cache".to_owned()
                } else {
                    format!("changed: {}", changed.join(", "))
                };
                self.write(&format!("#{number} {text}\n"));
            }
            EventKind::Completed { error } => self.completed(event.at, vertex, error.as_deref()),
            EventKind::Took { cpu, peak_memory } => {
                self.flush_partial(event.at, vertex);
                let number = self.focus(vertex);
                let (cpu, memory) = (cpu.as_secs_f64(), bytes(*peak_memory));
                self.write(&format!("#{number} took {cpu:.2}s of cpu, {memory} of memory\n"));
            }
            EventKind::Status { id, current, total, done } => {
                self.status(vertex, id, *current, *total, *done);
            }
            EventKind::Log { stream, data } => self.log(event.at, (vertex, *stream), data),
            EventKind::Warning { text, .. } => {
                let number = self.focus(vertex);
                let text = sanitize(text.as_bytes());
                self.write(&format!("#{number} WARN: {text}\n"));
            }
        }
    }

    fn finish(&mut self) {
        let left: Vec<Digest> = self.partial.keys().map(|(it, _)| *it).collect();
        for vertex in left {
            self.flush_partial(Duration::ZERO, vertex);
        }
        self.quiet = false;
        self.write(&self.tails.render());
        drop(self.out.flush());
    }
}

/// Where the first line ends: at a line feed, or at a carriage return without one.
fn line_end(buffer: &[u8]) -> Option<usize> {
    let end = buffer.iter().position(|&byte| matches!(byte, b'\n' | b'\r'))?;
    match (buffer[end], buffer.get(end + 1)) {
        (b'\r', Some(b'\n')) => Some(end + 1),
        // The next bytes tell.
        (b'\r', None) => None,
        _ => Some(end),
    }
}

/// Seconds with as many digits as BuildKit shows: `0.312`, `12.34`, `123.4`.
fn offset(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 10.0 {
        format!("{seconds:.3}")
    } else if seconds < 100.0 {
        format!("{seconds:.2}")
    } else {
        format!("{seconds:.1}")
    }
}

/// Output of a step with the control characters that could move the cursor made visible; colours
/// pass.
fn sanitize(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '\x1b' => skip_or_keep_escape(&mut rest, &mut out),
            '\t' => out.push('\t'),
            '\x08' => {
                out.pop();
            }
            it if it.is_control() => {}
            it => out.push(it),
        }
    }
    out
}

/// Keeps `ESC [ … m` (colours), drops every other control sequence.
fn skip_or_keep_escape(rest: &mut std::iter::Peekable<std::str::Chars<'_>>, out: &mut String) {
    if rest.peek() != Some(&'[') {
        return;
    }
    rest.next();
    let mut parameters = String::new();
    for character in rest.by_ref() {
        if ('\x40'..='\x7e').contains(&character) {
            if character == 'm' {
                out.push_str("\x1b[");
                out.push_str(&parameters);
                out.push('m');
            }
            return;
        }
        parameters.push(character);
    }
}

/// `1.23MB`, in powers of 1000, three significant digits.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = match value {
        _ if unit == 0 => 0,
        value if value < 9.995 => 2,
        value if value < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    /// Lines like `0.5 a start`, `1.0 b log text`; vertices are named by letters.
    #[track_caller]
    fn check(script: &str, want: &Expect) {
        let mut out = Vec::new();
        let mut plain = Plain::new(&mut out, false);
        for line in script.lines() {
            let mut words = line.trim().splitn(4, ' ');
            let at = Duration::from_secs_f64(words.next().unwrap().parse().unwrap());
            let vertex = Digest::of(words.next().unwrap().as_bytes());
            let (verb, rest) = (words.next().unwrap(), words.next().unwrap_or_default());
            let kind = match verb {
                "declare" => EventKind::Declared { name: rest.to_owned(), inputs: vec![] },
                "start" => EventKind::Started,
                "log" | "err" => EventKind::Log {
                    stream: if verb == "log" { Stream::Stdout } else { Stream::Stderr },
                    data: rest.replace("\\n", "\n").replace("\\r", "\r").into_bytes(),
                },
                "cached" => EventKind::Cached,
                "done" => EventKind::Completed { error: None },
                "error" => EventKind::Completed { error: Some(rest.to_owned()) },
                "status" => EventKind::Status {
                    id: rest.to_owned(),
                    current: 5_000_000,
                    total: 5_000_000,
                    done: true,
                },
                other => panic!("{other}"),
            };
            plain.event(&Event { at, vertex, kind });
        }
        plain.finish();
        drop(plain);
        want.assert_eq(&String::from_utf8(out).unwrap());
    }

    #[test]
    fn two_steps_side_by_side() {
        check(
            "0 a declare [1/2] RUN one
             0 b declare [2/2] RUN two
             0 a start
             0.1 b start
             0.3 a log hal
             0.4 a log f\\nline\\n
             1.5 b error process failed
             12 a log tail
             12.5 a done",
            &expect![[r"
                #1 [1/2] RUN one
                #1 ...

                #2 [2/2] RUN two
                #2 ...

                #1 [1/2] RUN one
                #1 0.400 half
                #1 0.400 line
                #1 ...

                #2 [2/2] RUN two
                #2 ERROR: process failed

                #1 [1/2] RUN one
                #1 12.50 tail
                #1 DONE 12.5s
            "]],
        );
    }

    #[test]
    fn cached_and_statuses() {
        check(
            "0 a declare [internal] load metadata
             0 a status sha256:1
             0 a done
             0 b declare [1/1] RUN x
             0 b cached
             0 b done",
            &expect![[r"
                #1 [internal] load metadata
                #1 sha256:1 5.00MB / 5.00MB done
                #1 DONE 0.0s

                #2 [1/1] RUN x
                #2 CACHED
            "]],
        );
    }

    #[test]
    fn a_failed_step_says_its_last_words_again() {
        check(
            "0 a declare [1/1] RUN make
             0 a start
             0.1 a log 10%\\r
             0.2 a log 20%\\r\\nall:\\r\\n
             0.4 a err make: 
             0.5 a log no rule
             0.5 a error exit code: 2",
            &expect![[r#"
                #1 [1/1] RUN make
                #1 0.200 10%
                #1 0.200 20%
                #1 0.200 all:
                #1 0.500 no rule
                #1 0.500 make:
                #1 ERROR: exit code: 2
                ------
                 > [1/1] RUN make:
                0.200 10%
                0.200 20%
                0.200 all:
                0.500 no rule
                0.500 make:
                ------
            "#]],
        );
    }

    #[test]
    fn output_cannot_move_the_cursor() {
        assert_eq!(
            sanitize(b"a\x1b[2Jb\x1b[31mred\x1b[0m\x07\xff"),
            "ab\x1b[31mred\x1b[0m\u{fffd}"
        );
    }

    #[test]
    fn sizes() {
        assert_eq!(
            [bytes(0), bytes(999), bytes(1000), bytes(65_400_000), bytes(999_999)].join(" "),
            "0B 999B 1.00kB 65.4MB 1.00MB"
        );
    }
}
