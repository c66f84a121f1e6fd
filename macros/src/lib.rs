//! `#[memit::message]`, the attribute that makes a type a memit message.
//!
//! It is used through the `memit` crate, which re-exports it and documents it: the code that it writes refers to
//! `memit`.

mod archived_debug;
mod bounds;
mod message;
mod options;
mod plain;
mod refuse;
mod schema;
mod twin;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

use crate::options::{Kind, Options};

/// Makes a struct or enum a message that channels can carry.
///
/// ```ignore
/// #[memit::message]
/// struct Tick {
///     seq: u64,
///     symbol: String,
///     price: f64,
/// }
/// ```
///
/// The attribute derives rkyv's `Archive`, `Serialize` and `Deserialize`, and describes the archive's form, so that two
/// processes can compare it. Listeners see the archive as `&ArchivedTick`, whose fields have the same names. It is
/// `Debug`, and `#[rkyv(derive(..))]` and `#[rkyv(compare(..))]` add traits to it; rkyv's other attributes are refused,
/// since they change the form.
///
/// A message is generic, recursive or an enum as it likes. It owns all that it carries: references, `Rc` and `Arc` are
/// refused, and so is `usize`, whose width differs between machines.
///
/// # Twins
///
/// A twin borrows what the message owns, and is sent in its place:
///
/// ```ignore
/// #[memit::message(as = Tick)]
/// struct TickRef<'a> {
///     seq: u64,
///     symbol: &'a str,
///     price: f64,
/// }
/// renderer.send(TICK, &TickRef { seq: 1, symbol: "MSFT", price: 3.5 })?;
/// ```
///
/// It has the message's fields in the message's order. Where the message has a `String`, `Vec<T>` or message, the twin
/// may have `&str`, a slice or a twin.
///
/// # Plain messages
///
/// `#[memit::message(plain)]` is for a struct of numbers that is `Copy` and, laid out as `#[repr(C)]`, has no padding.
/// Its archive is the struct itself: a listener sees `&Quote` instead of an archived form, and `Channel<[Quote]>`
/// carries slices.
///
/// ```ignore
/// #[memit::message(plain)]
/// #[derive(Clone, Copy)]
/// struct Quote {
///     seq: u64,
///     price: f64,
/// }
/// ```
///
/// # Renamed crate
///
/// Where `memit` has another name, say so: `#[memit::message(crate = other::path)]`.
#[proc_macro_attribute]
pub fn message(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let options = parse_macro_input!(arguments as Options);
    let mut item = parse_macro_input!(item as DeriveInput);
    let expanded = match &options.kind {
        Kind::Archived => message::expand(&options.memit, item.clone()),
        Kind::Plain => plain::expand(&options.memit, item.clone()),
        Kind::Twin(target) => twin::expand(&options.memit, target, &item),
    };
    expanded
        .unwrap_or_else(|error| {
            // The item stays, so that its uses do not add errors of their own.
            let error = error.into_compile_error();
            refuse::strip_rkyv_attributes(&mut item);
            quote::quote!(#item #error)
        })
        .into()
}
