//! A plain message: a struct that is its own archive.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, Path, parse_quote};

use crate::{
    bounds::write_out_self,
    message::{field_names, part_of_a_twin},
    schema,
};

pub(crate) fn expand(memit: &Path, mut item: DeriveInput) -> Result<TokenStream, Error> {
    if let Some(parameter) = item.generics.params.first() {
        return Err(Error::new_spanned(parameter, "a plain message has no generic parameters"));
    }
    let Data::Struct(data) = &mut item.data else {
        return Err(Error::new(item.ident.span(), "only a struct of plain numbers can be a plain message"));
    };
    write_out_self(&mut data.fields, &item.ident, &item.generics);
    let parts: Vec<_> = data.fields.iter().map(|field| field.ty.clone()).collect();

    let zerocopy = quote!(#memit::zerocopy);
    let zerocopy_text = zerocopy.to_string().replace(' ', "");
    item.attrs.push(parse_quote!(#[zerocopy(crate = #zerocopy_text)]));
    if !item.attrs.iter().any(|attribute| attribute.path().is_ident("repr")) {
        item.attrs.push(parse_quote!(#[repr(C)]));
    }
    let ident = &item.ident;
    let schema = schema::expand(memit, &item, true);
    let part = part_of_a_twin(memit, &item);
    let field_names = field_names(memit, &item);
    Ok(quote! {
        #[derive(#zerocopy::FromBytes, #zerocopy::IntoBytes, #zerocopy::Immutable, #zerocopy::KnownLayout)]
        #item
        #schema
        #part
        #field_names
        #memit::__plain_message!(#memit, #ident, [#(#parts),*]);
    })
}
