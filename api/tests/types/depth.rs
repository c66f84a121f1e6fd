//! What nests deeper than its receiver takes is refused when it is sent, and nothing else is.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem::ManuallyDrop,
};

use memit::{
    EncodeAs, EncodeError, MAX_DEPTH, Message, Payload, Value,
    encode::{Encoder, with_encoded},
    value::MAX_NESTING,
};
use proptest::prelude::*;

use crate::support::{encoded, on_a_small_stack, received};

#[memit::message]
#[derive(Clone, Debug)]
enum Nest {
    Nothing,
    Text(String),
    BoxedText(Box<str>),
    Numbers(Vec<u64>),
    BoxedNumbers(Box<[u64]>),
    Names(BTreeSet<String>),
    Dynamic(Value),
    Boxed(Box<Nest>),
    Many(Vec<Nest>),
    Slice(Box<[Nest]>),
    Array([Vec<Nest>; 2]),
    Optional { before: u8, inner: Option<Box<Nest>> },
    Pair(Box<(String, Nest)>),
    Map(BTreeMap<u32, Nest>),
    Other(Other<Nest>),
}

// Recursion through another type.
#[memit::message]
#[derive(Clone, Debug)]
struct Other<T> {
    label: String,
    inner: Box<T>,
}

const LONG: &str = "a text that does not fit in place";

fn leaves() -> Vec<Nest> {
    vec![
        Nest::Nothing,
        Nest::Text("in place".into()),
        Nest::Text(LONG.into()),
        Nest::BoxedText("".into()),
        Nest::Numbers(vec![]),
        Nest::Numbers(vec![1, 2]),
        Nest::BoxedNumbers([1].into()),
        Nest::Names(BTreeSet::new()),
        Nest::Names(["short".into()].into()),
        Nest::Names(["short".into(), LONG.into()].into()),
        Nest::Dynamic(Value::Null),
        Nest::Dynamic("in place".into()),
        Nest::Dynamic(LONG.into()),
        Nest::Dynamic(b"".into()),
        Nest::Dynamic(memit::value!([[], {LONG: [LONG]}])),
        Nest::Dynamic(memit::value!([[], {"short": null}])),
        Nest::Array([vec![], vec![]]),
        Nest::Optional { before: 1, inner: None },
        Nest::Map(BTreeMap::new()),
    ]
}

const WRAPPERS: [fn(Nest) -> Nest; 11] = [
    |inner| Nest::Boxed(Box::new(inner)),
    |inner| Nest::Many(vec![Nest::Nothing, inner]),
    |inner| Nest::Slice([inner, Nest::Nothing].into()),
    |inner| Nest::Array([vec![], vec![inner]]),
    |inner| Nest::Optional { before: 1, inner: Some(Box::new(inner)) },
    |inner| Nest::Pair(Box::new((LONG.into(), inner))),
    |inner| Nest::Map([(7, inner)].into()),
    |inner| {
        Nest::Map([(1, inner), (2, Nest::Nothing), (3, Nest::Nothing), (4, Nest::Nothing), (5, Nest::Nothing)].into())
    },
    |inner| Nest::Other(Other { label: LONG.into(), inner: Box::new(inner) }),
    // The first entries stand lowest in a tree.
    |inner| Nest::Map((1..36).map(|key| (key, Nest::Nothing)).chain([(0, inner)]).collect()),
    |inner| Nest::Map((1..6).map(|key| (key, Nest::Nothing)).chain([(0, inner)]).collect()),
];

/// A sender that does not ask how deep its message is.
struct Unasked<'a, T>(&'a T);

impl<T: Message> EncodeAs<T> for Unasked<'_, T> {
    fn encode_as(&self, out: &mut Encoder) -> Result<(), EncodeError> {
        out.archive(self.0)
    }
}

/// Whether `message` arrives, for a sender and a receiver that agree about it.
#[track_caller]
fn arrives<T: Message>(message: &T) -> bool {
    let bytes = encoded::<T>(&Unasked(message));
    match (with_encoded::<T, _, _>(message, received), T::view(&bytes)) {
        (Ok(sent), Ok(_)) => {
            assert_eq!(*sent, *bytes);
            true
        }
        (Err(refused), Err(invalid)) => {
            assert_eq!(refused, EncodeError::TooDeep { limit: MAX_DEPTH.try_into().unwrap() });
            assert!(invalid.is_limit(), "{invalid}");
            assert_eq!(
                refused.to_string(),
                "the message nests deeper than the 128 levels that its receiver takes; send it flatter"
            );
            false
        }
        (sent, view) => panic!("sender: {:?}, receiver: {:?}", sent.map(|_| ()), view.map(|_| ())),
    }
}

#[test]
fn sender_and_receiver_draw_one_line_for_every_container_and_content() {
    on_a_small_stack(|| {
        for wrap in WRAPPERS {
            for leaf in leaves() {
                let deep = (0..55).fold(leaf, |inner, _| wrap(inner));
                let (mut arrived, mut refused) = (0, 0);
                (0..75).fold(deep, |deep, _| {
                    let deep = WRAPPERS[0](deep);
                    if arrives(&deep) {
                        arrived += 1
                    } else {
                        refused += 1
                    }
                    deep
                });
                // At one level each the line is passed at 127 levels; trees of two or three levels pass it earlier.
                assert!(refused > 0 && (arrived > 0 || matches!(wrap(Nest::Nothing), Nest::Map(map) if map.len() > 5)));
            }
        }
    });
}

#[test]
fn in_a_tree_no_entry_is_sent_that_would_not_arrive() {
    on_a_small_stack(|| {
        for entries in [6_u32, 7, 20, 35, 36, 37, 215, 216] {
            for at in [0, entries / 2, entries - 1] {
                for levels in 118..126 {
                    let deep = (0..levels).fold(Nest::Nothing, |inner, _| WRAPPERS[0](inner));
                    let others = (0..entries).filter(|key| *key != at).map(|key| (key, Nest::Nothing));
                    let map: BTreeMap<u32, Nest> = others.chain([(at, deep)]).collect();
                    if with_encoded::<BTreeMap<u32, Nest>, _, _>(&map, |_| ()).is_ok() {
                        assert!(arrives(&map));
                    } else {
                        assert!(levels > 122);
                    }
                }
            }
        }
    });
}

proptest! {
    #[test]
    fn sender_and_receiver_draw_one_line_for_any_mixture(
        leaf in prop::sample::select(leaves()),
        wrappers in prop::collection::vec(0..WRAPPERS.len() - 2, 118..128),
    ) {
        on_a_small_stack(move || arrives(&wrappers.into_iter().fold(leaf, |inner, index| WRAPPERS[index](inner))));
    }
}

#[test]
fn a_value_that_nests_as_deep_as_it_may_can_be_too_deep_where_it_stands() {
    type Five = Box<Vec<Option<Box<Vec<Box<Value>>>>>>;
    let five = |value: Value| -> Five { Box::new(vec![Some(Box::new(vec![Box::new(value)]))]) };
    let nested = |leaf: Value, levels| (0..levels).fold(leaf, |inner, _| Value::Array(vec![inner]));
    on_a_small_stack(move || {
        assert!(arrives(&five(nested(LONG.into(), MAX_NESTING))));
        assert!(arrives(&vec![five(nested(Value::Null, MAX_NESTING))]));
        assert!(!arrives(&vec![five(nested(LONG.into(), MAX_NESTING))]));
        assert!(arrives(&vec![five(nested(LONG.into(), MAX_NESTING - 1))]));
        assert!(!arrives(&vec![five(nested(memit::value!({LONG: 1}), MAX_NESTING - 1))]));
    });
}

#[memit::message]
struct Holder {
    text: String,
    many: Vec<Other<Nest>>,
    lists: [Option<Vec<String>>; 2],
}

#[memit::message(as = Holder)]
struct HolderRef<'a> {
    text: &'a str,
    many: &'a [OtherRef<'a>],
    lists: [Option<&'a [&'a str]>; 2],
}

#[memit::message(as = Other<Nest>)]
struct OtherRef<'a> {
    label: &'a str,
    inner: Box<Nest>,
}

#[test]
fn a_twin_is_refused_where_its_message_is() {
    on_a_small_stack(|| {
        let mut arrived = 0;
        for levels in 118..128 {
            let inner = (0..levels).fold(Nest::Nothing, |inner, _| WRAPPERS[0](inner));
            let holder = Holder {
                text: LONG.into(),
                many: vec![Other { label: LONG.into(), inner: Box::new(inner.clone()) }],
                lists: [None, Some(vec![LONG.into()])],
            };
            let twin = HolderRef {
                text: LONG,
                many: &[OtherRef { label: LONG, inner: Box::new(inner) }],
                lists: [None, Some(&[LONG])],
            };
            let sent = with_encoded::<Holder, _, _>(&twin, |_| ());
            assert_eq!(sent.is_ok(), arrives(&holder));
            assert_eq!(with_encoded::<Vec<Other<Nest>>, _, _>(twin.many, |_| ()).is_ok(), arrives(&holder.many));
            arrived += u32::from(sent.is_ok());
        }
        assert!((1..10).contains(&arrived));
    });
}

#[test]
fn a_message_without_end_is_refused_before_it_exhausts_the_senders_stack() {
    on_a_small_stack(|| {
        // Dropping it would.
        let endless = ManuallyDrop::new((0..1_000_000).fold(Nest::Nothing, |inner, _| WRAPPERS[0](inner)));
        let refused = with_encoded::<Nest, _, _>(&*endless, |_| ()).unwrap_err();
        assert_eq!(refused, EncodeError::TooDeep { limit: MAX_DEPTH.try_into().unwrap() });
    });
}
