//! What one end of a stream must hear, as a pure state machine: each lane's messages once, in order and whole.

use std::fmt;

use super::parcel::{LANES, Label};

/// What has been heard from the other end.
#[derive(Clone, Debug)]
pub(crate) struct Inbound {
    /// Of the messages to this end.
    key: u64,
    /// Of the broadcasts.
    news_key: u64,
    /// The number that comes next, by lane.
    lanes: [u64; LANES],
    news: News,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    /// None has come. The first one has this number or a lower one.
    Before(u64),
    Next(u64),
}

/// What the other end has written down of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    /// How many messages were surely sent, by lane: a thread counts one when the send has returned.
    pub(crate) lanes: [u64; LANES],
    /// How many broadcasts were surely sent to this end or reported as missed.
    pub(crate) news: u64,
    /// Whether it sent nothing after it had written that down.
    pub(crate) at_rest: bool,
}

/// What must never be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Garbled { lane: u64, number: u64 },
    UnknownLane { lane: u64 },
    Lost { lane: u64, expected: u64, found: u64 },
    Repeated { lane: u64, expected: u64, found: u64 },
    LostNews { expected: u64, found: u64 },
    RepeatedNews { expected: u64, found: u64 },
    GarbledNews { number: u64 },
    LostAtEnd { lane: u64, heard: u64, sent: u64 },
    NeverSent { lane: u64, heard: u64, sent: u64 },
    LostNewsAtEnd { heard: u64, sent: u64 },
}

impl Inbound {
    /// Nothing has been heard. Messages and broadcasts are those with these keys.
    pub(crate) fn new(key: u64, news_key: u64) -> Self {
        Self { key, news_key, lanes: [0; LANES], news: News::Before(u64::MAX) }
    }

    pub(crate) fn label(&self, lane: u64, number: u64) -> Label {
        Label { key: self.key, lane, number }
    }

    /// A message has come, with a check sum and with content that has another one, or the same.
    pub(crate) fn parcel(&mut self, label: Label, sum: u64, found: u64) -> Result<(), Fault> {
        let Label { lane, number, .. } = label;
        let is_garbled = sum != found || label.key != self.key;
        let Some(next) = usize::try_from(lane).ok().and_then(|lane| self.lanes.get_mut(lane)) else {
            return Err(Fault::UnknownLane { lane });
        };
        let expected = *next;
        if is_garbled {
            // One that came in its place is not missed as well.
            *next += u64::from(number == expected);
            return Err(Fault::Garbled { lane, number });
        }
        // A gap is told once.
        *next = expected.max(number + 1);
        match number {
            _ if number == expected => Ok(()),
            _ if number > expected => Err(Fault::Lost { lane, expected, found: number }),
            _ => Err(Fault::Repeated { lane, expected, found: number }),
        }
    }

    /// The other end said that so many broadcasts had begun when it knew this end: all later ones come.
    pub(crate) fn news_from(&mut self, begun: u64) {
        if let News::Before(most) = &mut self.news {
            *most = begun;
        }
    }

    pub(crate) fn news_label(&self, number: u64) -> Label {
        Label { key: self.news_key, lane: 0, number }
    }

    pub(crate) fn news(&mut self, number: u64, sum: u64, found: u64) -> Result<(), Fault> {
        if sum != found {
            return Err(Fault::GarbledNews { number });
        }
        self.missed(number)
    }

    /// A broadcast that did not come, as the other end says; to it, that is as good as one that came.
    pub(crate) fn missed(&mut self, number: u64) -> Result<(), Fault> {
        let before = std::mem::replace(&mut self.news, News::Next(number + 1));
        match before {
            News::Before(most) if number <= most => Ok(()),
            News::Before(expected) => Err(Fault::LostNews { expected, found: number }),
            News::Next(expected) if number == expected => Ok(()),
            News::Next(expected) if number > expected => Err(Fault::LostNews { expected, found: number }),
            News::Next(expected) => {
                self.news = before;
                Err(Fault::RepeatedNews { expected, found: number })
            }
        }
    }

    /// The connection has ended, and what the other end had sent before has all been heard: compares with what it wrote
    /// down. What its dispatching thread sent may have waited in its own memory.
    pub(crate) fn ended(&self, sent: &Sent) -> Vec<Fault> {
        let mut faults = Vec::new();
        for (lane, (&heard, &sent_there)) in self.lanes.iter().zip(&sent.lanes).enumerate() {
            let of_a_thread = lane > 0;
            let lane = lane as u64;
            if heard < sent_there && of_a_thread {
                faults.push(Fault::LostAtEnd { lane, heard, sent: sent_there });
            }
            // A send whose end its process did not live to write down.
            let most = sent_there + u64::from(!sent.at_rest);
            if heard > most {
                faults.push(Fault::NeverSent { lane, heard, sent: sent_there });
            }
        }
        // Nobody knows whether one had to come where none did, unless the number is known from which on they must.
        let heard = match self.news {
            News::Next(next) => next,
            News::Before(most) => most,
        };
        if heard < sent.news {
            faults.push(Fault::LostNewsAtEnd { heard, sent: sent.news });
        }
        faults
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Garbled { lane, number } => write!(f, "garbled: message {number} of lane {lane} has another sum"),
            Self::UnknownLane { lane } => write!(f, "garbled: a message of lane {lane}, which there is not"),
            Self::Lost { lane, expected, found } => {
                write!(f, "lost or out of order: message {found} of lane {lane} came where {expected} was due")
            }
            Self::Repeated { lane, expected, found } => {
                write!(f, "twice or out of order: message {found} of lane {lane} came where {expected} was due")
            }
            Self::LostNews { expected, found } => {
                write!(f, "lost or out of order: broadcast {found} came where {expected} was due")
            }
            Self::RepeatedNews { expected, found } => {
                write!(f, "twice or out of order: broadcast {found} came where {expected} was due")
            }
            Self::GarbledNews { number } => write!(f, "garbled: broadcast {number} has another sum"),
            Self::LostAtEnd { lane, heard, sent } => {
                write!(f, "lost: {sent} messages of lane {lane} were sent before the end and {heard} came")
            }
            Self::NeverSent { lane, heard, sent } => {
                write!(f, "{heard} messages of lane {lane} came and only {sent} were sent")
            }
            Self::LostNewsAtEnd { heard, sent } => {
                write!(f, "lost: broadcasts up to {sent} were sent before the end, and they came up to {heard}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: u64 = 11;
    const NEWS_KEY: u64 = 12;

    fn inbound() -> Inbound {
        Inbound::new(KEY, NEWS_KEY)
    }

    /// Message `number` of `lane` comes with the content of another one, if that is not the same.
    fn comes_as(inbound: &mut Inbound, lane: u64, number: u64, content: Label) -> Result<(), Fault> {
        let label = inbound.label(lane, number);
        let mut words = [0; 3];
        let sum = label.fill(&mut words);
        content.fill(&mut words);
        inbound.parcel(label, sum, label.sum(words.iter().copied()))
    }

    fn comes(inbound: &mut Inbound, lane: u64, number: u64) -> Result<(), Fault> {
        comes_as(inbound, lane, number, Label { key: KEY, lane, number })
    }

    fn news_come(inbound: &mut Inbound, number: u64) -> Result<(), Fault> {
        inbound.news(number, 1, 1)
    }

    /// An end that heard so many messages of each lane.
    fn heard(lanes: [u64; LANES]) -> Inbound {
        let mut inbound = inbound();
        for (lane, &count) in lanes.iter().enumerate() {
            (0..count).for_each(|number| comes(&mut inbound, lane as u64, number).unwrap());
        }
        inbound
    }

    fn sent(lanes: [u64; LANES]) -> Sent {
        Sent { lanes, news: 0, at_rest: false }
    }

    #[test]
    fn lanes_that_come_once_and_in_order_have_no_fault_however_they_mix() {
        let mut inbound = inbound();
        for (lane, number) in [(1, 0), (2, 0), (1, 1), (0, 0), (2, 1), (1, 2)] {
            assert_eq!(comes(&mut inbound, lane, number), Ok(()));
        }
        assert!(inbound.ended(&sent([1, 3, 2])).is_empty());
    }

    #[test]
    fn a_lost_message_is_told_once_and_where() {
        let mut inbound = heard([0, 2, 0]);
        assert_eq!(comes(&mut inbound, 1, 3), Err(Fault::Lost { lane: 1, expected: 2, found: 3 }));
        assert_eq!(comes(&mut inbound, 1, 4), Ok(()));
    }

    #[test]
    fn a_message_that_comes_twice_or_late_is_told() {
        let mut inbound = heard([0, 2, 0]);
        assert_eq!(comes(&mut inbound, 1, 1), Err(Fault::Repeated { lane: 1, expected: 2, found: 1 }));
        assert_eq!(comes(&mut inbound, 1, 2), Ok(()));
        // Two that change places are one too early and one too late.
        assert!(comes(&mut inbound, 1, 4).is_err());
        assert!(comes(&mut inbound, 1, 3).is_err());
    }

    #[test]
    fn a_garbled_message_is_told() {
        let mut inbound = inbound();
        for content in [
            Label { key: KEY, lane: 1, number: 1 },
            Label { key: KEY, lane: 2, number: 0 },
            Label { key: KEY + 1, lane: 1, number: 0 },
        ] {
            assert_eq!(comes_as(&mut inbound.clone(), 1, 0, content), Err(Fault::Garbled { lane: 1, number: 0 }));
        }
        let stream_of_another = Label { key: KEY + 1, lane: 1, number: 0 };
        assert_eq!(inbound.parcel(stream_of_another, 5, 5), Err(Fault::Garbled { lane: 1, number: 0 }));
        assert_eq!(comes(&mut inbound, 1, 1), Ok(()), "it came in its place");
        assert_eq!(comes(&mut inbound, 9, 0), Err(Fault::UnknownLane { lane: 9 }));
        assert_eq!(comes(&mut inbound, u64::MAX, u64::MAX - 1), Err(Fault::UnknownLane { lane: u64::MAX }));
    }

    #[test]
    fn what_a_thread_had_sent_when_it_was_killed_must_have_come() {
        let inbound = heard([0, 5, 7]);
        assert!(inbound.ended(&sent([0, 5, 7])).is_empty());
        assert!(inbound.ended(&sent([0, 4, 7])).is_empty(), "killed before it could write the last one down");
        assert_eq!(inbound.ended(&sent([0, 6, 7])), [Fault::LostAtEnd { lane: 1, heard: 5, sent: 6 }]);
        assert_eq!(inbound.ended(&sent([0, 5, 5])), [Fault::NeverSent { lane: 2, heard: 7, sent: 5 }]);
        let at_rest = Sent { at_rest: true, ..sent([0, 4, 7]) };
        assert_eq!(inbound.ended(&at_rest), [Fault::NeverSent { lane: 1, heard: 5, sent: 4 }]);
    }

    #[test]
    fn what_waits_in_the_dispatching_threads_queue_may_die_with_it() {
        assert!(heard([3, 0, 0]).ended(&sent([9, 0, 0])).is_empty());
        assert_eq!(heard([3, 0, 0]).ended(&sent([1, 0, 0])), [Fault::NeverSent { lane: 0, heard: 3, sent: 1 }]);
    }

    #[test]
    fn broadcasts_come_from_the_first_on_that_had_to_or_are_reported_as_missed() {
        let mut inbound = inbound();
        inbound.news_from(7);
        for number in [6, 7] {
            assert_eq!(news_come(&mut inbound, number), Ok(()));
        }
        assert_eq!(inbound.missed(8), Ok(()));
        assert_eq!(news_come(&mut inbound, 9), Ok(()));
        assert!(inbound.ended(&Sent { news: 10, ..sent([0; LANES]) }).is_empty());
    }

    #[test]
    fn a_broadcast_that_is_lost_doubled_or_garbled_is_told() {
        let mut late = inbound();
        late.news_from(7);
        assert_eq!(news_come(&mut late, 8), Err(Fault::LostNews { expected: 7, found: 8 }));
        assert_eq!(news_come(&mut late, 10), Err(Fault::LostNews { expected: 9, found: 10 }));
        assert_eq!(news_come(&mut late, 10), Err(Fault::RepeatedNews { expected: 11, found: 10 }));
        assert_eq!(late.news(11, 1, 2), Err(Fault::GarbledNews { number: 11 }));
        assert_eq!(late.ended(&Sent { news: 12, ..sent([0; LANES]) }), [Fault::LostNewsAtEnd { heard: 11, sent: 12 }]);
        let mut none = inbound();
        none.news_from(3);
        assert!(none.ended(&Sent { news: 3, ..sent([0; LANES]) }).is_empty());
        assert_eq!(none.ended(&Sent { news: 4, ..sent([0; LANES]) }), [Fault::LostNewsAtEnd { heard: 3, sent: 4 }]);
    }
}
