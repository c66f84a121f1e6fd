//! An archived message: rkyv's derives, the schema, and `Debug` for what listeners see.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::{Data, DeriveInput, Error, Fields, Path, ext::IdentExt, parse_quote, spanned::Spanned};

use crate::{
    archived_debug,
    bounds::{Names, fields, with_bounds, write_out_self},
    refuse, schema,
};

pub(crate) fn expand(memit: &Path, mut item: DeriveInput) -> Result<TokenStream, Error> {
    refuse::check(&item)?;
    for_all_fields(&mut item.data, |fields| write_out_self(fields, &item.ident, &item.generics));
    let parts = check_parts(memit, &item);
    let schema = schema::expand(memit, &item, false);
    let debug = archived_debug::expand(memit, &item);
    let part = part_of_a_twin(memit, &item);
    let field_names = field_names(memit, &item);

    let names = Names::new(&item.ident, &item.generics);
    for_all_fields(&mut item.data, |fields| {
        for field in fields.iter_mut().filter(|field| !names.bounded(field)) {
            field.attrs.push(parse_quote!(#[rkyv(omit_bounds)]));
        }
    });
    let rkyv = quote!(#memit::rkyv);
    Ok(quote! {
        #parts
        #[derive(#rkyv::Archive, #rkyv::Serialize, #rkyv::Deserialize)]
        #[rkyv(
            crate = #rkyv,
            serialize_bounds(__S: #memit::__private::Sink, __S::Error: #rkyv::rancor::Source),
            deserialize_bounds(__D: #rkyv::rancor::Fallible, __D::Error: #rkyv::rancor::Source),
            bytecheck(bounds(__C: #memit::__private::Inspect, __C::Error: #rkyv::rancor::Source)),
        )]
        #item
        #schema
        #debug
        #part
        #field_names
    })
}

fn for_all_fields(data: &mut Data, mut f: impl FnMut(&mut Fields)) {
    match data {
        Data::Struct(data) => f(&mut data.fields),
        Data::Enum(data) => data.variants.iter_mut().for_each(|variant| f(&mut variant.fields)),
        Data::Union(_) => {}
    }
}

/// Asks for the schemas of the parts before anything else is said about them.
///
/// For a part that is no message, rkyv's derives bring dozens of errors. So the first one is about the part.
fn check_parts(memit: &Path, item: &DeriveInput) -> TokenStream {
    if !item.generics.params.is_empty() {
        return TokenStream::new();
    }
    let checks = fields(&item.data).map(|field| {
        let ty = &field.ty;
        quote_spanned!(ty.span()=> __MemitPart<#ty>)
    });
    quote! {
        const _: () = {
            #[allow(unused_imports)]
            use #memit::__private::Part as __MemitPart;
            #[allow(dead_code)]
            struct __MemitParts(#(#checks),*);
        };
    }
}

/// The message stands for itself in a twin of what contains it.
pub(crate) fn part_of_a_twin(memit: &Path, item: &DeriveInput) -> TokenStream {
    let ident = &item.ident;
    let rkyv = quote!(#memit::rkyv);
    let private = quote!(#memit::__private);
    let is_generic = Names::new(ident, &item.generics).is_generic();
    let archive = with_bounds(
        &item.generics,
        None,
        is_generic.then(|| parse_quote!(Self: #rkyv::Archive + #memit::schema::Schema)),
    );
    let serialize = with_bounds(
        &item.generics,
        None,
        is_generic.then(|| parse_quote!(Self: #rkyv::Serialize<#memit::encode::Encoder> + #memit::schema::Schema)),
    );
    let (impl_generics, parameters, _) = item.generics.split_for_impl();
    let (_, _, where_archive) = archive.split_for_impl();
    let (_, _, where_serialize) = serialize.split_for_impl();
    quote! {
        #[automatically_derived]
        impl #impl_generics #private::Borrowed for #ident #parameters #where_archive {
            type Resolver = <Self as #rkyv::Archive>::Resolver;

            const FLAT: bool = <Self as #memit::schema::Schema>::FLAT;

            #[inline]
            fn fits(&self, levels: usize) -> bool {
                #memit::schema::Schema::fits(self, levels)
            }
        }

        #[automatically_derived]
        impl #impl_generics #private::BorrowedAs<Self> for #ident #parameters #where_serialize {
            fn serialize_as(
                &self,
                out: &mut #memit::encode::Encoder,
            ) -> ::core::result::Result<Self::Resolver, #memit::encode::EncodeError> {
                #rkyv::Serialize::serialize(self, out)
            }

            fn resolve_as(
                &self,
                resolver: Self::Resolver,
                place: #rkyv::Place<<Self as #rkyv::Archive>::Archived>,
            ) {
                #rkyv::Archive::resolve(self, resolver, place);
            }

            fn serialize_slice_as(
                slice: &[Self],
                out: &mut #memit::encode::Encoder,
            ) -> ::core::result::Result<#rkyv::vec::VecResolver, #memit::encode::EncodeError> {
                #rkyv::vec::ArchivedVec::serialize_from_slice(slice, out)
            }
        }
    }
}

/// What a twin compares its fields with.
pub(crate) fn field_names(memit: &Path, item: &DeriveInput) -> TokenStream {
    let Data::Struct(data) = &item.data else {
        return TokenStream::new();
    };
    let names = names(&data.fields);
    let ident = &item.ident;
    let (impl_generics, parameters, where_clause) = item.generics.split_for_impl();
    quote! {
        #[automatically_derived]
        impl #impl_generics #memit::__private::FieldNames for #ident #parameters #where_clause {
            const NAMES: &'static [&'static str] = &[#(#names),*];
        }
    }
}

pub(crate) fn names(fields: &Fields) -> Vec<String> {
    fields
        .iter()
        .enumerate()
        .map(|(index, field)| field.ident.as_ref().map_or_else(|| index.to_string(), |ident| ident.unraw().to_string()))
        .collect()
}
