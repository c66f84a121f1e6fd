//! The `Schema` impl.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::{Data, DeriveInput, Fields, Path, ext::IdentExt, parse_quote, spanned::Spanned};

use crate::bounds::{Names, fields, with_bounds};

/// `plain` is what has no part elsewhere, and may be packed, so that its fields have no addresses.
pub(crate) fn expand(memit: &Path, item: &DeriveInput, plain: bool) -> TokenStream {
    let ident = &item.ident;
    let body = match &item.data {
        Data::Struct(data) => {
            let fields = describe_fields(memit, &data.fields);
            quote!(d.structure::<Self>(size, align, |d| { #fields });)
        }
        Data::Enum(data) => {
            // As in the language: a variant without a number has the one before plus one.
            let mut base = quote!(0_u8);
            let mut distance = 0_u8;
            let variants = data.variants.iter().map(|variant| {
                if let Some((_, number)) = &variant.discriminant {
                    base = quote!(((#number) as u8));
                    distance = 0;
                }
                let name = variant.ident.unraw().to_string();
                let fields = describe_fields(memit, &variant.fields);
                let tokens = quote!(d.variant(#base.wrapping_add(#distance), #name, |d| { #fields }););
                distance = distance.wrapping_add(1);
                tokens
            });
            let variants = quote!(#(#variants)*);
            quote!(d.enumeration::<Self>(size, align, |d| { #variants });)
        }
        Data::Union(_) => TokenStream::new(),
    };

    let flat = all(fields(&item.data).map(|field| {
        let ty = &field.ty;
        quote_spanned!(ty.span()=> <#ty as #memit::schema::Schema>::FLAT)
    }));
    let fits = if plain { quote!(true) } else { fits(memit, item) };

    let names = Names::new(ident, &item.generics);
    let generics = with_bounds(
        &item.generics,
        Some(&parse_quote!(#memit::schema::Schema)),
        names.is_generic().then(|| parse_quote!(Self: #memit::rkyv::Archive)),
    );
    let generics = with_archive(memit, generics);
    let (impl_generics, _, where_clause) = generics.split_for_impl();
    let (_, parameters, _) = item.generics.split_for_impl();
    quote! {
        #[automatically_derived]
        impl #impl_generics #memit::schema::Schema for #ident #parameters #where_clause {
            const FLAT: bool = #flat;

            #[inline]
            #[allow(unused_variables)]
            fn fits(&self, levels: usize) -> bool {
                #fits
            }

            #[allow(unused_variables, clippy::cast_possible_truncation, clippy::unnecessary_cast)]
            fn describe(d: &mut #memit::schema::Describe) {
                let size = ::core::mem::size_of::<<Self as #memit::rkyv::Archive>::Archived>();
                let align = ::core::mem::align_of::<<Self as #memit::rkyv::Archive>::Archived>();
                #body
            }
        }
    }
}

/// Whether the fields of the variant at hand nest no deeper than is left.
fn fits(memit: &Path, item: &DeriveInput) -> TokenStream {
    let arm = |path: TokenStream, fields: &Fields| {
        let members: Vec<_> = fields.members().collect();
        let parts: Vec<_> = (0..fields.len()).map(|index| format_ident!("part{index}")).collect();
        let fit = all(fields.iter().zip(&parts).map(|(field, part)| {
            let ty = &field.ty;
            // As below; and the arguments are this code's, not those of a macro that wrote the type.
            let fits = quote_spanned!(ty.span()=> <#ty as #memit::schema::Schema>::fits);
            quote!(#fits(#part, levels))
        }));
        quote!(#path { #(#members: #parts),* } => #fit,)
    };
    let arms: TokenStream = match &item.data {
        Data::Struct(data) => arm(quote!(Self), &data.fields),
        Data::Enum(data) => data
            .variants
            .iter()
            .map(|variant| {
                let ident = &variant.ident;
                arm(quote!(Self::#ident), &variant.fields)
            })
            .collect(),
        Data::Union(_) => TokenStream::new(),
    };
    quote!(match self { #arms })
}

/// All of the terms.
pub(crate) fn all(terms: impl Iterator<Item = TokenStream>) -> TokenStream {
    let mut terms = terms.peekable();
    if terms.peek().is_some() { quote!(#(#terms)&&*) } else { quote!(true) }
}

fn with_archive(memit: &Path, mut generics: syn::Generics) -> syn::Generics {
    for parameter in generics.type_params_mut() {
        parameter.bounds.push(parse_quote!(#memit::rkyv::Archive));
    }
    generics
}

fn describe_fields(memit: &Path, fields: &Fields) -> TokenStream {
    let calls = fields.iter().enumerate().map(|(index, field)| {
        let name = field.ident.as_ref().map_or_else(|| index.to_string(), |ident| ident.unraw().to_string());
        let ty = &field.ty;
        // The span puts the complaint about a type that has no schema where the type stands.
        let describe = quote_spanned!(ty.span()=> <#ty as #memit::schema::Schema>::describe);
        quote!(d.field(#name, #describe);)
    });
    quote!(#(#calls)*)
}
