//! Archives of every target, damaged: what proptest makes of the seeds, for the same readers that the fuzzers drive.

use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
};

use super::{archives::seeds, dynamic_values, typed_archives};

/// The types of `typed_archives`, and of `dynamic_values`.
const TYPES: [u8; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
const DYNAMIC: [u8; 2] = [0, 1];

/// How the bytes behind the first two, which say what they are taken for, are changed.
fn damage() -> impl Strategy<Value = Vec<(Index, u8)>> {
    vec((any::<Index>(), any::<u8>()), 1..6)
}

fn damaged(input: &[u8], damage: &[(Index, u8)]) -> Vec<u8> {
    let mut input = input.to_vec();
    let bytes = &mut input[2..];
    for (index, value) in damage {
        bytes[index.index(bytes.len())] ^= value;
    }
    input
}

/// The seeds that hold an archive as it was sent.
fn sent(seeds: Vec<(&'static str, Vec<u8>)>) -> Vec<Vec<u8>> {
    seeds.into_iter().map(|(_, input)| input).filter(|input| input[1] == 0 && input.len() > 2).collect()
}

/// Has the bytes read as every type.
fn read_as_all(bytes: &[u8]) {
    for which in TYPES {
        typed_archives(&[&[which, 0], bytes].concat());
    }
    for which in DYNAMIC {
        dynamic_values(&[&[which, 0], bytes].concat());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn random_bytes_are_an_error_or_can_be_read(bytes in vec(any::<u8>(), 0..400)) {
        read_as_all(&bytes);
    }

    #[test]
    fn bytes_that_are_mostly_zero_are_an_error_or_can_be_read(length in 1..300_usize, damage in damage()) {
        read_as_all(&damaged(&vec![0; length + 2], &damage)[2..]);
    }

    #[test]
    fn a_damaged_message_is_an_error_or_can_be_read(input in select(sent(seeds::typed())), damage in damage()) {
        typed_archives(&damaged(&input, &damage));
    }

    #[test]
    fn damaged_dynamic_values_are_an_error_or_can_be_read(input in select(sent(seeds::dynamic())), damage in damage()) {
        dynamic_values(&damaged(&input, &damage));
    }
}

#[test]
fn a_message_that_is_cut_short_at_either_end_is_an_error_or_can_be_read() {
    for (seeds, read) in [(seeds::typed(), typed_archives as fn(&[u8])), (seeds::dynamic(), dynamic_values)] {
        for input in sent(seeds) {
            let (what, bytes) = input.split_at(2);
            for cut in 0..bytes.len() {
                read(&[what, &bytes[..cut]].concat());
                read(&[what, &bytes[cut..]].concat());
            }
        }
    }
}
