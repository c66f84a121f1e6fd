//! Values written down as in JSON.

/// Writes [`Args`](crate::Args) down: values as in JSON, and any expression that is [`Into<Value>`](crate::Value).
///
/// ```
/// use memit::args;
///
/// let name = "left";
/// let args = args!["move", name, 3 + 4, null, {"fast": true, "path": [1, 2.5, []]}];
/// assert_eq!(args.to_string(), r#"["move","left",7,null,{"fast":true,"path":[1,2.5,[]]}]"#);
/// ```
#[macro_export]
macro_rules! args {
    () => { $crate::Args::new() };
    ($($tokens:tt)+) => { $crate::Args($crate::__elements!([] $($tokens)+)) };
}

/// Writes one [`Value`](crate::Value) down, as in JSON.
///
/// ```
/// let value = memit::value!({"id": 7, "tags": ["a", "b"]});
/// assert_eq!(value.get("id").and_then(|id| id.as_i64()), Some(7));
/// ```
#[macro_export]
macro_rules! value {
    (null) => { $crate::Value::Null };
    ([]) => { $crate::Value::Array(::std::vec::Vec::new()) };
    ([$($tokens:tt)+]) => { $crate::Value::Array($crate::__elements!([] $($tokens)+)) };
    ({}) => { $crate::Value::Map(::std::vec::Vec::new()) };
    ({$($tokens:tt)+}) => { $crate::Value::Map($crate::__entries!([] $($tokens)+)) };
    ($value:expr) => { $crate::Value::from($value) };
}

/// Elements behind the bracket, done ones in it.
#[doc(hidden)]
#[macro_export]
macro_rules! __elements {
    ([$($done:expr,)*]) => { ::std::vec![$($done,)*] };
    ([$($done:expr,)*] null $(, $($rest:tt)*)?) => {
        $crate::__elements!([$($done,)* $crate::value!(null),] $($($rest)*)?)
    };
    ([$($done:expr,)*] [$($inner:tt)*] $(, $($rest:tt)*)?) => {
        $crate::__elements!([$($done,)* $crate::value!([$($inner)*]),] $($($rest)*)?)
    };
    ([$($done:expr,)*] {$($inner:tt)*} $(, $($rest:tt)*)?) => {
        $crate::__elements!([$($done,)* $crate::value!({$($inner)*}),] $($($rest)*)?)
    };
    ([$($done:expr,)*] $next:expr $(, $($rest:tt)*)?) => {
        $crate::__elements!([$($done,)* $crate::value!($next),] $($($rest)*)?)
    };
}

/// Entries behind the bracket, done ones in it.
#[doc(hidden)]
#[macro_export]
macro_rules! __entries {
    ([$($done:expr,)*]) => { ::std::vec![$($done,)*] };
    ([$($done:expr,)*] $key:tt : null $(, $($rest:tt)*)?) => {
        $crate::__entries!([$($done,)* (($key).into(), $crate::value!(null)),] $($($rest)*)?)
    };
    ([$($done:expr,)*] $key:tt : [$($inner:tt)*] $(, $($rest:tt)*)?) => {
        $crate::__entries!([$($done,)* (($key).into(), $crate::value!([$($inner)*])),] $($($rest)*)?)
    };
    ([$($done:expr,)*] $key:tt : {$($inner:tt)*} $(, $($rest:tt)*)?) => {
        $crate::__entries!([$($done,)* (($key).into(), $crate::value!({$($inner)*})),] $($($rest)*)?)
    };
    ([$($done:expr,)*] $key:tt : $next:expr $(, $($rest:tt)*)?) => {
        $crate::__entries!([$($done,)* (($key).into(), $crate::value!($next)),] $($($rest)*)?)
    };
}
