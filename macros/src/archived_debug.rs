//! `Debug` for the archived type.
//!
//! rkyv could derive it, but a derived impl bounds the type parameters rather than what they archive to, so a generic
//! message inside of another one would not have it.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Data, DeriveInput, Fields, Path, WherePredicate, ext::IdentExt, parse_quote};

use crate::bounds::{Names, fields, with_bounds};

pub(crate) fn expand(memit: &Path, item: &DeriveInput) -> TokenStream {
    if derives_debug(item) {
        return TokenStream::new();
    }
    let archived = format_ident!("Archived{}", item.ident.unraw(), span = item.ident.span());
    let body = match &item.data {
        Data::Struct(data) => arm(&quote!(Self), &item.ident.unraw().to_string(), &data.fields),
        Data::Enum(data) => data
            .variants
            .iter()
            .map(|variant| {
                let ident = &variant.ident;
                arm(&quote!(Self::#ident), &ident.unraw().to_string(), &variant.fields)
            })
            .collect(),
        Data::Union(_) => TokenStream::new(),
    };

    let names = Names::new(&item.ident, &item.generics);
    let predicates = fields(&item.data).filter(|field| names.bounded(field)).flat_map(|field| {
        let ty = &field.ty;
        let archive: WherePredicate = parse_quote!(#ty: #memit::rkyv::Archive);
        let debug: WherePredicate = parse_quote!(<#ty as #memit::rkyv::Archive>::Archived: ::core::fmt::Debug);
        [archive, debug]
    });
    let generics = with_bounds(&item.generics, None, predicates);
    let (impl_generics, _, where_clause) = generics.split_for_impl();
    let (_, parameters, _) = item.generics.split_for_impl();
    quote! {
        #[automatically_derived]
        impl #impl_generics ::core::fmt::Debug for #archived #parameters #where_clause {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                match self {
                    #body
                }
            }
        }
    }
}

fn arm(path: &TokenStream, name: &str, fields: &Fields) -> TokenStream {
    let parts: Vec<_> = (0..fields.len()).map(|index| format_ident!("part{index}")).collect();
    match fields {
        Fields::Named(named) => {
            let idents: Vec<_> = named.named.iter().filter_map(|field| field.ident.as_ref()).collect();
            let texts = idents.iter().map(|ident| ident.unraw().to_string());
            quote! {
                #path { #(#idents: #parts),* } => f.debug_struct(#name)#(.field(#texts, #parts))*.finish(),
            }
        }
        Fields::Unnamed(_) => quote! {
            #path(#(#parts),*) => f.debug_tuple(#name)#(.field(#parts))*.finish(),
        },
        Fields::Unit => quote!(#path => f.write_str(#name),),
    }
}

/// Whether the item asks rkyv for it.
fn derives_debug(item: &DeriveInput) -> bool {
    let mut found = false;
    for attribute in item.attrs.iter().filter(|attribute| attribute.path().is_ident("rkyv")) {
        let _ = attribute.parse_nested_meta(|meta| {
            let content;
            syn::parenthesized!(content in meta.input);
            let traits = content.parse_terminated(Path::parse_mod_style, syn::Token![,])?;
            let names_debug = |path: &Path| path.segments.last().is_some_and(|last| last.ident == "Debug");
            found |= meta.path.is_ident("derive") && traits.iter().any(names_debug);
            Ok(())
        });
    }
    found
}
