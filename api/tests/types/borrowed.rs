use memit::{Args, EncodeAs, Value, args};

use crate::support::{encoded, round_trip};

#[memit::message]
#[derive(Clone, Debug, PartialEq)]
struct Tick {
    seq: u64,
    symbol: String,
    tags: Vec<String>,
    depth: Vec<f64>,
    venue: Option<String>,
    window: [u32; 2],
    pair: (u8, String),
    last: Trade,
    trades: Vec<Trade>,
}

#[memit::message]
#[derive(Clone, Debug, PartialEq)]
struct Trade {
    price: f64,
    buyer: String,
}

#[memit::message(as = Trade)]
struct TradeRef<'a> {
    price: f64,
    buyer: &'a str,
}

#[memit::message(as = Tick)]
struct TickRef<'a> {
    seq: u64,
    symbol: &'a str,
    tags: &'a [&'a str],
    depth: &'a [f64],
    venue: Option<&'a str>,
    window: [u32; 2],
    pair: (u8, &'a str),
    last: &'a Trade,
    trades: &'a [TradeRef<'a>],
}

#[memit::message]
#[derive(Clone, Debug, PartialEq)]
struct Pair(u32, String);

#[memit::message(as = Pair)]
struct PairRef<'a>(u32, &'a str);

fn trade(buyer: &str) -> Trade {
    Trade { price: 2.5, buyer: buyer.into() }
}

#[test]
fn a_twin_writes_the_bytes_of_its_message() {
    let tick = Tick {
        seq: 7,
        symbol: "a symbol that is not inline".into(),
        tags: vec!["one".into(), "another, longer tag".into()],
        depth: vec![1.0, 2.0, 3.0],
        venue: Some("XNAS".into()),
        window: [3, 4],
        pair: (5, "paired".into()),
        last: trade("the last buyer of all"),
        trades: vec![trade("a"), trade("someone with a longer name")],
    };
    let last = trade("the last buyer of all");
    let twin = TickRef {
        seq: 7,
        symbol: "a symbol that is not inline",
        tags: &["one", "another, longer tag"],
        depth: &[1.0, 2.0, 3.0],
        venue: Some("XNAS"),
        window: [3, 4],
        pair: (5, "paired"),
        last: &last,
        trades: &[TradeRef { price: 2.5, buyer: "a" }, TradeRef { price: 2.5, buyer: "someone with a longer name" }],
    };
    assert_eq!(&*encoded::<Tick>(&twin), &*encoded::<Tick>(&tick));
    assert_eq!(round_trip::<Tick>(&twin), tick);
}

#[test]
fn a_tuple_struct_has_a_twin_too() {
    let twin = PairRef(1, "and some more text");
    assert_eq!(round_trip::<Pair>(&twin), Pair(1, "and some more text".into()));
}

#[test]
fn slices_and_texts_are_sent_as_what_owns_them() {
    assert_eq!(round_trip::<String>("borrowed"), "borrowed");
    assert_eq!(round_trip::<Vec<u32>>(&[1, 2][..]), [1, 2]);
    assert_eq!(round_trip::<Vec<String>>(&["a", "b"]), ["a", "b"]);
    assert_eq!(round_trip::<Vec<Option<String>>>(&[Some("a"), None][..]), [Some("a".to_string()), None]);
    let trades = [TradeRef { price: 2.5, buyer: "x" }];
    assert_eq!(round_trip::<Vec<Trade>>(&trades), [trade("x")]);
    assert_eq!(round_trip::<[i16]>(&[1, 2, 3]), [1, 2, 3]);
}

#[test]
fn slices_of_values_are_arguments_and_scalars_are_values() {
    let values = [Value::from(1), Value::from("two")];
    assert_eq!(&*encoded::<Args>(&values), &*encoded::<Args>(&args![1, "two"]));
    assert_eq!(round_trip::<Args>(&values[..]), args![1, "two"]);
    assert_eq!(round_trip::<Args>(&values.to_vec()), args![1, "two"]);

    fn sent(value: &(impl EncodeAs<Value> + ?Sized)) -> Value {
        round_trip::<Value>(value)
    }
    assert_eq!(sent(&5), Value::I64(5));
    assert_eq!(sent(&u64::MAX), Value::U64(u64::MAX));
    assert_eq!(sent(&2.5), Value::F64(2.5));
    assert_eq!(sent(&true), Value::Bool(true));
    assert_eq!(sent(&()), Value::Null);
    assert_eq!(sent("text"), Value::String("text".into()));
    assert_eq!(sent(&String::from("text")), Value::String("text".into()));
    assert_eq!(sent(&b"bytes"[..]), Value::Bytes(b"bytes".to_vec()));
    assert_eq!(sent(&args![1, 2]), memit::value!([1, 2]));
}

// The names in the attribute's code and the types of fields come from different places.
macro_rules! with_a_twin {
    ($message:ident, $twin:ident, { $($fields:tt)* }, { $($borrowed:tt)* }) => {
        #[memit::message]
        struct $message { $($fields)* }

        #[memit::message(as = $message)]
        struct $twin<'a> { $($borrowed)* }
    };
}

with_a_twin!(Written, WrittenRef, { text: String }, { text: &'a str });

#[test]
fn a_macro_may_write_a_message_and_its_twin() {
    let text = "text of some length";
    assert_eq!(*encoded::<Written>(&WrittenRef { text }), *encoded::<Written>(&Written { text: text.into() }));
}
