//! The attribute's arguments.

use syn::{
    Error, Path, Result, Token, Type,
    parse::{Parse, ParseStream},
    parse_quote,
};

pub(crate) struct Options {
    pub(crate) kind: Kind,
    /// The path of the memit crate.
    pub(crate) memit: Path,
}

pub(crate) enum Kind {
    Archived,
    Plain,
    Twin(Box<Type>),
}

impl Parse for Options {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut options = Options { kind: Kind::Archived, memit: parse_quote!(::memit) };
        while !input.is_empty() {
            if input.peek(Token![as]) {
                input.parse::<Token![as]>()?;
                input.parse::<Token![=]>()?;
                options.kind = Kind::Twin(Box::new(input.parse()?));
            } else if input.peek(Token![crate]) {
                input.parse::<Token![crate]>()?;
                input.parse::<Token![=]>()?;
                options.memit = input.parse()?;
            } else {
                let name = input.parse::<syn::Ident>()?;
                if name != "plain" {
                    let text = format!(
                        "`{name}` is not an option of `#[memit::message]`: they are `as = Message`, `plain`, `crate = path`"
                    );
                    return Err(Error::new(name.span(), text));
                }
                options.kind = Kind::Plain;
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(options)
    }
}
