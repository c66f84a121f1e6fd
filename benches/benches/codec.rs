//! Encoding, validating, reading and owning messages, by their shape. No ring and no peer.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use memit::encode::with_encoded;
use memit::{ArchivedArgs, ArchivedValue, Args, EncodeAs, Payload, args};
use memit_engine::AlignedBytes;

/// Archives to 48 bytes.
#[memit::message]
struct Tick {
    seq: u64,
    symbol: String,
}

/// 48 bytes that are never encoded.
#[memit::message(plain)]
#[derive(Clone, Copy)]
struct Quote {
    seq: u64,
    prices: [f64; 5],
}

#[memit::message]
struct Order {
    id: u64,
    customer: Customer,
    lines: Vec<Line>,
    note: Option<String>,
}

#[memit::message]
struct Customer {
    name: String,
    address: Vec<String>,
}

#[memit::message]
struct Line {
    article: String,
    count: u32,
    price: f64,
}

/// Measures what is done with `message`. `read` looks at every part of a view, and finds `expected`.
fn shape<T, M>(criterion: &mut Criterion, name: &str, message: &M, read: fn(&T::View) -> f64, expected: f64)
where
    T: Payload + ?Sized,
    M: EncodeAs<T> + ?Sized,
{
    let mut bytes = AlignedBytes::new();
    with_encoded::<T, M, _>(message, |encoded| bytes.extend_from_slice(encoded)).unwrap();
    let bytes = bytes.as_slice();
    let view = T::view(bytes).unwrap();
    assert_eq!(read(view), expected, "{name} does not read as what was encoded");

    let mut group = criterion.benchmark_group(format!("codec/{name}"));
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    let mut len = 0;
    group.bench_function("encode", |bencher| {
        bencher.iter(|| len = with_encoded::<T, M, _>(black_box(message), |bytes| black_box(bytes).len()).unwrap());
    });
    assert!(len == 0 || len == bytes.len(), "{name} takes {len} bytes, and took {} before", bytes.len());
    group.bench_function("validate", |bencher| bencher.iter(|| T::view(black_box(bytes)).unwrap() as *const T::View));
    group.bench_function("read", |bencher| bencher.iter(|| assert_eq!(read(black_box(view)), expected)));
    group.bench_function("own", |bencher| bencher.iter(|| T::own(black_box(view))));
    group.finish();
}

fn number_and_string(criterion: &mut Criterion) {
    let tick = Tick { seq: 7, symbol: "a name of thirty-two characters.".to_owned() };
    shape::<Tick, _>(
        criterion,
        "number-and-string",
        &tick,
        |tick| (tick.seq.to_native() as f64) + sum(&tick.symbol),
        7.0 + sum(&tick.symbol),
    );
}

fn plain(criterion: &mut Criterion) {
    let quote = Quote { seq: 7, prices: [1.0, 2.0, 3.0, 4.0, 5.0] };
    shape::<Quote, _>(criterion, "plain", &quote, |quote| quote.seq as f64 + quote.prices.iter().sum::<f64>(), 22.0);
}

fn floats(criterion: &mut Criterion) {
    let floats = vec![0.5f32; 1024];
    let name = "vec-of-1024-f32";
    let read: fn(&<Vec<f32> as Payload>::View) -> f64 = |view| view.iter().map(|x| f64::from(x.to_native())).sum();
    shape::<Vec<f32>, _>(criterion, name, &floats, read, 512.0);
    shape::<[f32], _>(criterion, "slice-of-1024-f32", &floats, |view| view.iter().map(|x| f64::from(*x)).sum(), 512.0);
}

fn nested(criterion: &mut Criterion) {
    let line = |n: u32| Line { article: format!("article number {n}"), count: n, price: 0.5 };
    let order = Order {
        id: 7,
        customer: Customer {
            name: "somebody with a name".into(),
            address: vec!["a street".into(), "a town, far away".into()],
        },
        lines: (1..=10).map(line).collect(),
        note: Some("to be left at the door".into()),
    };
    let texts = order.lines.iter().map(|line| sum(&line.article)).sum::<f64>()
        + sum(&order.customer.name)
        + order.customer.address.iter().map(|line| sum(line)).sum::<f64>()
        + order.note.as_deref().map_or(0.0, sum);
    let read: fn(&ArchivedOrder) -> f64 = |order| {
        let lines = order
            .lines
            .iter()
            .map(|line| sum(&line.article) + f64::from(line.count.to_native()) * line.price.to_native());
        order.id.to_native() as f64
            + lines.sum::<f64>()
            + sum(&order.customer.name)
            + order.customer.address.iter().map(|line| sum(line)).sum::<f64>()
            + order.note.as_ref().map_or(0.0, |note| sum(note))
    };
    shape::<Order, _>(criterion, "nested", &order, read, texts + 7.0 + 27.5);
}

fn dynamic(criterion: &mut Criterion) {
    let values = args!["a text", 42, true, [1, 2, 3], { "key": "another text", "number": 0.5 }];
    let texts = sum("a text") + sum("key") + sum("another text") + sum("number");
    let read: fn(&ArchivedArgs) -> f64 = |args| args.iter().map(value).sum();
    shape::<Args, _>(criterion, "args", &values, read, texts + 42.0 + 1.0 + 6.0 + 0.5);
}

/// A look at every byte.
fn sum(text: &str) -> f64 {
    f64::from(text.bytes().map(u32::from).sum::<u32>())
}

/// A look at every part.
fn value(of: &ArchivedValue) -> f64 {
    if let Some(text) = of.as_str() {
        sum(text)
    } else if let Some(number) = of.as_f64() {
        number
    } else if let Some(flag) = of.as_bool() {
        f64::from(u8::from(flag))
    } else if let Some(values) = of.as_array() {
        values.iter().map(value).sum()
    } else {
        of.as_map().map_or(0.0, |entries| entries.iter().map(|(name, of)| sum(name) + value(of)).sum())
    }
}

fn main() {
    support::run(&[number_and_string, plain, floats, nested, dynamic]);
}
