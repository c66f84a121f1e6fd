//! What one renderer's lines amount to. Renderer and main each count for themselves, with this code, what the one
//! sent and what the other received.

/// Lines, words, bytes and a checksum of lines that come in pieces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) lines: u64,
    /// Runs of bytes other than ASCII white space; a run may reach over several pieces of one line.
    pub(crate) words: u64,
    /// Newlines included, so that the bytes of all lines add up to the size of the file.
    pub(crate) bytes: u64,
    /// Over the pieces in the order in which they came.
    pub(crate) checksum: u64,
    in_word: bool,
}

impl Counts {
    /// Adds a piece of a line; `last` says that the line ends with it.
    pub(crate) fn add(&mut self, piece: &[u8], last: bool) {
        for &byte in piece {
            let in_word = !is_space(byte);
            self.words += u64::from(in_word && !self.in_word);
            self.in_word = in_word;
        }
        self.bytes += piece.len() as u64;
        self.checksum = checksum(self.checksum, piece, last);
        if last {
            self.lines += 1;
            self.in_word = false;
        }
    }
}

/// White space as C's `isspace` has it: tab, newline, vertical tab, form feed, carriage return, space.
const fn is_space(byte: u8) -> bool {
    matches!(byte, b'\t'..=b'\r' | b' ')
}

/// One multiplication for eight bytes, so that it costs less than sending them. It notices lost, doubled, swapped and
/// altered pieces; it is no defence against somebody who wants to deceive it.
fn checksum(mut sum: u64, piece: &[u8], last: bool) -> u64 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |sum: u64, word: u64| (sum.rotate_left(23) ^ word).wrapping_mul(FACTOR);
    let (words, rest) = piece.as_chunks::<8>();
    for word in words {
        sum = mix(sum, u64::from_le_bytes(*word));
    }
    let mut tail = [0; 8];
    tail[..rest.len()].copy_from_slice(rest);
    sum = mix(sum, u64::from_le_bytes(tail));
    mix(sum, (piece.len() as u64) << 1 | u64::from(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pieces: &[(&[u8], bool)]) -> Counts {
        let mut counts = Counts::default();
        for (piece, last) in pieces {
            counts.add(piece, *last);
        }
        counts
    }

    #[test]
    fn a_word_over_several_pieces_counts_once() {
        let counts = of(&[(b"one tw", false), (b"o th", false), (b"ree\n", true)]);
        assert_eq!((counts.lines, counts.words, counts.bytes), (1, 3, 14));
    }

    #[test]
    fn a_line_without_newline_ends_its_word() {
        let counts = of(&[(b"one", true), (b"two", true)]);
        assert_eq!((counts.lines, counts.words, counts.bytes), (2, 2, 6));
    }

    #[test]
    fn carriage_returns_tabs_and_empty_lines_are_no_words() {
        let counts = of(&[(b"\r\n", true), (b"\n", true), (b"\ta\x0b\x0cb \r\n", true)]);
        assert_eq!((counts.lines, counts.words, counts.bytes), (3, 2, 11));
    }

    #[test]
    fn bytes_that_are_no_text_are_words() {
        let counts = of(&[(&[0, 0xff, 0x80, b' ', 0xa0, 0x85], true)]);
        assert_eq!((counts.lines, counts.words), (1, 2));
    }

    #[test]
    fn the_checksum_notices_lost_altered_and_swapped_pieces() {
        let right = of(&[(b"abcdefgh", true), (b"ijk", true)]).checksum;
        for wrong in [
            of(&[(b"abcdefgh", true)]),
            of(&[(b"abcdefgh", true), (b"ijl", true)]),
            of(&[(b"ijk", true), (b"abcdefgh", true)]),
            of(&[(b"abcdefgh", false), (b"ijk", true)]),
            of(&[(b"abcdefgh", true), (b"ijk\0", true)]),
        ] {
            assert_ne!(wrong.checksum, right);
        }
    }
}
