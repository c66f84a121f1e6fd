//! Which types mention which names, and so where a bound is needed.

use syn::{
    Data, Field, Fields, Generics, Ident, Path, Type, WherePredicate, parse_quote,
    visit::{self, Visit},
    visit_mut::{self, VisitMut},
};

/// What decides about a field's bounds: the item's own name and its type parameters.
pub(crate) struct Names {
    item: Ident,
    parameters: Vec<Ident>,
}

impl Names {
    pub(crate) fn new(item: &Ident, generics: &Generics) -> Self {
        Names {
            item: item.clone(),
            parameters: generics.type_params().map(|parameter| parameter.ident.clone()).collect(),
        }
    }

    /// Whether the field's type must be bounded: it mentions a type parameter, and does not recurse.
    ///
    /// A bound on a recursive field would ask for what the impl is about to give, without end. One on a field without
    /// type parameters would be needless, and just as endless where two types contain each other.
    pub(crate) fn bounded(&self, field: &Field) -> bool {
        mentions(&field.ty, &self.parameters) && !mentions(&field.ty, std::slice::from_ref(&self.item))
    }

    pub(crate) fn is_generic(&self) -> bool {
        !self.parameters.is_empty()
    }
}

fn mentions(ty: &Type, names: &[Ident]) -> bool {
    struct Search<'a> {
        names: &'a [Ident],
        found: bool,
    }

    impl<'ast> Visit<'ast> for Search<'_> {
        fn visit_path(&mut self, path: &'ast Path) {
            self.found |= path.segments.iter().any(|segment| self.names.contains(&segment.ident));
            visit::visit_path(self, path);
        }
    }

    let mut search = Search { names, found: false };
    search.visit_type(ty);
    search.found
}

/// Writes out `Self` in the types of fields: in the archived type that rkyv derives it would be another type.
pub(crate) fn write_out_self(fields: &mut Fields, item: &Ident, generics: &Generics) {
    struct WriteOut {
        item: Type,
    }

    impl VisitMut for WriteOut {
        fn visit_type_mut(&mut self, ty: &mut Type) {
            match ty {
                Type::Path(path) if path.qself.is_none() && path.path.is_ident("Self") => *ty = self.item.clone(),
                _ => visit_mut::visit_type_mut(self, ty),
            }
        }
    }

    let (_, parameters, _) = generics.split_for_impl();
    let mut write_out = WriteOut { item: parse_quote!(#item #parameters) };
    for field in fields {
        write_out.visit_type_mut(&mut field.ty);
    }
}

/// The generics of an impl whose type parameters have `bound`, with further predicates.
pub(crate) fn with_bounds(
    generics: &Generics,
    bound: Option<&Path>,
    predicates: impl IntoIterator<Item = WherePredicate>,
) -> Generics {
    let mut generics = generics.clone();
    if let Some(bound) = bound {
        for parameter in generics.type_params_mut() {
            parameter.bounds.push(parse_quote!(#bound));
            parameter.bounds.push(parse_quote!('static));
        }
    }
    let mut predicates = predicates.into_iter().peekable();
    if predicates.peek().is_some() {
        generics.make_where_clause().predicates.extend(predicates);
    }
    generics
}

/// All fields, those of variants too.
pub(crate) fn fields(data: &Data) -> Box<dyn Iterator<Item = &Field> + '_> {
    match data {
        Data::Struct(data) => Box::new(data.fields.iter()),
        Data::Enum(data) => Box::new(data.variants.iter().flat_map(|variant| variant.fields.iter())),
        Data::Union(_) => Box::new(std::iter::empty()),
    }
}
