//! Every target with its seeds and with blind mutations of them: no coverage, no nightly compiler, the same each time.

use std::time::{Duration, Instant};

use rbuild_fuzz::{TARGETS, Target};

/// How many mutations of each seed without a time limit.
const TRIES: u32 = 400;

/// Pieces that mean something somewhere.
const PIECES: [&[u8]; 16] = [
    b"\n",
    b"\\\n",
    b"$",
    b"${",
    b"}",
    b"\"",
    b"'",
    b"<<",
    b"--",
    b"=",
    b"**",
    b"!",
    b"/../",
    b"\0",
    b"\xff\xfe",
    b"[\"",
];

#[test]
fn no_input_crashes_a_target() {
    let seconds = limit();
    let only = wanted();
    for target in
        TARGETS.iter().filter(|target| only.as_deref().is_none_or(|name| name == target.name))
    {
        run(target, seconds);
    }
}

#[expect(clippy::disallowed_methods, reason = "cargo xtask fuzz says so")]
fn limit() -> Option<Duration> {
    std::env::var("RBUILD_FUZZ_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .map(Duration::from_secs)
}

#[expect(clippy::disallowed_methods, reason = "cargo xtask fuzz says so")]
fn wanted() -> Option<String> {
    std::env::var("RBUILD_FUZZ_TARGET").ok()
}

fn run(target: &Target, limit: Option<Duration>) {
    let started = Instant::now();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for seed in target.seeds {
        guarded(target, seed);
    }
    let mut round = 0;
    while limit.map_or(round < TRIES, |limit| started.elapsed() < limit) {
        for seed in target.seeds {
            let mut input = seed.to_vec();
            for _ in 0..=random.below(6) {
                mutate(&mut input, seed, &mut random);
            }
            guarded(target, &input);
        }
        round += 1;
    }
}

/// Runs the target; if it panics, says with what.
fn guarded(target: &Target, input: &[u8]) {
    let result = std::panic::catch_unwind(|| (target.run)(input));
    assert!(result.is_ok(), "{} panicked with {:?}", target.name, String::from_utf8_lossy(input));
}

fn mutate(input: &mut Vec<u8>, seed: &[u8], random: &mut Random) {
    let at = random.below(input.len() + 1);
    match random.below(6) {
        0 if at < input.len() => input[at] ^= 1 << random.below(8),
        1 => input.truncate(at),
        2 => {
            let piece = PIECES[random.below(PIECES.len())];
            input.splice(at..at, piece.iter().copied());
        }
        3 => {
            let end = (at + random.below(16)).min(input.len());
            input.drain(at..end);
        }
        4 => {
            let from = random.below(seed.len() + 1);
            let end = (from + random.below(64)).min(seed.len());
            input.splice(at..at, seed[from..end].iter().copied());
        }
        _ => input.push(u8::try_from(random.below(256)).expect("below 256")),
    }
}

/// A small generator of numbers that are the same each time (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit.max(1) as u64).expect("below a usize")
    }
}
