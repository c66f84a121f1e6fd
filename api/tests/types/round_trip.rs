use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
    time::Duration,
};

use memit::{Payload, encode::with_encoded};
use proptest::prelude::*;

use crate::support::{encoded, round_trip};

#[memit::message]
#[derive(Clone, Debug, PartialEq)]
struct Tick {
    seq: u64,
    symbol: String,
    price: f64,
}

#[memit::message]
#[derive(Clone, Debug, PartialEq)]
enum Shape {
    Empty,
    Circle { center: (f32, f32), radius: f32 },
    Polygon(Vec<(f32, f32)>),
    Group(Vec<Shape>),
    Boxed(Box<Self>),
}

#[memit::message]
#[derive(Clone, Debug, PartialEq)]
struct Wrapper<T> {
    inner: T,
    many: Vec<T>,
    next: Option<Box<Wrapper<T>>>,
}

#[memit::message]
#[derive(Clone, Debug, PartialEq)]
struct Everything {
    numbers: (u8, i16, u32, i64),
    wide_numbers: (u128, i128),
    floats: (f32, f64),
    flag: bool,
    letter: char,
    nothing: (),
    text: String,
    boxed_text: Box<str>,
    boxed_slice: Box<[u16]>,
    after: Duration,
    counted: NonZeroU32,
    array: [[u8; 3]; 2],
    sorted: BTreeMap<String, Vec<u64>>,
    sorted_set: BTreeSet<i32>,
    wrapped: Wrapper<Option<String>>,
    dynamic: memit::Value,
    r#type: u8,
}

// Each contains the other.
#[memit::message]
#[derive(Clone, Debug, PartialEq)]
struct Statement {
    label: String,
    body: Vec<Expression>,
}

#[memit::message]
#[derive(Clone, Debug, PartialEq)]
enum Expression {
    Number(i64),
    Block(Vec<Statement>),
    Sum(Box<Expression>, Box<Expression>),
}

// Names that the attribute's code might use too.
#[memit::message]
#[derive(Clone, Debug, PartialEq)]
struct Parts {
    part: Part,
    string: Option<String>,
    size: u64,
    align: u64,
    d: u64,
    f: u64,
    out: u64,
    place: u64,
    resolver: u64,
}

#[memit::message]
#[derive(Clone, Debug, PartialEq)]
enum Part {
    Ok(u8),
    Err,
    None,
}

#[memit::message]
#[derive(Clone, Debug, PartialEq)]
struct Unit;

#[memit::message]
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(u8)]
enum Code {
    Ok = 3,
    Retry,
    Lost = 200,
}

#[memit::message]
#[derive(Clone, Debug, PartialEq)]
struct Fixed<const N: usize>([u16; N]);

fn everything() -> Everything {
    Everything {
        numbers: (1, -2, 3, -4),
        wide_numbers: (u128::MAX, i128::MIN),
        floats: (1.5, -2.5),
        flag: true,
        letter: '€',
        nothing: (),
        text: "a text that is longer than eight bytes".into(),
        boxed_text: "boxed, and also long enough".into(),
        boxed_slice: [1, 2, 3].into(),
        after: Duration::new(7, 999_999_999),
        counted: NonZeroU32::MIN,
        array: [[1, 2, 3], [4, 5, 6]],
        sorted: (0..100).map(|n| (format!("key {n}"), vec![n; 3])).collect(),
        sorted_set: (-50..50).collect(),
        wrapped: Wrapper {
            inner: Some("in".into()),
            many: vec![None, Some("here".into())],
            next: Some(Box::new(Wrapper { inner: None, many: vec![], next: None })),
        },
        dynamic: memit::value!({"a": [1, null]}),
        r#type: 9,
    }
}

#[test]
fn every_kind_of_field_comes_back() {
    assert_eq!(round_trip::<Everything>(&everything()), everything());
}

#[test]
fn enums_recursion_units_and_numbered_variants_come_back() {
    let shape = Shape::Group(vec![
        Shape::Empty,
        Shape::Circle { center: (1.0, 2.0), radius: 3.0 },
        Shape::Boxed(Box::new(Shape::Polygon(vec![(0.0, 0.0), (1.0, 1.0)]))),
    ]);
    assert_eq!(round_trip::<Shape>(&shape), shape);
    assert_eq!(round_trip::<Unit>(&Unit), Unit);
    let part = Part::Ok(1);
    let parts = Parts { part, string: None, size: 1, align: 2, d: 3, f: 4, out: 5, place: 6, resolver: 7 };
    assert_eq!(round_trip::<Parts>(&parts), parts);
    assert_eq!(round_trip::<Part>(&Part::None), Part::None);
    assert_eq!(round_trip::<()>(&()), ());
    for code in [Code::Ok, Code::Retry, Code::Lost] {
        assert_eq!(round_trip::<Code>(&code), code);
    }
    let program = Statement {
        label: "main".into(),
        body: vec![Expression::Sum(
            Box::new(Expression::Number(1)),
            Box::new(Expression::Block(vec![Statement { label: "inner".into(), body: vec![] }])),
        )],
    };
    assert_eq!(round_trip::<Statement>(&program), program);
    assert_eq!(round_trip::<Fixed<5>>(&Fixed([1, 2, 3, 4, 5])), Fixed([1, 2, 3, 4, 5]));
}

#[test]
fn a_listener_reads_fields_in_place_and_prints_them() {
    let bytes = encoded::<Tick>(&Tick { seq: 7, symbol: "MSFT".into(), price: 3.5 });
    let tick = Tick::view(&bytes).unwrap();
    assert!(tick.seq == 7 && tick.price > 3.0 && tick.symbol == "MSFT");
    assert_eq!(format!("{tick:?}"), r#"Tick { seq: 7, symbol: "MSFT", price: 3.5 }"#);

    let group = Shape::Group(vec![Shape::Empty, Shape::Circle { center: (0.0, 1.0), radius: 2.0 }]);
    let bytes = encoded::<Shape>(&group);
    assert_eq!(
        format!("{:?}", Shape::view(&bytes).unwrap()),
        "Group([Empty, Circle { center: ArchivedTuple2(0.0, 1.0), radius: 2.0 }])"
    );
}

#[test]
fn text_and_numbers_are_their_own_bytes() {
    assert_eq!(&*encoded::<str>("grüße"), "grüße".as_bytes());
    assert_eq!(&*encoded::<str>(&String::from("grüße")), "grüße".as_bytes());
    assert_eq!(&*encoded::<[u16]>(&[1_u16, 0x203][..]), [1, 0, 3, 2]);
    assert_eq!(round_trip::<[f64]>(&vec![1.0, f64::MAX]), [1.0, f64::MAX]);
    assert_eq!(round_trip::<[u8]>(&[]), []);
    assert_eq!(round_trip::<str>(""), "");
}

#[test]
fn an_archive_ends_with_its_root() {
    let bytes = encoded::<Tick>(&Tick { seq: 0x0102, symbol: String::new(), price: 0.0 });
    assert_eq!(bytes.len(), 24);
    assert_eq!(bytes[..8], [2, 1, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn a_message_that_is_encoded_while_another_one_is_open_leaves_that_one_alone() {
    let outer = Tick { seq: 1, symbol: "the outer symbol".into(), price: 1.0 };
    with_encoded::<Tick, _, _>(&outer, |bytes| {
        let before = bytes.to_vec();
        with_encoded::<Everything, _, _>(&everything(), |inner| assert_ne!(inner, bytes)).unwrap();
        assert_eq!(bytes, before);
    })
    .unwrap();
    assert_eq!(round_trip::<Tick>(&outer), outer);
}

#[test]
fn a_panic_while_a_message_is_open_leaves_the_next_one_alone() {
    let tick = Tick { seq: 1, symbol: "a symbol that is long".into(), price: 1.0 };
    let panicked = std::panic::catch_unwind(|| {
        with_encoded::<Tick, _, _>(&tick, |_| std::panic::resume_unwind(Box::new("on purpose")))
    });
    assert!(panicked.is_err());
    assert_eq!(round_trip::<Tick>(&tick), tick);
}

#[test]
fn long_vectors_of_strings_need_no_configured_space() {
    let many: Vec<String> = (0..200_000).map(|n| format!("string number {n}")).collect();
    assert_eq!(round_trip::<Vec<String>>(&many), many);
}

fn shapes() -> impl Strategy<Value = Shape> {
    let leaf = prop_oneof![
        Just(Shape::Empty),
        (any::<(f32, f32)>(), any::<f32>()).prop_map(|(center, radius)| Shape::Circle { center, radius }),
        prop::collection::vec(any::<(f32, f32)>(), 0..5).prop_map(Shape::Polygon),
    ];
    leaf.prop_recursive(6, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Shape::Group),
            inner.prop_map(|shape| Shape::Boxed(Box::new(shape))),
        ]
    })
}

proptest! {
    #[test]
    fn any_tick_comes_back(seq: u64, symbol: String, price in -1e300..1e300) {
        let tick = Tick { seq, symbol, price };
        prop_assert_eq!(round_trip::<Tick>(&tick), tick);
    }

    #[test]
    fn any_shape_comes_back(shape in shapes()) {
        let back = round_trip::<Shape>(&shape);
        // Floats may be NaN, which is not equal to itself.
        prop_assert_eq!(format!("{back:?}"), format!("{shape:?}"));
    }

    #[test]
    fn any_nested_containers_come_back(
        map in prop::collection::btree_map(any::<String>(), short_lists(), 0..40),
        maps in prop::collection::btree_map(any::<String>(), short_maps(), 0..40),
    ) {
        prop_assert_eq!(&round_trip::<BTreeMap<String, Vec<Option<(u8, String)>>>>(&map), &map);
        prop_assert_eq!(&round_trip::<BTreeMap<String, BTreeMap<u64, String>>>(&maps), &maps);
    }
}

fn short_lists() -> impl Strategy<Value = Vec<Option<(u8, String)>>> {
    prop::collection::vec(any::<Option<(u8, String)>>(), 0..4)
}

fn short_maps() -> impl Strategy<Value = BTreeMap<u64, String>> {
    prop::collection::btree_map(any::<u64>(), any::<String>(), 0..8)
}
