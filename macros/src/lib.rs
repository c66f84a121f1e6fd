//! `#[memit::message]`, the attribute that makes a type a memit message.
//!
//! It is used through the `memit` crate, which re-exports it and documents it: the code that it writes refers to
//! `memit`.

#![warn(missing_docs)]

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

// Its documentation stands at its re-export in `memit`, where the examples can run.
#[allow(missing_docs)]
#[proc_macro_attribute]
pub fn message(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let options = parse_macro_input!(arguments as Options);
    let mut item = parse_macro_input!(item as DeriveInput);
    let expanded = refuse::check_conditions(&item).and_then(|()| match &options.kind {
        Kind::Archived => message::expand(&options.memit, item.clone()),
        Kind::Plain => plain::expand(&options.memit, item.clone()),
        Kind::Twin(target) => twin::expand(&options.memit, target, &item),
    });
    expanded
        .unwrap_or_else(|error| {
            // The item stays, so that its uses do not add errors of their own.
            let error = error.into_compile_error();
            refuse::strip_rkyv_attributes(&mut item);
            quote::quote!(#item #error)
        })
        .into()
}
