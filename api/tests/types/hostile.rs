//! Bytes that no sender wrote: the check ends, does not panic, and what it lets through can be read.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{Debug, Write},
    time::Duration,
};

use memit::{Args, Failure, MAX_DEPTH, Message, Payload, Value, args, rkyv};
use proptest::prelude::*;

use crate::support::{encoded, on_a_small_stack, received};

#[memit::message]
#[derive(Clone, Debug)]
struct Chain {
    next: Option<Box<Chain>>,
}

#[memit::message]
#[derive(Clone, Debug)]
enum Tree {
    Leaf(String),
    Node(Vec<Tree>),
    Pair(Box<(Tree, Tree)>),
    Map(BTreeMap<String, Tree>),
}

#[memit::message]
#[derive(Clone, Debug)]
struct Everything {
    text: String,
    boxed: Box<str>,
    letter: char,
    flag: bool,
    after: Duration,
    counted: std::num::NonZeroU16,
    option: Option<Vec<u16>>,
    sorted: BTreeMap<u32, String>,
    sorted_set: BTreeSet<String>,
    tree: Tree,
    value: Value,
    failure: Failure,
    tuple: (u8, i128, [f32; 2]),
}

fn everything() -> Everything {
    Everything {
        text: "long enough to be elsewhere".into(),
        boxed: "boxed".into(),
        letter: 'ß',
        flag: true,
        after: Duration::from_millis(1500),
        counted: std::num::NonZeroU16::MIN,
        option: Some(vec![1, 2, 3]),
        sorted: (0..40).map(|n| (n, format!("value {n}"))).collect(),
        sorted_set: ["a", "bb", "a longer string"].map(String::from).into(),
        tree: Tree::Node(vec![
            Tree::Leaf("leaf".into()),
            Tree::Pair(Box::new((Tree::Leaf("a leaf with a long name".into()), Tree::Node(vec![])))),
            Tree::Map([("k".to_string(), Tree::Leaf("v".into()))].into()),
        ]),
        value: memit::value!({"list": [1, 2.5, null, "text"], "map": {}}),
        failure: Failure::new("it failed").caused_by("a cause"),
        tuple: (1, -2, [3.0, 4.0]),
    }
}

/// Checks the bytes, and reads all that the check lets through.
fn read<T: Message + Debug>(bytes: &[u8])
where
    <T as rkyv::Archive>::Archived: Debug,
{
    match T::view(&received(bytes)) {
        Ok(view) => {
            let mut sink = Sink(0);
            let _ = write!(sink, "{view:?}");
            let owned = T::own(view);
            let _ = write!(sink, "{owned:?}");
        }
        Err(error) => assert!(error.to_string().contains("bytes received are not a valid")),
    }
}

/// Takes text, and nothing of it.
struct Sink(usize);

impl Write for Sink {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0 += text.len();
        Ok(())
    }
}

fn mutations() -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> {
    prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)
}

fn mutated(bytes: &[u8], mutations: &[(prop::sample::Index, u8)]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (index, value) in mutations {
        let index = index.index(bytes.len());
        bytes[index] ^= value;
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        read::<Everything>(&bytes);
        read::<Tree>(&bytes);
        read::<Args>(&bytes);
        read::<Value>(&bytes);
        read::<Failure>(&bytes);
        read::<BTreeMap<u8, String>>(&bytes);
        let bytes = received(&bytes);
        let _ = <str>::view(&bytes);
        let _ = <[u32]>::view(&bytes);
    }

    #[test]
    fn sparse_bytes(length in 0..300_usize, mutations in mutations()) {
        let bytes = mutated(&vec![0; length + 1], &mutations);
        read::<Everything>(&bytes);
        read::<Tree>(&bytes);
        read::<Args>(&bytes);
    }

    #[test]
    fn damaged_messages(mutations in mutations()) {
        read::<Everything>(&mutated(&encoded::<Everything>(&everything()), &mutations));
    }

    #[test]
    fn damaged_maps(mutations in mutations()) {
        let sorted: BTreeMap<u8, u16> = (0..60).map(|n| (n, n.into())).collect();
        let bytes = mutated(&encoded::<BTreeMap<u8, u16>>(&sorted), &mutations);
        read::<BTreeMap<u8, u16>>(&bytes);
        if let Ok(view) = <BTreeMap<u8, u16>>::view(&received(&bytes)) {
            let _ = (0..=u8::MAX).filter_map(|key| view.get(&key)).count();
        }
    }

    #[test]
    fn damaged_arguments(mutations in mutations()) {
        let args = args![1, "text that is long", [true, {"k": null, "l": [[]]}], b"bytes", 2.5];
        read::<Args>(&mutated(&encoded::<Args>(&args), &mutations));
    }
}

#[test]
fn messages_cut_short_at_either_end() {
    let bytes = encoded::<Everything>(&everything());
    for cut in 0..bytes.len() {
        read::<Everything>(&bytes[..cut]);
        read::<Everything>(&bytes[cut..]);
    }
}

#[test]
fn bytes_that_are_not_aligned_are_an_error() {
    let bytes = received(&[0; 64]);
    assert!(<u64>::view(&bytes[..9]).is_err());
    assert!(<[u64]>::view(&bytes[1..9]).is_err());
    let error = <[u64]>::view(&bytes[..12]).unwrap_err().to_string();
    assert_eq!(
        error,
        "the 12 bytes received are not a valid `[u64]`: not a multiple of 8 bytes; the sender is faulty, or hostile"
    );
}

/// An archive in which `levels` boxes, one in the other, hold a `None`.
fn chain(levels: u32) -> Vec<u8> {
    let mut bytes = vec![0; 8];
    for _ in 0..levels {
        bytes.extend([1, 0, 0, 0]);
        // From the offset itself, back over the tag, to the chain before.
        bytes.extend((-12_i32).to_le_bytes());
    }
    bytes
}

/// An archive in which `levels` arrays of values, one in the other, hold a null.
fn arrays(levels: u32) -> Vec<u8> {
    let mut bytes = vec![0; 16];
    for _ in 0..levels {
        bytes.extend([7, 0, 0, 0]);
        bytes.extend((-20_i32).to_le_bytes());
        bytes.extend(1_u32.to_le_bytes());
        bytes.extend([0; 4]);
    }
    bytes
}

#[test]
fn depth_is_refused_before_it_exhausts_the_stack() {
    on_a_small_stack(|| {
        for levels in [MAX_DEPTH, 1_000, 100_000, 1_000_000] {
            let levels = u32::try_from(levels).unwrap();
            let bytes = received(&chain(levels));
            let error = Chain::view(&bytes).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains("nests deeper than 128 levels"), "{error}");
            let bytes = received(&arrays(levels));
            let error = Value::view(&bytes).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains("nests deeper than 128 levels"), "{error}");
        }
    });
}

#[test]
fn the_deepest_that_is_let_through_can_be_read_copied_and_dropped() {
    on_a_small_stack(|| {
        // The root is a level of its own, and the limit is reached, not passed.
        let levels = u32::try_from(MAX_DEPTH).unwrap() - 2;
        Chain::view(&received(&chain(levels))).unwrap();
        Value::view(&received(&arrays(levels))).unwrap();
        read::<Chain>(&chain(levels));
        read::<Value>(&arrays(levels));
    });
}

#[test]
fn the_deepest_of_every_container_fits_into_a_stack() {
    on_a_small_stack(|| {
        let wrappers: [fn(Tree) -> Tree; 3] = [
            |inner| Tree::Node(vec![Tree::Leaf("beside it".into()), inner]),
            |inner| Tree::Pair(Box::new((inner, Tree::Leaf("a leaf with a long name".into())))),
            |inner| Tree::Map([("a key of some length".to_string(), inner)].into()),
        ];
        for wrap in wrappers {
            let deepest = (0..MAX_DEPTH - 3).fold(Tree::Node(vec![]), |inner, _| wrap(inner));
            let bytes = encoded::<Tree>(&deepest);
            Tree::view(&bytes).unwrap();
            read::<Tree>(&bytes);
        }
    });
}

#[test]
fn a_chain_that_bites_its_tail_is_an_error() {
    let mut bytes = chain(3);
    let length = bytes.len();
    // The last box points at itself.
    bytes[length - 4..].copy_from_slice(&(-4_i32).to_le_bytes());
    assert!(Chain::view(&received(&bytes)).is_err());
    bytes[length - 4..].copy_from_slice(&0_i32.to_le_bytes());
    assert!(Chain::view(&received(&bytes)).is_err());
}

#[test]
fn a_duration_that_would_overflow_is_an_error() {
    let mut bytes = [0xff; 16];
    bytes[12..].fill(0);
    assert!(Duration::view(&received(&bytes)).is_err());
}
