//! Bytes of any origin as archives: the check ends, and what it lets through can be read, copied, compared and sent on.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{Debug, Write},
    num::NonZeroU16,
    time::Duration,
};

use crate::{
    Args, EncodeError, Failure, Message, Payload, Value,
    encode::with_encoded,
    rkyv::{self, util::AlignedVec},
};

/// Nothing longer is made of an input: eight times the longest message in a frame, and enough for 16,384 levels of values,
/// where 3,000 would exhaust the stack.
const MOST: usize = 256 << 10;

#[memit::message]
#[derive(Debug)]
struct Chain {
    next: Option<Box<Chain>>,
}

#[memit::message]
#[derive(Debug)]
enum Tree {
    Leaf(String),
    Node(Vec<Tree>),
    Pair(Box<(Tree, Tree)>),
    Slice(Box<[Tree]>),
    Map(BTreeMap<String, Tree>),
    Dynamic(Value),
}

#[memit::message]
#[derive(Debug)]
struct Everything {
    text: String,
    boxed: Box<str>,
    letter: char,
    flag: bool,
    after: Duration,
    counted: NonZeroU16,
    option: Option<Vec<u16>>,
    sorted: BTreeMap<u32, String>,
    set: BTreeSet<String>,
    tree: Tree,
    value: Value,
    failure: Failure,
    tuple: (u8, i128, [f32; 2]),
}

/// Whatever has no bytes where many of it may be.
#[memit::message]
#[derive(Debug)]
struct Nothings {
    units: [(); 1000],
    boxed: Box<()>,
    options: Vec<Option<()>>,
    set: BTreeSet<()>,
    map: BTreeMap<(), ()>,
    valued: BTreeMap<u8, ()>,
    keyed: BTreeMap<(), u8>,
    sets: Vec<BTreeSet<[(); 3]>>,
    empty: Vec<Option<Box<Empty>>>,
    arrays: Box<[Box<[u64; 0]>]>,
}

#[memit::message]
#[derive(Debug)]
struct Empty;

#[memit::message]
#[derive(Debug)]
enum Code {
    Ok = 3,
    Lost = 200,
}

/// The bytes that an input stands for, aligned as a message is: after a byte of 0 the input itself, else a unit that is
/// repeated, so that few bytes nest to the limit of size.
///
/// ```text
/// 1 | how often, u32 | length of the unit | length of what stands before | unit, before, behind
/// ```
fn archive(input: &[u8]) -> AlignedVec<16> {
    let mut archive = AlignedVec::with_capacity(16);
    match input {
        [1, a, b, c, d, unit, before, rest @ ..] => {
            let (unit, rest) = rest.split_at(rest.len().min((*unit).into()));
            let (before, behind) = rest.split_at(rest.len().min((*before).into()));
            let room = MOST.saturating_sub(before.len() + behind.len());
            let often = room.checked_div(unit.len()).unwrap_or(0).min(u32::from_le_bytes([*a, *b, *c, *d]) as usize);
            archive.extend_from_slice(before);
            (0..often).for_each(|_| archive.extend_from_slice(unit));
            archive.extend_from_slice(behind);
        }
        [_, rest @ ..] => archive.extend_from_slice(rest),
        [] => {}
    }
    archive
}

/// Takes text, and nothing of it.
struct Sink;

impl Write for Sink {
    fn write_str(&mut self, _: &str) -> std::fmt::Result {
        Ok(())
    }
}

/// Text up to a length, beyond which nothing is compared.
struct Beginning(String);

impl Write for Beginning {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.push_str(text);
        if self.0.len() > 1 << 16 { Err(std::fmt::Error) } else { Ok(()) }
    }
}

fn beginning(of: &impl Debug) -> String {
    let mut text = Beginning(String::new());
    let _ = write!(text, "{of:?}");
    text.0
}

/// Checks the bytes, reads all that the check lets through, and sends it on.
fn read<T: Message + Debug>(bytes: &[u8])
where
    <T as rkyv::Archive>::Archived: Debug,
{
    let view = match T::view(bytes) {
        Ok(view) => view,
        Err(error) => {
            assert!(error.to_string().contains("bytes received are not a valid"));
            return;
        }
    };
    let _ = write!(Sink, "{view:?}");
    let owned = T::own(view);
    let arrived = with_encoded::<T, _, _>(&owned, |bytes| {
        let mut sent: AlignedVec<16> = AlignedVec::new();
        sent.extend_from_slice(bytes);
        T::own(T::view(&sent).expect("what is sent is valid"))
    });
    match arrived {
        Ok(arrived) => assert_eq!(beginning(&arrived), beginning(&owned)),
        // Senders draw the line for trees and dynamic values a little nearer than receivers.
        Err(error) => assert!(matches!(error, EncodeError::TooDeep { .. }), "{error}"),
    }
}

pub fn dynamic_values(input: &[u8]) {
    let Some((which, input)) = input.split_first() else { return };
    let bytes = archive(input);
    if which & 1 == 1 {
        read::<Value>(&bytes);
        return;
    }
    read::<Args>(&bytes);
    let Ok(view) = Args::view(&bytes) else { return };
    let owned = view.to_owned();
    assert_eq!(view.to_string(), owned.to_string());
    assert_eq!((view.len(), view.is_empty()), (owned.len(), owned.is_empty()));
    for (ours, theirs) in owned.iter().zip(view) {
        assert_eq!((ours.as_str(), ours.as_i64()), (theirs.as_str(), theirs.as_i64()));
        assert_eq!((ours.as_u64(), ours.as_bool()), (theirs.as_u64(), theirs.as_bool()));
        assert_eq!((ours.as_bytes(), ours.is_null()), (theirs.as_bytes(), theirs.is_null()));
        assert_eq!(ours.as_f64().map(f64::to_bits), theirs.as_f64().map(f64::to_bits));
        assert_eq!(ours.as_array().map(<[Value]>::len), theirs.as_array().map(<[crate::ArchivedValue]>::len));
        for (key, _) in theirs.as_map().into_iter().flat_map(|map| map.iter().take(50)) {
            let (ours, theirs) = (ours.get(key), theirs.get(key));
            assert_eq!(ours.map(Value::to_string), theirs.map(ToString::to_string));
        }
    }
}

pub fn typed_archives(input: &[u8]) {
    let Some((which, input)) = input.split_first() else { return };
    let bytes = archive(input);
    match which {
        0 => read::<Everything>(&bytes),
        1 => read::<Tree>(&bytes),
        2 => read::<Chain>(&bytes),
        3 => read::<Nothings>(&bytes),
        4 => read::<Failure>(&bytes),
        5 => {
            read::<BTreeMap<u8, u16>>(&bytes);
            if let Ok(view) = <BTreeMap<u8, u16>>::view(&bytes) {
                let _ = (0..=u8::MAX).filter_map(|key| view.get(&key)).count();
            }
        }
        6 => read::<BTreeMap<(), (Code, Empty)>>(&bytes),
        7 => read::<Vec<Option<Box<str>>>>(&bytes),
        8 => read::<BTreeSet<()>>(&bytes),
        9 => read::<Box<[(u64, char, Vec<Code>)]>>(&bytes),
        10 => {
            let _ = <str>::view(&bytes).map(str::to_owned);
            let _ = <[u32]>::view(&bytes).map(<[u32]>::to_vec);
            let _ = <[f64]>::view(&bytes).map(<[f64]>::to_vec);
        }
        _ => read::<Vec<BTreeMap<(), Tree>>>(&bytes),
    }
}

/// Archives that were sent, and some that nobody sends.
#[cfg(test)]
pub(super) mod seeds {
    use super::*;

    type Seeds = Vec<(&'static str, Vec<u8>)>;

    fn sent<T: Payload>(which: u8, message: &T) -> Vec<u8> {
        with_encoded::<T, _, _>(message, |bytes| [&[which, 0], bytes].concat()).unwrap()
    }

    fn repeated(which: u8, often: u32, unit: &[u8], before: &[u8], behind: &[u8]) -> Vec<u8> {
        let lengths = [unit.len() as u8, before.len() as u8];
        [&[which, 1], &often.to_le_bytes()[..], &lengths, unit, before, behind].concat()
    }

    /// An array of values that holds the one before it.
    fn array() -> Vec<u8> {
        let content = [7_i32, -20, 1, 0].map(i32::to_le_bytes);
        content.concat()
    }

    /// An option of a box that leads to the one before it.
    const LINK: [u8; 8] = [1, 0, 0, 0, 0xf4, 0xff, 0xff, 0xff];

    pub(in crate::fuzzing) fn dynamic() -> Seeds {
        let all = crate::args![null, true, -7, u64::MAX, 0.5, "in place", "a text that lies elsewhere", b"bytes", [1, [2, []]],
            {"a": 1, "a": {"long enough to lie elsewhere": [null]}}];
        let vec_of_one = [-16_i32, 1].map(i32::to_le_bytes).concat();
        // As many elements as a length can say, where there is one.
        let endless = [-16_i32, -1].map(i32::to_le_bytes).concat();
        vec![
            ("args", sent(0, &all)),
            ("args_none", sent(0, &Args::new())),
            ("value", sent(1, &Value::Array(all.0))),
            ("value_as_deep_as_it_may", repeated(1, 126, &array(), &[0; 16], &[])),
            ("value_one_deeper", repeated(1, 127, &array(), &[0; 16], &[])),
            ("value_to_the_limit_of_size", repeated(1, u32::MAX, &array(), &[0; 16], &[])),
            ("args_as_deep_as_they_may", repeated(0, 125, &array(), &[0; 16], &vec_of_one)),
            ("args_to_the_limit_of_size", repeated(0, u32::MAX, &array(), &[0; 16], &vec_of_one)),
            ("args_without_end", repeated(0, 1, &[], &[0; 16], &endless)),
            ("args_of_16000_nulls", {
                let offset = -16_i32 * 16_000;
                repeated(0, 16_000, &[0; 16], &[], &[offset, 16_000].map(i32::to_le_bytes).concat())
            }),
        ]
    }

    fn everything() -> Everything {
        Everything {
            text: "long enough to be elsewhere".into(),
            boxed: "boxed".into(),
            letter: 'ß',
            flag: true,
            after: Duration::from_millis(1500),
            counted: NonZeroU16::MIN,
            option: Some(vec![1, 2, 3]),
            sorted: (0..40).map(|n| (n, format!("value {n}"))).collect(),
            set: ["a", "bb", "a longer string"].map(String::from).into(),
            tree: tree(),
            value: crate::value!({"list": [1, 2.5, null, "text"], "map": {}}),
            failure: Failure::new("it failed").caused_by("a cause"),
            tuple: (1, -2, [3.0, 4.0]),
        }
    }

    fn tree() -> Tree {
        Tree::Node(vec![
            Tree::Leaf("leaf".into()),
            Tree::Pair(Box::new((Tree::Leaf("a leaf with a long name".into()), Tree::Node(vec![])))),
            Tree::Map([("k".to_string(), Tree::Dynamic(crate::value!([1, {"a": "b"}])))].into()),
            Tree::Slice([Tree::Leaf(String::new())].into()),
        ])
    }

    fn nothings() -> Nothings {
        Nothings {
            units: [(); 1000],
            boxed: Box::new(()),
            options: vec![Some(()), None],
            set: [()].into(),
            map: [((), ())].into(),
            valued: (0..40).map(|n| (n, ())).collect(),
            keyed: [((), 1)].into(),
            sets: vec![[[(); 3]].into(), BTreeSet::new()],
            empty: vec![Some(Box::new(Empty))],
            arrays: [Box::new([])].into(),
        }
    }

    pub(in crate::fuzzing) fn typed() -> Seeds {
        // A set of nothing whose root is a leaf of as many entries as a length can say.
        let full_leaf = [0_i32, -1, -8, -1].map(i32::to_le_bytes).concat();
        vec![
            ("everything", sent(0, &everything())),
            ("tree", sent(1, &tree())),
            ("chain_as_deep_as_it_may", repeated(2, 126, &LINK, &[0; 8], &[])),
            ("chain_one_deeper", repeated(2, 127, &LINK, &[0; 8], &[])),
            ("chain_to_the_limit_of_size", repeated(2, u32::MAX, &LINK, &[0; 8], &[])),
            ("nothings", sent(3, &nothings())),
            ("failure", sent(4, &Failure::new("it failed").caused_by("a cause"))),
            ("map", sent(5, &(0..60).map(|n| (n, n.into())).collect::<BTreeMap<u8, u16>>())),
            ("codes", sent(6, &BTreeMap::from([((), (Code::Ok, Empty))]))),
            ("boxed_texts", sent(7, &vec![Some(Box::<str>::from("text")), None])),
            ("set_of_nothing", sent(8, &BTreeSet::from([()]))),
            ("set_of_nothing_without_end", [&[8, 0], &full_leaf[..]].concat()),
            ("slice", sent(9, &Box::<[(u64, char, Vec<Code>)]>::from([(1, 'x', vec![Code::Ok])]))),
            ("plain", [&[10, 0], &b"text with 24 bytes, as is"[..24]].concat()),
            ("maps_of_nothing", sent(11, &vec![BTreeMap::from([((), tree())])])),
        ]
    }

    /// Whether a seed's bytes pass the check for its type.
    fn is_valid<T: Message>(seeds: &Seeds, name: &str) -> bool {
        let (_, seed) = seeds.iter().find(|(other, _)| *other == name).expect("there is such a seed");
        T::view(&archive(&seed[1..])).is_ok()
    }

    #[test]
    fn seeds_lie_on_both_sides_of_each_limit() {
        let (dynamic, typed) = (dynamic(), typed());
        assert!(is_valid::<Value>(&dynamic, "value") && is_valid::<Args>(&dynamic, "args"));
        assert!(is_valid::<Value>(&dynamic, "value_as_deep_as_it_may"));
        assert!(!is_valid::<Value>(&dynamic, "value_one_deeper"));
        assert!(!is_valid::<Value>(&dynamic, "value_to_the_limit_of_size"));
        assert!(is_valid::<Args>(&dynamic, "args_as_deep_as_they_may"));
        assert!(is_valid::<Args>(&dynamic, "args_of_16000_nulls"));
        assert!(!is_valid::<Args>(&dynamic, "args_without_end"));
        assert!(is_valid::<Everything>(&typed, "everything") && is_valid::<Nothings>(&typed, "nothings"));
        assert!(is_valid::<Chain>(&typed, "chain_as_deep_as_it_may"));
        assert!(!is_valid::<Chain>(&typed, "chain_one_deeper"));
        assert!(!is_valid::<Chain>(&typed, "chain_to_the_limit_of_size"));
        assert!(is_valid::<BTreeSet<()>>(&typed, "set_of_nothing"));
        assert!(!is_valid::<BTreeSet<()>>(&typed, "set_of_nothing_without_end"));
    }
}
