//! Splits a file of any kind at its newlines, in constant memory: a line that is longer than a piece comes in several.

use std::io::{self, BufRead, Read};

/// The longest piece of a line. A message with it stays well under an eighth of the default ring, which is the most
/// that one frame holds.
pub(crate) const PIECE: usize = 16 * 1024;

/// A line, or a part of one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece<'a> {
    /// The line's number, from 1.
    pub(crate) line: u64,
    /// The piece's place in its line, from 0.
    pub(crate) index: u64,
    /// Whether the line ends with this piece.
    pub(crate) last: bool,
    /// The bytes, the newline included where there is one.
    pub(crate) bytes: &'a [u8],
}

/// Reads pieces of lines.
pub(crate) struct Lines<R> {
    input: R,
    buffer: Vec<u8>,
    line: u64,
    index: u64,
}

impl<R: BufRead> Lines<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { input, buffer: Vec::with_capacity(PIECE), line: 1, index: 0 }
    }

    /// The next piece, or `None` at the end. Text behind the last newline is a line too.
    pub(crate) fn next_piece(&mut self) -> io::Result<Option<Piece<'_>>> {
        self.buffer.clear();
        if self.input.by_ref().take(PIECE as u64).read_until(b'\n', &mut self.buffer)? == 0 {
            return Ok(None);
        }
        let last = self.buffer.last() == Some(&b'\n') || self.input.fill_buf()?.is_empty();
        let piece = Piece { line: self.line, index: self.index, last, bytes: &self.buffer };
        if last {
            self.line += 1;
            self.index = 0;
        } else {
            self.index += 1;
        }
        Ok(Some(piece))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(input: &[u8]) -> Vec<(u64, u64, bool, Vec<u8>)> {
        // A tiny buffer, so that the ends of reads fall everywhere.
        let mut lines = Lines::new(io::BufReader::with_capacity(7, input));
        let mut all = Vec::new();
        while let Some(piece) = lines.next_piece().unwrap() {
            all.push((piece.line, piece.index, piece.last, piece.bytes.to_vec()));
        }
        all
    }

    #[test]
    fn an_empty_input_has_no_line() {
        assert_eq!(pieces(b""), []);
    }

    #[test]
    fn every_line_keeps_its_newline_and_the_last_may_lack_it() {
        assert_eq!(
            pieces(b"a\r\n\n\nlast line without end"),
            [
                (1, 0, true, b"a\r\n".to_vec()),
                (2, 0, true, b"\n".to_vec()),
                (3, 0, true, b"\n".to_vec()),
                (4, 0, true, b"last line without end".to_vec()),
            ]
        );
    }

    #[test]
    fn a_long_line_comes_in_pieces_and_is_one_line() {
        let mut input = vec![b'x'; 2 * PIECE + 10];
        input.extend_from_slice(b"\nnext\n");
        let all = pieces(&input);
        let shape: Vec<_> = all.iter().map(|(line, index, last, bytes)| (*line, *index, *last, bytes.len())).collect();
        assert_eq!(shape, [(1, 0, false, PIECE), (1, 1, false, PIECE), (1, 2, true, 11), (2, 0, true, 5)]);
        let joined: Vec<u8> = all.into_iter().flat_map(|(_, _, _, bytes)| bytes).collect();
        assert_eq!(joined, input);
    }

    #[test]
    fn a_line_that_fills_a_piece_exactly_ends_with_it() {
        let shape = |input: &[u8]| -> Vec<_> { pieces(input).iter().map(|p| (p.0, p.1, p.2, p.3.len())).collect() };
        let mut input = vec![b'x'; PIECE];
        assert_eq!(shape(&input), [(1, 0, true, PIECE)]);
        input[PIECE - 1] = b'\n';
        assert_eq!(shape(&input), [(1, 0, true, PIECE)]);
        input[PIECE - 1] = b'x';
        input.push(b'\n');
        assert_eq!(shape(&input), [(1, 0, false, PIECE), (1, 1, true, 1)]);
    }
}
