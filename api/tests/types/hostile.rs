//! Archives that no sender wrote, made to a plan: the check ends, does not panic, and what it lets through can be read.
//! Those that are damaged at random are beside the fuzzers (`api/src/fuzzing/damage.rs`).

use std::{collections::BTreeMap, fmt::Debug, time::Duration};

use memit::{MAX_DEPTH, Message, Payload, Value, rkyv};

use crate::nested::arrays;
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

/// Reads all of an archive that is valid.
fn read<T: Message + Debug>(bytes: &[u8])
where
    <T as rkyv::Archive>::Archived: Debug,
{
    let bytes = received(bytes);
    let view = T::view(&bytes).unwrap();
    let _ = (format!("{view:?}"), format!("{:?}", T::own(view)));
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
