//! Messages with random contents: they come back as they were, their twins write the same bytes, and what is left of
//! their archives after damage is refused or is some message.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    num::NonZeroU16,
    time::Duration,
};

use memit::{Args, Message, Payload, encode::with_encoded, rkyv};
use proptest::{
    prelude::*,
    sample::{Index, select},
};

use crate::{
    dynamic::values,
    support::{encoded, received, round_trip},
};

#[memit::message(plain)]
#[derive(Clone, Copy, Debug, PartialEq)]
struct Quote {
    seq: u64,
    price: i64,
    sizes: [u32; 2],
    level: [i16; 4],
}

#[memit::message]
#[derive(Clone, Debug, PartialEq)]
enum Side {
    Buy,
    Sell { limit: Option<i64>, note: String },
    Both(Vec<Side>, Box<(u8, Side)>),
}

#[memit::message]
#[derive(Clone, Debug, PartialEq)]
struct Order {
    side: Side,
    numbers: Numbers,
    texts: Texts,
    owner: Option<Box<Order>>,
    detail: memit::Value,
}

#[memit::message]
#[derive(Clone, Debug, PartialEq)]
struct Numbers {
    id: u128,
    quote: Quote,
    quotes: Vec<Quote>,
    matrix: [[i8; 3]; 2],
    after: Duration,
    count: NonZeroU16,
    slice: Box<[u32]>,
    nested: BTreeMap<u64, BTreeMap<i32, Box<str>>>,
}

type Counted = (u16, Option<String>);

#[memit::message]
#[derive(Clone, Debug, PartialEq)]
struct Texts {
    tags: Vec<Option<String>>,
    triple: (u8, String, (bool, char)),
    by_name: BTreeMap<String, Vec<Counted>>,
    letters: BTreeSet<char>,
}

#[memit::message]
#[derive(Clone, Debug, PartialEq)]
struct Leg {
    name: String,
    size: u32,
}

#[memit::message]
#[derive(Clone, Debug, PartialEq)]
struct Trade {
    seq: u64,
    symbol: String,
    note: Option<String>,
    amounts: Vec<u64>,
    tags: Vec<String>,
    pair: (i16, String),
    first: Leg,
    legs: Vec<Leg>,
    quote: Quote,
}

#[memit::message(as = Leg)]
struct LegRef<'a> {
    name: &'a str,
    size: u32,
}

#[memit::message(as = Trade)]
struct TradeRef<'a> {
    seq: u64,
    symbol: &'a str,
    note: Option<&'a str>,
    amounts: &'a [u64],
    tags: &'a [&'a str],
    pair: (i16, &'a str),
    first: &'a Leg,
    legs: &'a [LegRef<'a>],
    quote: Quote,
}

fn quotes() -> impl Strategy<Value = Quote> {
    any::<(u64, i64, [u32; 2], [i16; 4])>().prop_map(|(seq, price, sizes, level)| Quote { seq, price, sizes, level })
}

/// Texts around the eight bytes that an archive holds in place, and any others.
fn texts() -> impl Strategy<Value = String> {
    prop_oneof!["[a-zß€]{0,12}", any::<String>()]
}

fn sides() -> impl Strategy<Value = Side> {
    let leaf = prop_oneof![
        Just(Side::Buy),
        (any::<Option<i64>>(), texts()).prop_map(|(limit, note)| Side::Sell { limit, note })
    ];
    leaf.prop_recursive(5, 16, 3, |inner| {
        (prop::collection::vec(inner.clone(), 0..3), any::<u8>(), inner)
            .prop_map(|(many, number, one)| Side::Both(many, Box::new((number, one))))
    })
}

fn numbers() -> impl Strategy<Value = Numbers> {
    let maps = prop::collection::btree_map(any::<i32>(), texts().prop_map(Into::into), 0..8);
    let parts = (
        any::<u128>(),
        quotes(),
        prop::collection::vec(quotes(), 0..4),
        any::<[[i8; 3]; 2]>(),
        any::<Duration>(),
        any::<NonZeroU16>(),
        prop::collection::vec(any::<u32>(), 0..6).prop_map(Into::into),
        prop::collection::btree_map(any::<u64>(), maps, 0..3),
    );
    parts.prop_map(|(id, quote, quotes, matrix, after, count, slice, nested)| Numbers {
        id,
        quote,
        quotes,
        matrix,
        after,
        count,
        slice,
        nested,
    })
}

fn lists_of_texts() -> impl Strategy<Value = Texts> {
    let pairs = prop::collection::vec((any::<u16>(), prop::option::of(texts())), 0..3);
    let parts = (
        prop::collection::vec(prop::option::of(texts()), 0..5),
        (any::<u8>(), texts(), any::<(bool, char)>()),
        prop::collection::btree_map(texts(), pairs, 0..8),
        prop::collection::btree_set(any::<char>(), 0..40),
    );
    parts.prop_map(|(tags, triple, by_name, letters)| Texts { tags, triple, by_name, letters })
}

fn orders() -> impl Strategy<Value = Order> {
    let flat = || {
        (sides(), numbers(), lists_of_texts(), values()).prop_map(|(side, numbers, texts, detail)| Order {
            side,
            numbers,
            texts,
            owner: None,
            detail,
        })
    };
    (flat(), prop::option::of(flat())).prop_map(|(order, owner)| Order { owner: owner.map(Box::new), ..order })
}

fn trades() -> impl Strategy<Value = Trade> {
    let leg = || (texts(), any::<u32>()).prop_map(|(name, size)| Leg { name, size });
    let parts = (
        any::<u64>(),
        texts(),
        prop::option::of(texts()),
        prop::collection::vec(any::<u64>(), 0..8),
        prop::collection::vec(texts(), 0..5),
        (any::<i16>(), texts()),
        leg(),
        prop::collection::vec(leg(), 0..5),
        quotes(),
    );
    parts.prop_map(|(seq, symbol, note, amounts, tags, pair, first, legs, quote)| Trade {
        seq,
        symbol,
        note,
        amounts,
        tags,
        pair,
        first,
        legs,
        quote,
    })
}

/// A way to do damage.
#[derive(Clone, Debug)]
enum Damage {
    Flip(Index, u8),
    /// Eight bytes of another place, which make offsets and lengths that point to something.
    Copy(Index, Index),
    Cut(Index),
    CutFront(Index),
    /// The most that a length or an offset can be, and values around zero.
    Extreme(Index, i32),
}

fn damages() -> impl Strategy<Value = Vec<Damage>> {
    let extreme = select(vec![i32::MIN, i32::MAX, -1, 0, 1, -8, 8]);
    let damage = prop_oneof![
        6 => (any::<Index>(), 1..=u8::MAX).prop_map(|(at, bits)| Damage::Flip(at, bits)),
        3 => any::<(Index, Index)>().prop_map(|(from, to)| Damage::Copy(from, to)),
        1 => any::<Index>().prop_map(Damage::Cut),
        1 => any::<Index>().prop_map(Damage::CutFront),
        3 => (any::<Index>(), extreme).prop_map(|(at, value)| Damage::Extreme(at, value)),
    ];
    prop::collection::vec(damage, 1..5)
}

fn damaged(bytes: &[u8], damages: &[Damage]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for damage in damages {
        let len = bytes.len();
        if len < 16 {
            break;
        }
        match *damage {
            Damage::Flip(at, bits) => bytes[at.index(len)] ^= bits,
            Damage::Copy(from, to) => {
                let from = from.index(len - 7);
                bytes.copy_within(from..from + 8, to.index(len - 7));
            }
            Damage::Cut(at) => bytes.truncate(at.index(len)),
            Damage::CutFront(at) => drop(bytes.drain(..at.index(len))),
            Damage::Extreme(at, value) => {
                let at = at.index(len / 4) * 4;
                bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            }
        }
    }
    bytes
}

/// The bytes are refused, or are a message: it can be shown and owned, and what is owned arrives when it is sent again.
fn refused_or_a_message<T: Message + Debug>(bytes: &[u8])
where
    <T as rkyv::Archive>::Archived: Debug,
{
    let received = received(bytes);
    let view = match T::view(&received) {
        Ok(view) => view,
        Err(error) => {
            assert!(error.to_string().contains("bytes received are not a valid"), "{error}");
            return;
        }
    };
    let _shown = format!("{view:?}");
    let owned = T::own(view);
    let again = with_encoded::<T, _, _>(&owned, |bytes| T::own(T::view(bytes).unwrap())).unwrap();
    assert_eq!(format!("{again:?}"), format!("{owned:?}"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_order_comes_back(order in orders()) {
        prop_assert_eq!(round_trip::<Order>(&order), order);
    }

    #[test]
    fn any_quotes_come_back_by_themselves_and_in_a_message(quotes in prop::collection::vec(quotes(), 0..20)) {
        let bytes = encoded::<[Quote]>(&quotes);
        prop_assert_eq!(<[Quote]>::view(&bytes).unwrap(), &quotes[..]);
        prop_assert_eq!(&round_trip::<Vec<Quote>>(&quotes), &quotes);
        for quote in &quotes {
            prop_assert_eq!(&round_trip::<Quote>(quote), quote);
        }
    }

    #[test]
    fn any_twin_writes_the_bytes_of_its_message(trade in trades()) {
        let tags: Vec<&str> = trade.tags.iter().map(String::as_str).collect();
        let legs: Vec<_> = trade.legs.iter().map(|leg| LegRef { name: &leg.name, size: leg.size }).collect();
        let twin = TradeRef {
            seq: trade.seq,
            symbol: &trade.symbol,
            note: trade.note.as_deref(),
            amounts: &trade.amounts,
            tags: &tags,
            pair: (trade.pair.0, &trade.pair.1),
            first: &trade.first,
            legs: &legs,
            quote: trade.quote,
        };
        prop_assert_eq!(&*encoded::<Trade>(&twin), &*encoded::<Trade>(&trade));
        prop_assert_eq!(round_trip::<Trade>(&twin), trade);
    }

    #[test]
    fn a_damaged_order_is_refused_or_is_a_message(order in orders(), damages in damages()) {
        refused_or_a_message::<Order>(&damaged(&encoded::<Order>(&order), &damages));
    }

    #[test]
    fn a_damaged_trade_is_refused_or_is_a_message(trade in trades(), damages in damages()) {
        refused_or_a_message::<Trade>(&damaged(&encoded::<Trade>(&trade), &damages));
    }

    #[test]
    fn damaged_arguments_are_refused_or_are_arguments(
        args in prop::collection::vec(values(), 0..6).prop_map(Args),
        damages in damages(),
    ) {
        refused_or_a_message::<Args>(&damaged(&encoded::<Args>(&args), &damages));
    }

    #[test]
    fn damaged_quotes_are_refused_by_their_length_alone(
        quotes in prop::collection::vec(quotes(), 1..6),
        damages in damages(),
    ) {
        let bytes = damaged(&encoded::<[Quote]>(&quotes), &damages);
        let fits = bytes.len().is_multiple_of(size_of::<Quote>());
        prop_assert_eq!(<[Quote]>::view(&received(&bytes)).is_ok(), fits);
    }
}

proptest! {
    // Each case is twice as many checks as its archive has bytes.
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_part_of_an_order_is_refused_or_is_a_message(order in orders()) {
        every_part::<Order>(&encoded::<Order>(&order));
    }

    #[test]
    fn every_part_of_a_trade_is_refused_or_is_a_message(trade in trades()) {
        every_part::<Trade>(&encoded::<Trade>(&trade));
    }

    #[test]
    fn every_part_of_arguments_is_refused_or_is_arguments(args in prop::collection::vec(values(), 0..4).prop_map(Args)) {
        every_part::<Args>(&encoded::<Args>(&args));
    }
}

/// All that is left when an archive is cut short at either end.
fn every_part<T: Message + Debug>(bytes: &[u8])
where
    <T as rkyv::Archive>::Archived: Debug,
{
    for cut in 0..bytes.len() {
        refused_or_a_message::<T>(&bytes[..cut]);
        refused_or_a_message::<T>(&bytes[cut..]);
    }
}
