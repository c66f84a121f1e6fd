use memit::{Payload, schema::text};
use proptest::prelude::*;

use crate::support::{encoded, received, round_trip};

#[memit::message(plain)]
#[derive(Clone, Copy, Debug, PartialEq)]
struct Quote {
    seq: u64,
    price: f64,
    sizes: [u32; 2],
    level: Level,
}

#[derive(Clone, Copy, Debug, PartialEq)]
#[memit::message(plain)]
struct Level(u16, [i8; 6]);

#[memit::message]
#[derive(Debug, PartialEq)]
struct Book {
    name: String,
    best: Quote,
    all: Vec<Quote>,
}

fn quote(seq: u64) -> Quote {
    Quote { seq, price: 2.5, sizes: [1, 2], level: Level(3, [-4; 6]) }
}

#[test]
fn a_plain_message_is_its_own_view() {
    let bytes = encoded::<Quote>(&quote(7));
    assert_eq!(bytes.len(), size_of::<Quote>());
    assert_eq!(*Quote::view(&bytes).unwrap(), quote(7));
}

#[test]
fn slices_of_plain_messages_travel_as_they_are() {
    let quotes = [quote(1), quote(2), quote(3)];
    let bytes = encoded::<[Quote]>(&quotes);
    assert_eq!(<[Quote]>::view(&bytes).unwrap(), quotes);
    assert_eq!(round_trip::<[Quote]>(&quotes.to_vec()), quotes);
    assert!(<[Quote]>::view(&bytes[..50]).is_err());
}

#[test]
fn plain_messages_are_part_of_others() {
    let book = Book { name: "n".into(), best: quote(1), all: vec![quote(2), quote(3)] };
    assert_eq!(round_trip::<Book>(&book), book);
}

mod archived {
    #[memit::message]
    pub(crate) struct Quote {
        seq: u64,
        price: f64,
        sizes: [u32; 2],
        level: Level,
    }

    #[memit::message]
    pub(crate) struct Level(u16, [i8; 6]);
}

#[test]
fn a_plain_message_has_the_form_of_an_archived_one() {
    assert_eq!(text::<Quote>(), text::<archived::Quote>());
}

proptest! {
    #[test]
    fn any_bytes_are_a_plain_message(bytes: [u8; size_of::<Quote>()]) {
        prop_assert!(Quote::view(&received(&bytes)).is_ok());
    }
}
