//! A plain message: a struct that is its own archive.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, Path, parse_quote};

use crate::{
    message::{field_names, part_of_a_twin},
    schema,
};

pub(crate) fn expand(memit: &Path, mut item: DeriveInput) -> Result<TokenStream, Error> {
    let Data::Struct(_) = &item.data else {
        return Err(Error::new(
            item.ident.span(),
            "only a struct of plain numbers can be a plain message",
        ));
    };
    if let Some(parameter) = item.generics.params.first() {
        return Err(Error::new_spanned(
            parameter,
            "a plain message has no generic parameters",
        ));
    }
    let ident = item.ident.clone();
    let rkyv = quote!(#memit::rkyv);
    let private = quote!(#memit::__private);
    let zerocopy: Path = parse_quote!(#memit::zerocopy);
    let zerocopy_path = quote!(#zerocopy).to_string().replace(' ', "");
    item.attrs
        .push(parse_quote!(#[zerocopy(crate = #zerocopy_path)]));
    let schema = schema::expand(memit, &item);
    let part = part_of_a_twin(memit, &item);
    let field_names = field_names(memit, &item);
    Ok(quote! {
        #[derive(#zerocopy::FromBytes, #zerocopy::IntoBytes, #zerocopy::Immutable, #zerocopy::KnownLayout)]
        #item
        #schema
        #part
        #field_names
        #private::plain_message!(#ident, #rkyv);
    })
}
