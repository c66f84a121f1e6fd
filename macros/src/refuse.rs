//! What cannot be a message, said where it stands and in plain words.
//!
//! rkyv and the trait bounds would refuse most of it too, but from inside of derived code. A type behind an alias is
//! not seen here and is left to them.

use proc_macro2::{TokenStream, TokenTree};
use syn::{
    Attribute, Data, DeriveInput, Error, Expr, Field, Fields, GenericParam, Lit, PathArguments, Type, TypePath,
    spanned::Spanned,
    visit::{self, Visit},
};

use crate::bounds::fields;

/// Checks a whole item that is to be archived.
pub(crate) fn check(item: &DeriveInput) -> Result<(), Error> {
    let mut found = Findings(None);
    found.check_item(item);
    found.0.map_or(Ok(()), Err)
}

/// Checks any item: a part that a build switches on or off is still there when the attribute sees it, so that it would
/// stand in the schema either way. (On the item itself, the compiler has evaluated conditions by then.)
pub(crate) fn check_conditions(item: &DeriveInput) -> Result<(), Error> {
    let mut found = Findings(None);
    item.generics.params.iter().for_each(|parameter| {
        found.check_conditions(match parameter {
            GenericParam::Type(parameter) => &parameter.attrs,
            GenericParam::Lifetime(parameter) => &parameter.attrs,
            GenericParam::Const(parameter) => &parameter.attrs,
        });
    });
    if let Data::Enum(data) = &item.data {
        data.variants.iter().for_each(|variant| found.check_conditions(&variant.attrs));
    }
    fields(&item.data).for_each(|field| found.check_conditions(&field.attrs));
    found.0.map_or(Ok(()), Err)
}

fn mentions_rkyv(attribute: &Attribute) -> bool {
    fn any(tokens: TokenStream) -> bool {
        tokens.into_iter().any(|token| match token {
            TokenTree::Ident(ident) => ident == "rkyv",
            TokenTree::Group(group) => any(group.stream()),
            TokenTree::Punct(_) | TokenTree::Literal(_) => false,
        })
    }
    attribute.meta.require_list().is_ok_and(|list| any(list.tokens.clone()))
}

/// Takes the attributes off that only rkyv's derives know.
pub(crate) fn strip_rkyv_attributes(item: &mut DeriveInput) {
    fn strip(attributes: &mut Vec<Attribute>) {
        attributes.retain(|attribute| {
            let path = attribute.path();
            !(path.is_ident("rkyv") || path.is_ident("cfg_attr") && mentions_rkyv(attribute))
        });
    }
    fn strip_fields(fields: &mut Fields) {
        fields.iter_mut().for_each(|field| strip(&mut field.attrs));
    }

    strip(&mut item.attrs);
    match &mut item.data {
        Data::Struct(data) => strip_fields(&mut data.fields),
        Data::Enum(data) => {
            for variant in &mut data.variants {
                strip(&mut variant.attrs);
                strip_fields(&mut variant.fields);
            }
        }
        Data::Union(data) => data.fields.named.iter_mut().for_each(|field| strip(&mut field.attrs)),
    }
}

struct Findings(Option<Error>);

impl Findings {
    fn add(&mut self, at: &impl Spanned, text: &str) {
        let error = Error::new(at.span(), text);
        match &mut self.0 {
            Some(errors) => errors.combine(error),
            None => self.0 = Some(error),
        }
    }

    fn check_item(&mut self, item: &DeriveInput) {
        for attribute in &item.attrs {
            self.check_rkyv_attribute(attribute, &["derive", "compare"]);
        }
        if let Some(lifetime) = item.generics.lifetimes().next() {
            self.add(lifetime, BORROWS);
            return;
        }
        match &item.data {
            Data::Struct(data) => self.check_fields(&data.fields),
            Data::Enum(data) => {
                if data.variants.is_empty() {
                    self.add(&item.ident, "an enum without variants has no values that could be sent");
                }
                for variant in &data.variants {
                    for attribute in &variant.attrs {
                        self.check_rkyv_attribute(attribute, &[]);
                    }
                    if let Some((_, tag)) = &variant.discriminant {
                        self.check_tag(tag);
                    }
                    self.check_fields(&variant.fields);
                }
            }
            Data::Union(data) => {
                self.add(&data.union_token, "a union cannot be a message: nothing says which of its fields is there");
            }
        }
    }

    fn check_fields(&mut self, fields: &Fields) {
        for Field { attrs, ty, .. } in fields {
            for attribute in attrs {
                self.check_rkyv_attribute(attribute, &[]);
            }
            self.visit_type(ty);
        }
    }

    fn check_conditions(&mut self, attributes: &[Attribute]) {
        for attribute in attributes {
            if attribute.path().is_ident("cfg") || attribute.path().is_ident("cfg_attr") {
                self.add(
                    attribute,
                    "a message has one form in every build, so `#[cfg]` and `#[cfg_attr]` are not for its parts: put \
                     `#[cfg]` on whole messages, or make a field an `Option`",
                );
            }
        }
    }

    fn check_rkyv_attribute(&mut self, attribute: &Attribute, allowed: &[&str]) {
        if !attribute.path().is_ident("rkyv") {
            return;
        }
        let parsed = attribute.parse_nested_meta(|meta| {
            if !allowed.iter().any(|name| meta.path.is_ident(name)) {
                self.add(&meta.path, SHAPES);
            }
            // Whatever the argument is, it is skipped.
            while !meta.input.is_empty() && !meta.input.peek(syn::Token![,]) {
                meta.input.parse::<proc_macro2::TokenTree>()?;
            }
            Ok(())
        });
        if let Err(error) = parsed {
            self.add(attribute, &error.to_string());
        }
    }

    fn check_tag(&mut self, tag: &Expr) {
        let Expr::Lit(literal) = tag else { return };
        let Lit::Int(number) = &literal.lit else {
            return;
        };
        if number.base10_parse::<u8>().is_err() {
            self.add(
                tag,
                "a variant's number is archived as one byte, so it is at most 255; send the number as a field instead",
            );
        }
    }
}

const SHAPES: &str = "rkyv attributes that shape the archive are not for messages: their form is what \
                      `#[memit::message]` describes to the other side; only `#[rkyv(derive(..))]` and \
                      `#[rkyv(compare(..))]` on the type are allowed";

const BORROWS: &str = "a message owns what it carries, so it has no references: use `String` for `&str` and `Vec` for a \
                       slice; to send borrowed data, declare a twin with `#[memit::message(as = Message)]`";

impl<'ast> Visit<'ast> for Findings {
    fn visit_type(&mut self, ty: &'ast Type) {
        match ty {
            Type::Reference(_) => self.add(ty, BORROWS),
            Type::Ptr(_) => self.add(ty, "a pointer means nothing in another process"),
            Type::BareFn(_) => self.add(ty, "a function cannot be sent: its address means nothing in another process"),
            Type::TraitObject(_) | Type::ImplTrait(_) => self.add(
                ty,
                "a trait object cannot be sent: the other process does not know its type; use an enum of the types \
                 that it may be",
            ),
            _ => visit::visit_type(self, ty),
        }
    }

    fn visit_type_path(&mut self, path: &'ast TypePath) {
        if path.path.is_ident("usize") || path.path.is_ident("isize") {
            self.add(
                path,
                "the width of `usize` and `isize` differs between machines, so they cannot be in a message: use `u64` \
                 or `u32`",
            );
        }
        if let Some(last) = path.path.segments.last() {
            // Without arguments it is likely a type of one's own that happens to have the name.
            let shared = last.ident == "Rc" || last.ident == "Arc";
            if shared && matches!(last.arguments, PathArguments::AngleBracketed(_)) {
                self.add(
                    path,
                    "what `Rc` and `Arc` share is not shared with another process, so they cannot be in a message: \
                     use the value itself, or `Box`",
                );
                return;
            }
            let hashed = last.ident == "HashMap" || last.ident == "HashSet";
            if hashed && matches!(last.arguments, PathArguments::AngleBracketed(_)) {
                self.add(
                    path,
                    "a `HashMap` or `HashSet` cannot be in a message: its archive cannot be checked whole, so that a \
                     hostile one could be read past its end; use `BTreeMap` or `BTreeSet`, or a `Vec` of pairs",
                );
                return;
            }
        }
        visit::visit_type_path(self, path);
    }
}
