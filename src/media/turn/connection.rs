//! One connection of a TURN client: bytes in, through TLS where it is spoken, as messages; messages out from a bounded
//! queue. Whole messages are lost when it is full, never parts.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::TcpStream;
use rustls::ServerConnection;

use crate::base::Instant;
use crate::turn::frame::Frames;

/// Bytes that may wait before media is dropped: a second of 1 Mbit/s.
const QUEUE: usize = 128 << 10;
/// A connection that takes nothing for this long while something waits is closed.
const STUCK: Duration = Duration::from_secs(10);
/// Messages a connection may hand on per turn.
const MESSAGES_PER_TURN: usize = 64;
/// Plain bytes read or handed to TLS at once.
const CHUNK: usize = 8 << 10;

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    pub(super) remote: SocketAddr,
    tls: Option<Box<ServerConnection>>,
    frames: Frames,
    /// What is to be written, the first `written` bytes of which have been (or TLS has them).
    queue: Vec<u8>,
    written: usize,
    pub(super) is_ready: bool,
    pub(super) is_dirty: bool,
    pub(super) made: Instant,
    progress: Instant,
}

/// How reading went.
pub(super) enum Reading {
    /// There may be more.
    More,
    /// The system has nothing more for now.
    Done,
    /// Closed by the far end, broken, or it sent what is not TURN.
    Ended,
}

impl Connection {
    pub(super) fn new(now: Instant, stream: TcpStream, remote: SocketAddr, tls: Option<ServerConnection>) -> Self {
        Self {
            stream,
            remote,
            tls: tls.map(Box::new),
            frames: Frames::default(),
            queue: Vec::new(),
            written: 0,
            is_ready: true,
            is_dirty: false,
            made: now,
            progress: now,
        }
    }

    /// Hand on messages that have arrived.
    pub(super) fn receive(&mut self, mut take: impl FnMut(&[u8])) -> Reading {
        let mut left = MESSAGES_PER_TURN;
        loop {
            while left > 0 {
                match self.frames.take() {
                    Ok(Some(message)) => take(message),
                    Ok(None) => break,
                    Err(_) => return Reading::Ended,
                }
                left -= 1;
            }
            if left == 0 {
                return Reading::More;
            }
            match self.read() {
                Ok(0) => return Reading::Ended,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Reading::Done,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Reading::Ended,
            }
        }
    }

    /// Plain bytes into the frames. Zero: the far end has closed.
    fn read(&mut self) -> io::Result<usize> {
        let mut chunk = [0; CHUNK];
        let space = self.frames.space().min(CHUNK);
        let chunk = chunk.get_mut(..space).unwrap_or_default();
        let read = match &mut self.tls {
            None => self.stream.read(chunk)?,
            Some(tls) => loop {
                match tls.reader().read(chunk) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    other => break other?,
                }
                if tls.read_tls(&mut self.stream)? == 0 {
                    break 0;
                }
                tls.process_new_packets().map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
            },
        };
        self.frames.extend(chunk.get(..read).unwrap_or_default());
        Ok(read)
    }

    /// Queue a message, if there is room.
    pub(super) fn push(&mut self, now: Instant, message: &[u8]) {
        if self.queue.len() - self.written + message.len() > QUEUE {
            return;
        }
        if self.written == self.queue.len() {
            self.queue.clear();
            self.written = 0;
            self.progress = now;
        } else if self.written > QUEUE {
            self.queue.drain(..self.written);
            self.written = 0;
        }
        self.queue.extend_from_slice(message);
    }

    /// Write what the system takes. `false`: broken.
    pub(super) fn write(&mut self, now: Instant) -> bool {
        loop {
            let rest = self.queue.get(self.written..).unwrap_or_default();
            let result = match &mut self.tls {
                Some(tls) if tls.wants_write() => tls.write_tls(&mut self.stream),
                Some(tls) if !rest.is_empty() && !tls.is_handshaking() => {
                    match tls.writer().write(rest.get(..CHUNK).unwrap_or(rest)) {
                        // Nothing waits in TLS, so it takes something.
                        Ok(0) | Err(_) => return false,
                        Ok(written) => self.written += written,
                    }
                    continue;
                }
                None if !rest.is_empty() => {
                    let result = self.stream.write(rest);
                    self.written += result.as_ref().map_or(0, |written| *written);
                    result
                }
                _ => return true,
            };
            match result {
                Ok(0) => return false,
                Ok(_) => self.progress = now,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
    }

    /// Whether the far end has taken nothing for long while something waits.
    pub(super) fn is_stuck(&self, now: Instant) -> bool {
        let waits = self.written < self.queue.len() || self.tls.as_ref().is_some_and(|tls| tls.wants_write());
        waits && now.since(self.progress) > STUCK
    }
}
