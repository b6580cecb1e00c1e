//! Parallel gzip whose bytes do not depend on the number of threads.
//!
//! The input is cut into blocks of [`BLOCK_BYTES`]. Each is deflated on its own, with the last
//! [`DICTIONARY_BYTES`] of the block before as dictionary, and ended by a sync flush, so that the
//! pieces put together are one deflate stream, in one gzip member (RFC 1952). The same happens
//! with one thread. What the bytes depend on: the input, the level, the block size, and the
//! version of zlib-rs.
//!
//! Memory is bounded: at most [`BLOCKS_PER_THREAD`] blocks per thread are under way.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

/// Bytes of input that are deflated at a time.
const BLOCK_BYTES: usize = 512 << 10;

/// Bytes that deflate can look back.
const DICTIONARY_BYTES: usize = 32 << 10;

/// Blocks under way per thread: one in work, one waiting or to be fetched.
const BLOCKS_PER_THREAD: usize = 2;

/// No name, no time, no flags; the operating system is unknown (255), so that it tells nothing.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// An empty last block with fixed codes: ends the deflate stream.
const LAST_BLOCK: [u8; 2] = [3, 0];

/// What a thread gets: a block and the end of the one before.
struct Job {
    block: Arc<Vec<u8>>,
    before: Option<Arc<Vec<u8>>>,
    reply: SyncSender<io::Result<Piece>>,
}

/// What it makes of it.
struct Piece {
    deflated: Vec<u8>,
    crc: Crc,
}

/// Compresses what is written to it, and passes it on to `inner`.
#[derive(Debug)]
pub struct GzipWriter<W: Write> {
    inner: W,
    block: Vec<u8>,
    before: Option<Arc<Vec<u8>>>,
    under_way: VecDeque<Receiver<io::Result<Piece>>>,
    most_under_way: usize,
    jobs: Option<SyncSender<Job>>,
    threads: Vec<JoinHandle<()>>,
    crc: Crc,
}

impl<W: Write> GzipWriter<W> {
    /// Starts the threads and writes the header.
    ///
    /// # Errors
    ///
    /// `inner` cannot be written, or no thread can be started.
    pub fn new(mut inner: W, level: u32, threads: NonZeroUsize) -> io::Result<Self> {
        inner.write_all(&HEADER)?;
        let most_under_way = threads.get() * BLOCKS_PER_THREAD;
        let (jobs, queue) = sync_channel::<Job>(most_under_way);
        let queue = Arc::new(Mutex::new(queue));
        let threads = (0..threads.get())
            .map(|_| {
                let queue = Arc::clone(&queue);
                thread::Builder::new().name("gzip".to_owned()).spawn(move || work(&queue, level))
            })
            .collect::<io::Result<_>>()?;
        Ok(Self {
            inner,
            block: Vec::with_capacity(BLOCK_BYTES),
            before: None,
            under_way: VecDeque::new(),
            most_under_way,
            jobs: Some(jobs),
            threads,
            crc: Crc::new(),
        })
    }

    /// Hands the block to a thread, after having fetched as many results as are too many.
    fn send_block(&mut self) -> io::Result<()> {
        while self.under_way.len() >= self.most_under_way {
            self.fetch()?;
        }
        let block = Arc::new(std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK_BYTES)));
        let (reply, result) = sync_channel(1);
        let job = Job { block: Arc::clone(&block), before: self.before.replace(block), reply };
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        if !sent {
            return Err(io::Error::other("the threads that compress have ended"));
        }
        self.under_way.push_back(result);
        Ok(())
    }

    /// Waits for the oldest block under way, and writes it.
    fn fetch(&mut self) -> io::Result<()> {
        let Some(result) = self.under_way.pop_front() else { return Ok(()) };
        let piece =
            result.recv().map_err(|_| io::Error::other("a thread that compresses has ended"))??;
        self.crc.combine(&piece.crc);
        self.inner.write_all(&piece.deflated)
    }

    /// Writes all that is under way and the trailer; gives `inner` back.
    ///
    /// # Errors
    ///
    /// `inner` cannot be written.
    pub fn finish(mut self) -> io::Result<W> {
        if !self.block.is_empty() {
            self.send_block()?;
        }
        while !self.under_way.is_empty() {
            self.fetch()?;
        }
        self.jobs = None;
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| io::Error::other("a thread that compresses panicked"))?;
        }
        self.inner.write_all(&LAST_BLOCK)?;
        self.inner.write_all(&self.crc.sum().to_le_bytes())?;
        // Modulo 2^32, as RFC 1952 wants it; `Crc` counts the same way.
        self.inner.write_all(&self.crc.amount().to_le_bytes())?;
        Ok(self.inner)
    }
}

impl<W: Write> Write for GzipWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(BLOCK_BYTES - self.block.len());
        self.block.extend_from_slice(&bytes[..taken]);
        if self.block.len() == BLOCK_BYTES {
            self.send_block()?;
        }
        Ok(taken)
    }

    /// Does nothing: where blocks end must not depend on the caller.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A thread: deflates blocks until there are no more to come.
fn work(queue: &Mutex<Receiver<Job>>, level: u32) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        let piece = deflate_block(level, &job);
        // Nobody waits any more where the writer was dropped.
        drop(job.reply.send(piece));
    }
}

fn deflate_block(level: u32, job: &Job) -> io::Result<Piece> {
    // One for each block: in zlib-rs a reset leaves something of the input before, and which that was
    // differs from run to run.
    let mut deflate = Compress::new(Compression::new(level), false);
    if let Some(before) = &job.before {
        let start = before.len().saturating_sub(DICTIONARY_BYTES);
        deflate.set_dictionary(&before[start..]).map_err(io::Error::other)?;
    }
    // Deflate adds at most 5 bytes per 16 KiB of input that it cannot compress, and the flush.
    let mut deflated = Vec::with_capacity(job.block.len() + job.block.len() / 1024 + 64);
    loop {
        let done = usize::try_from(deflate.total_in()).map_err(io::Error::other)?;
        let status = deflate
            .compress_vec(&job.block[done..], &mut deflated, FlushCompress::Sync)
            .map_err(io::Error::other)?;
        let room = deflated.len() < deflated.capacity();
        match status {
            Status::Ok | Status::BufError if !room => deflated.reserve(BLOCK_BYTES),
            Status::Ok | Status::BufError | Status::StreamEnd => break,
        }
    }
    let mut crc = Crc::new();
    crc.update(&job.block);
    Ok(Piece { deflated, crc })
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use proptest::prelude::*;

    use super::*;

    fn gzip(bytes: &[u8], level: u32, threads: usize, chunk: usize) -> Vec<u8> {
        let threads = NonZeroUsize::new(threads).expect("at least one");
        let mut writer = GzipWriter::new(Vec::new(), level, threads).expect("starts");
        for part in bytes.chunks(chunk.max(1)) {
            writer.write_all(part).expect("writes");
        }
        writer.finish().expect("finishes")
    }

    fn gunzip(bytes: &[u8]) -> Vec<u8> {
        let mut all = Vec::new();
        flate2::bufread::GzDecoder::new(bytes).read_to_end(&mut all).expect("one valid member");
        all
    }

    /// Bytes that compress a little, from a linear congruence.
    fn sample(len: usize) -> Vec<u8> {
        let mut state = 1u32;
        (0..len)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let [.., high] = state.to_le_bytes();
                if high < 200 { high / 8 } else { high }
            })
            .collect()
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bytes() {
        let input = sample(3 * BLOCK_BYTES + 12_345);
        let one = gzip(&input, 6, 1, 100_000);
        assert_eq!(gunzip(&one), input);
        for (threads, chunk) in [(2, 4096), (3, input.len()), (7, 1 << 20)] {
            assert_eq!(gzip(&input, 6, threads, chunk), one, "{threads} threads");
        }
    }

    #[test]
    fn borders() {
        for len in [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 2 * BLOCK_BYTES] {
            let input = sample(len);
            assert_eq!(gunzip(&gzip(&input, 1, 2, 1 << 16)), input, "{len}");
        }
    }

    #[test]
    fn levels_and_incompressible_input() {
        let mut state = 7u64;
        let noise: Vec<u8> = (0..BLOCK_BYTES + 100)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_le_bytes()[3]
            })
            .collect();
        for level in 0..=9 {
            assert_eq!(gunzip(&gzip(&noise, level, 2, 1 << 16)), noise, "level {level}");
        }
    }

    #[test]
    fn the_dictionary_is_used() {
        let input = sample(1000).repeat(1000);
        assert!(gzip(&input, 6, 2, 1 << 16).len() < input.len() / 50);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn round_trip(input in proptest::collection::vec(any::<u8>(), 0..5000), level in 0..=9u32) {
            prop_assert_eq!(gunzip(&gzip(&input, level, 2, 777)), input);
        }
    }

    /// Machine code, more or less: words of four bytes that come again, with noise between them.
    fn code(len: usize) -> Vec<u8> {
        let mut state = 7u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 8
        };
        let words: Vec<[u8; 4]> =
            (0..4096).map(|_| next().wrapping_mul(977).to_le_bytes()).collect();
        let mut all = Vec::with_capacity(len + 64);
        while all.len() < len {
            let at = next() as usize % words.len();
            for word in words.iter().cycle().skip(at).take(1 + next() as usize % 9) {
                all.extend_from_slice(word);
            }
            all.extend_from_slice(&next().to_le_bytes()[..next() as usize % 4]);
        }
        all
    }

    /// What a thread did before must not show.
    #[test]
    fn a_block_does_not_depend_on_the_one_before_in_the_same_thread() {
        let input = code(40 * BLOCK_BYTES);
        for level in [1, 3] {
            let one = gzip(&input, level, 1, BLOCK_BYTES);
            for threads in [2, 3] {
                assert!(gzip(&input, level, threads, BLOCK_BYTES) == one, "{level} {threads}");
            }
        }
    }

    /// Fails after some bytes.
    #[derive(Debug)]
    struct Full(usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            let taken = bytes.len().min(self.0);
            self.0 -= taken;
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_is_reported() {
        let two = NonZeroUsize::new(2).expect("two");
        let mut writer = GzipWriter::new(Full(1000), 6, two).expect("starts");
        let written = writer.write_all(&sample(10 * BLOCK_BYTES));
        let error = written.and_then(|()| writer.finish().map(drop)).expect_err("is full");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
