//! A borrowed twin: a struct that is sent as another one.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::{Data, DeriveInput, Error, Index, Path, Type, spanned::Spanned};

use crate::{message::names, schema::all};

pub(crate) fn expand(memit: &Path, target: &Type, item: &DeriveInput) -> Result<TokenStream, Error> {
    let Data::Struct(data) = &item.data else {
        return Err(Error::new(item.ident.span(), "only a struct can be a twin; for an enum, send the message itself"));
    };
    let fields = &data.fields;
    let ident = &item.ident;
    let (impl_generics, parameters, where_clause) = item.generics.split_for_impl();
    let rkyv = quote!(#memit::rkyv);
    let private = quote!(#memit::__private);

    let names = names(fields);
    let types: Vec<_> = fields.iter().map(|field| &field.ty).collect();
    let members: Vec<_> = fields.members().collect();
    let places: Vec<_> = (0..fields.len()).map(|index| format_ident!("place{index}")).collect();
    let indices = (0..fields.len()).map(Index::from);
    // The spans put a complaint about a field's type where the type stands. Names are this code's all the same, also
    // where a macro wrote the type.
    let serialized = fields.iter().zip(&members).map(|(field, member)| {
        let place = Span::call_site().located_at(field.ty.span());
        quote_spanned! {place=>
            #private::serialize_field(|message: &#target| &message.#member, &self.#member, out)?
        }
    });
    let resolved = members.iter().zip(&places).zip(indices).map(|((member, place), index)| {
        quote! {
            #private::resolve_field(
                |message: &#target| &message.#member, &self.#member, resolver.#index, #place,
            );
        }
    });

    let flat = all(types.iter().map(|ty| quote!(<#ty as #private::Borrowed>::FLAT)));
    let fits = all(types
        .iter()
        .zip(&members)
        .map(|(ty, member)| quote!(<#ty as #private::Borrowed>::fits(&self.#member, levels))));

    let wrong_fields =
        format!("`{ident}` is a twin of `{}`, so it needs the same fields in the same order", quote!(#target),);
    Ok(quote! {
        #item

        const _: () = {
            type __Archived = <#target as #rkyv::Archive>::Archived;

            const _: () = assert!(
                #private::same_names(<#target as #private::FieldNames>::NAMES, &[#(#names),*]),
                #wrong_fields
            );

            #[automatically_derived]
            impl #impl_generics #private::Borrowed for #ident #parameters #where_clause {
                type Resolver = (#(<#types as #private::Borrowed>::Resolver,)*);

                const FLAT: bool = #flat;

                #[inline]
                #[allow(unused_variables)]
                fn fits(&self, levels: usize) -> bool {
                    #fits
                }
            }

            #[automatically_derived]
            impl #impl_generics #private::BorrowedAs<#target> for #ident #parameters #where_clause {
                fn serialize_as(
                    &self,
                    out: &mut #memit::encode::Encoder,
                ) -> ::core::result::Result<Self::Resolver, #memit::encode::EncodeError> {
                    ::core::result::Result::Ok((#(#serialized,)*))
                }

                fn resolve_as(&self, resolver: Self::Resolver, place: #rkyv::Place<__Archived>) {
                    #rkyv::munge::munge!(let __Archived { #(#members: #places),* } = place);
                    #(#resolved)*
                }
            }

            #[automatically_derived]
            impl #impl_generics #memit::encode::EncodeAs<#target> for #ident #parameters #where_clause {
                fn encode_as(
                    &self,
                    out: &mut #memit::encode::Encoder,
                ) -> ::core::result::Result<(), #memit::encode::EncodeError> {
                    out.archive_as::<#target, Self>(self)
                }
            }
        };
    })
}
