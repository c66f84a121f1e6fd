//! What travels: numbered messages whose content follows from their stream, lane and number.

use memit::Channel;

use super::random::{Random, mix};

/// From a renderer, first: which stream this is. The main answers when it is ready for it.
pub(crate) const HELLO: Channel<String, Welcome> = Channel::new("hello");
/// A numbered message, as an archive.
pub(crate) const PARCEL: Channel<Parcel> = Channel::new("parcel");
/// A numbered message, as plain words: lane, number, check sum, and the content.
pub(crate) const WORDS: Channel<[u64]> = Channel::new("words");
/// A numbered message that is answered with a parcel of the size that it asks for.
pub(crate) const ASK: Channel<Question, Parcel> = Channel::new("ask");
/// What the main sends to all.
pub(crate) const NEWS: Channel<Parcel> = Channel::new("news");
/// From the main: that broadcast found no space at this renderer.
pub(crate) const MISSED: Channel<u64> = Channel::new("missed");
/// A call from within a listener, answered with what it carries.
pub(crate) const PROBE: Channel<u64, u64> = Channel::new("probe");

/// The lane of what is sent from the dispatching thread; the threads' lanes follow.
pub(crate) const DISPATCH: u64 = 0;
/// Lanes of a stream, in one direction.
pub(crate) const LANES: usize = 3;

#[memit::message]
#[derive(Clone, Debug)]
pub(crate) struct Welcome {
    /// The name of the board of this main.
    pub(crate) board: String,
    /// How many broadcasts had begun by then.
    pub(crate) news: u64,
}

#[memit::message]
#[derive(Clone, Debug)]
pub(crate) struct Parcel {
    pub(crate) lane: u64,
    /// From 0, without a gap.
    pub(crate) number: u64,
    pub(crate) sum: u64,
    pub(crate) words: Vec<u64>,
}

/// A [`Parcel`] whose words are in a buffer.
#[memit::message(as = Parcel)]
pub(crate) struct ParcelRef<'a> {
    pub(crate) lane: u64,
    pub(crate) number: u64,
    pub(crate) sum: u64,
    pub(crate) words: &'a [u64],
}

#[memit::message]
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) parcel: Parcel,
    /// Words of the answer.
    pub(crate) answer: u64,
}

#[memit::message(as = Question)]
pub(crate) struct QuestionRef<'a> {
    pub(crate) parcel: ParcelRef<'a>,
    pub(crate) answer: u64,
}

/// Whose parcel it is: the key of its stream and direction, the lane and the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Label {
    pub(crate) key: u64,
    pub(crate) lane: u64,
    pub(crate) number: u64,
}

impl Label {
    fn seed(self) -> u64 {
        mix(mix(mix(self.key) ^ self.lane) ^ self.number)
    }

    /// Fills `words` with what belongs to this label, and returns the check sum.
    pub(crate) fn fill(self, words: &mut [u64]) -> u64 {
        let mut random = Random::new(self.seed());
        for word in words.iter_mut() {
            *word = random.next();
        }
        self.sum(words.iter().copied())
    }

    /// The check sum of `words`, which is another one for any other label, length or order.
    pub(crate) fn sum(self, words: impl ExactSizeIterator<Item = u64>) -> u64 {
        let begin = self.seed() ^ words.len() as u64;
        words.fold(begin, |sum, word| (sum.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

/// How many words a message has: mostly few, sometimes as many as go outside of the ring, and now and then more than
/// a piece of the arena holds.
pub(crate) fn size(random: &mut Random) -> usize {
    let words = match random.below(1000) {
        0..700 => random.between(0, 24),
        700..900 => random.between(0, 900),
        900..985 => random.between(900, 4_000),
        985..998 => random.between(4_000, 30_000),
        _ => random.between(33_000, 120_000),
    };
    usize::try_from(words).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_tells_altered_swapped_missing_and_foreign_content() {
        let label = Label { key: 1, lane: 2, number: 3 };
        let mut words = [0; 8];
        let sum = label.fill(&mut words);
        let of = |label: Label, words: &[u64]| label.sum(words.iter().copied());
        assert_eq!(of(label, &words), sum);
        assert_ne!(of(Label { key: 2, ..label }, &words), sum);
        assert_ne!(of(Label { lane: 1, ..label }, &words), sum);
        assert_ne!(of(Label { number: 4, ..label }, &words), sum);
        assert_ne!(of(label, &words[..7]), sum);
        let mut wrong = words;
        wrong.swap(2, 3);
        assert_ne!(of(label, &wrong), sum);
        wrong = words;
        wrong[5] ^= 1 << 40;
        assert_ne!(of(label, &wrong), sum);
    }
}
