//! Parallel gzip whose bytes do not depend on the number of threads.
//!
//! The input is cut into blocks of [`BLOCK_BYTES`], and each becomes a member of its own (RFC 1952
//! section 2.2: a gzip file is a series of members), so that the members put together are what was
//! written. The same happens with one thread. What the bytes depend on: the input, the level, the
//! block size, and the version of libdeflate (ADR 0017).
//!
//! Memory is bounded: at most [`BLOCKS_PER_THREAD`] blocks per thread are under way.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use libdeflater::{CompressionLvl, Compressor};

/// Bytes of input that are compressed at a time: no match reaches beyond them.
const BLOCK_BYTES: usize = 512 << 10;

/// Blocks under way per thread: one in work, one waiting or to be fetched.
const BLOCKS_PER_THREAD: usize = 2;

/// What a thread gets.
struct Job {
    block: Vec<u8>,
    reply: SyncSender<io::Result<Vec<u8>>>,
}

/// Compresses what is written to it, and passes it on to `inner`.
#[derive(Debug)]
pub struct GzipWriter<W: Write> {
    inner: W,
    block: Vec<u8>,
    under_way: VecDeque<Receiver<io::Result<Vec<u8>>>>,
    most_under_way: usize,
    /// Whether there is a member already: no input at all is an empty one.
    begun: bool,
    jobs: Option<SyncSender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl<W: Write> GzipWriter<W> {
    /// Starts the threads, which compress at `level`, 0 (not at all) to 12.
    ///
    /// # Errors
    ///
    /// There is no such level, or no thread can be started.
    pub fn new(inner: W, level: u32, threads: NonZeroUsize) -> io::Result<Self> {
        let level = level_of(level)?;
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
            under_way: VecDeque::new(),
            most_under_way,
            begun: false,
            jobs: Some(jobs),
            threads,
        })
    }

    /// Hands the block to a thread, after having fetched as many results as are too many.
    fn send_block(&mut self) -> io::Result<()> {
        while self.under_way.len() >= self.most_under_way {
            self.fetch()?;
        }
        self.begun = true;
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK_BYTES));
        let (reply, result) = sync_channel(1);
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(Job { block, reply }).is_ok());
        if !sent {
            return Err(io::Error::other("the threads that compress have ended"));
        }
        self.under_way.push_back(result);
        Ok(())
    }

    /// Waits for the oldest block under way, and writes it.
    fn fetch(&mut self) -> io::Result<()> {
        let Some(result) = self.under_way.pop_front() else { return Ok(()) };
        let member =
            result.recv().map_err(|_| io::Error::other("a thread that compresses has ended"))??;
        self.inner.write_all(&member)
    }

    /// Writes all that is under way; gives `inner` back.
    ///
    /// # Errors
    ///
    /// `inner` cannot be written.
    pub fn finish(mut self) -> io::Result<W> {
        if !self.block.is_empty() || !self.begun {
            self.send_block()?;
        }
        while !self.under_way.is_empty() {
            self.fetch()?;
        }
        self.jobs = None;
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| io::Error::other("a thread that compresses panicked"))?;
        }
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

fn level_of(level: u32) -> io::Result<CompressionLvl> {
    i32::try_from(level).ok().and_then(|level| CompressionLvl::new(level).ok()).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("gzip has no level {level}"))
    })
}

/// A thread: compresses blocks until there are no more to come.
fn work(queue: &Mutex<Receiver<Job>>, level: CompressionLvl) {
    let mut compressor = Compressor::new(level);
    // What a member may need is more than it does: kept here, copied in its own size.
    let mut room = Vec::new();
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        let member = compress(&mut compressor, &job.block, &mut room);
        // Nobody waits any more where the writer was dropped.
        drop(job.reply.send(member));
    }
}

fn compress(compressor: &mut Compressor, block: &[u8], room: &mut Vec<u8>) -> io::Result<Vec<u8>> {
    room.resize(compressor.gzip_compress_bound(block.len()), 0);
    let len = compressor.gzip_compress(block, room).map_err(io::Error::other)?;
    Ok(room[..len].to_vec())
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
        flate2::bufread::MultiGzDecoder::new(bytes).read_to_end(&mut all).expect("valid members");
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
