//! A Unix stream socket that carries lines of JSON, by serde: what one would write on an ordinary day.

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;

use serde::{Deserialize, Serialize};

use super::unix_stream::OverSocket;
use super::{End, Expected, Outgoing, Place, patience};
use crate::Result;

/// The message: two numbers, and the bytes between them, which are letters.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    first: u64,
    text: String,
    last: u64,
}

/// A line a message.
#[derive(Debug)]
pub struct Lines {
    to: UnixStream,
    from: BufReader<UnixStream>,
    message: Line,
    line: Vec<u8>,
}

impl OverSocket for Lines {
    fn over(socket: UnixStream, _: &Place) -> Result<Self> {
        let from = BufReader::new(socket.try_clone()?);
        Ok(Self { to: socket, from, message: Line { first: 0, text: String::new(), last: 0 }, line: Vec::new() })
    }
}

impl End for Lines {
    fn send(&mut self, message: &Outgoing) -> Result<()> {
        let bytes = message.bytes();
        let (Some((first, rest)), Some(last)) = (bytes.split_first_chunk(), bytes.last_chunk()) else {
            return Err("the message is too short".into());
        };
        self.message.first = u64::from_le_bytes(*first);
        self.message.last = u64::from_le_bytes(*last);
        self.message.text.clear();
        self.message.text.push_str(str::from_utf8(&rest[..rest.len() - 8])?);
        self.line.clear();
        serde_json::to_writer(&mut self.line, &self.message)?;
        self.line.push(b'\n');
        Ok(patience::write(&mut self.to, &self.line)?)
    }

    fn receive(&mut self, expected: &Expected) -> Result<()> {
        self.line.clear();
        while self.line.last() != Some(&b'\n') {
            match self.from.read_until(b'\n', &mut self.line) {
                Ok(0) => return Err("the other side has closed its socket".into()),
                Ok(_) => {}
                Err(error) if patience::is_early(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let message: Line = serde_json::from_slice(&self.line)?;
        expected.check_parts(message.first, message.text.as_bytes(), message.last)
    }
}
