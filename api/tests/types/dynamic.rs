use memit::{
    Args, EncodeError, Payload, Value, args,
    encode::with_encoded,
    value,
    value::{MAX_NESTING, MAX_NODES},
};
use proptest::prelude::*;

use crate::support::{encoded, on_a_small_stack, received, round_trip};

pub(crate) fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e300..1e300).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(Value::from),
    ];
    leaf.prop_recursive(8, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..8).prop_map(Value::from),
        ]
    })
}

proptest! {
    #[test]
    fn any_value_comes_back_and_looks_the_same_in_place(value in values()) {
        let bytes = encoded::<Value>(&value);
        let view = Value::view(&bytes).unwrap();
        prop_assert_eq!(view, &value);
        prop_assert_eq!(view.to_string(), value.to_string());
        prop_assert_eq!(view.to_owned(), value);
    }

    #[test]
    fn any_arguments_come_back(values in prop::collection::vec(values(), 0..6)) {
        let args = Args(values);
        let bytes = encoded::<Args>(&args);
        let view = Args::view(&bytes).unwrap();
        prop_assert_eq!(view, &args);
        prop_assert_eq!(view.to_string(), args.to_string());
        prop_assert_eq!(view.to_owned(), args);
    }
}

#[test]
fn the_macro_writes_what_json_would() {
    let (name, list) = ("x", vec![Value::from(1)]);
    assert_eq!(args![], Args::new());
    assert_eq!(args![null,], Args(vec![Value::Null]));
    assert_eq!(args!["a", -1, true], Args(vec!["a".into(), (-1).into(), true.into()]));
    assert_eq!(args![[], {}, [[]]].to_string(), "[[],{},[[]]]");
    assert_eq!(
        args![name, list, 1 + 1, [name, null, 2.0,], {"k": [1, {"l": null}], name: name.len(), (format!("{name}y")): -1}]
            .to_string(),
        r#"["x",[1],2,["x",null,2.0],{"k":[1,{"l":null}],"x":1,"xy":-1}]"#
    );
    assert_eq!(value!(null), Value::Null);
    assert_eq!(value!("a"), Value::from("a"));
    assert_eq!(args![u64::MAX, i64::MAX as u64], Args(vec![Value::U64(u64::MAX), Value::I64(i64::MAX)]));
    assert_eq!(args![None::<i32>, Some("s"), b"b"].to_string(), r#"[null,"s",{"$bytes":"Yg=="}]"#);
    assert_eq!([1, 2].into_iter().collect::<Args>(), args![1, 2]);
}

#[test]
fn a_view_gives_each_value_as_what_it_is_and_nothing_else() {
    let bytes = encoded::<Args>(&args![null, true, -1, u64::MAX, 0.5, "text", b"bytes", [1], {"k": "v", "k": "w"}]);
    let args = Args::view(&bytes).unwrap();
    assert_eq!((args.len(), args.is_empty()), (9, false));
    let at = |index| args.get(index).unwrap();
    assert!(at(0).is_null() && !at(1).is_null());
    assert_eq!((at(1).as_bool(), at(2).as_bool()), (Some(true), None));
    assert_eq!((at(2).as_i64(), at(2).as_u64(), at(2).as_f64()), (Some(-1), None, Some(-1.0)));
    assert_eq!((at(3).as_i64(), at(3).as_u64()), (None, Some(u64::MAX)));
    assert_eq!((at(4).as_f64(), at(4).as_i64()), (Some(0.5), None));
    assert_eq!((at(5).as_str(), at(5).as_bytes()), (Some("text"), None));
    assert!(*at(5) == "text");
    assert_eq!((at(6).as_bytes(), at(6).as_str()), (Some(&b"bytes"[..]), None));
    assert_eq!(at(7).as_array().unwrap().len(), 1);
    let map = at(8).as_map().unwrap();
    assert_eq!((map.len(), map.get("k").unwrap().as_str()), (2, Some("v")));
    assert!(map.iter().map(|(name, _)| name).eq(["k", "k"]));
    assert!(at(8).get("x").is_none() && at(7).get("k").is_none() && args.get(9).is_none());
}

fn nested(depth: u32) -> Value {
    (0..depth).fold(Value::from("a text that is long enough for a pointer"), |inner, level| {
        if level % 2 == 0 { Value::Array(vec![inner]) } else { Value::Map(vec![("key".into(), inner)]) }
    })
}

#[test]
fn what_nests_as_deep_as_allowed_arrives() {
    // The arguments themselves are one level.
    let args = Args(vec![nested(MAX_NESTING - 1)]);
    let back = on_a_small_stack(move || round_trip::<Args>(&args) == args);
    assert!(back);
}

#[test]
fn what_nests_deeper_is_refused_when_it_is_sent() {
    let refused = with_encoded::<Value, _, _>(&nested(MAX_NESTING + 1), |_| ()).unwrap_err();
    assert_eq!(refused, EncodeError::TooDeep { limit: MAX_NESTING });
    // The encoder is as good as before.
    assert_eq!(round_trip::<Value>(&nested(3)), nested(3));
}

#[test]
fn as_many_values_as_allowed_arrive_and_more_are_refused_at_both_ends() {
    let most = MAX_NODES as usize;
    let largest = Args(vec![Value::Null; most]);
    assert_eq!(Args::view(&encoded::<Args>(&largest)).unwrap().len(), most);

    let too_many = Args(vec![Value::Null; most + 1]);
    let refused = with_encoded::<Args, _, _>(&too_many, |_| ()).unwrap_err();
    assert_eq!(refused, EncodeError::TooManyNodes { limit: MAX_NODES });

    // As a sender that does not ask: the root, at the end, is an offset and a length.
    let mut bytes = vec![0; (most + 1) * 16];
    let offset = -i32::try_from(bytes.len()).unwrap();
    bytes.extend(offset.to_le_bytes());
    bytes.extend((MAX_NODES + 1).to_le_bytes());
    let error = Args::view(&received(&bytes)).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("more than 1000000 dynamic values"), "{error}");
    assert!(error.is_limit());
}

#[test]
fn every_value_counts_wherever_it_stands() {
    #[memit::message]
    struct Mixture {
        one: Value,
        list: Vec<Value>,
        args: Args,
        map: std::collections::BTreeMap<String, Option<Value>>,
    }

    fn nulls(count: u32) -> Vec<Value> {
        vec![Value::Null; count as usize]
    }

    fn mixture(count: u32) -> Mixture {
        Mixture {
            one: value!({"a": 1, "b": [2]}),
            list: nulls(count - 8),
            args: args![1, 2],
            map: [("a".into(), Some(Value::Null)), ("b".into(), Some(Value::Null)), ("c".into(), None)].into(),
        }
    }

    /// Whether `most`, which holds as many as a message may, arrives, and `more`, which holds one more, is not sent.
    #[track_caller]
    fn assert_counted<T: Payload>(most: &T, more: &T) {
        T::view(&encoded::<T>(most)).unwrap();
        let refused = with_encoded::<T, _, _>(more, |_| ()).unwrap_err();
        assert_eq!(refused, EncodeError::TooManyNodes { limit: MAX_NODES });
    }

    // The array is a value itself.
    assert_counted(&Value::Array(nulls(MAX_NODES - 1)), &Value::Array(nulls(MAX_NODES)));
    assert_counted(&nulls(MAX_NODES), &nulls(MAX_NODES + 1));
    assert_counted(&mixture(MAX_NODES), &mixture(MAX_NODES + 1));
    assert!(with_encoded::<Vec<Value>, _, _>(&nulls(MAX_NODES + 1)[..], |_| ()).is_err());
    assert!(with_encoded::<Args, _, _>(&nulls(MAX_NODES + 1)[..], |_| ()).is_err());
}

#[test]
fn what_is_not_a_message_at_all_is_at_no_limit() {
    assert!(!Args::view(&received(&[0xff; 64])).map(|_| ()).unwrap_err().is_limit());
}

#[test]
fn values_are_part_of_messages() {
    #[memit::message]
    #[derive(Debug, PartialEq)]
    struct Event {
        name: String,
        detail: Value,
        more: Args,
        any: Vec<Option<Value>>,
    }
    let event =
        Event { name: "n".into(), detail: value!({"a": 1}), more: args![1, "2"], any: vec![None, Some(Value::Null)] };
    assert_eq!(round_trip::<Event>(&event), event);
    assert!(memit::schema::text::<Event>().starts_with("{name:string,detail:value,more:args,any:vec<option<value>>}"));
}
