use memit::schema::{fingerprint, text};

mod ours {
    #[memit::message]
    pub(crate) struct Point {
        x: f32,
        y: f32,
    }

    #[memit::message]
    pub(crate) struct Line {
        from: Point,
        to: Point,
        via: Vec<Point>,
    }
}

// The same forms, with a type more and other names.
mod theirs {
    #[memit::message]
    pub(crate) struct Start {
        x: f32,
        y: f32,
    }

    #[memit::message]
    pub(crate) struct End {
        x: f32,
        y: f32,
    }

    #[memit::message]
    pub(crate) struct Segment {
        from: Start,
        to: End,
        via: Vec<Start>,
    }
}

#[test]
fn the_names_of_rust_types_do_not_matter() {
    assert_eq!(text::<ours::Line>(), "{from:{x:f32,y:f32}@8/4,to:#1,via:vec<#1>}@24/4");
    assert_eq!(text::<theirs::Segment>(), text::<ours::Line>());
    assert_eq!(fingerprint::<theirs::Segment>(), fingerprint::<ours::Line>());
}

macro_rules! variations {
    ($($name:ident = { $($item:tt)* })+) => {$(
        mod $name {
            #[memit::message]
            $($item)*
        }
    )+};
}

variations! {
    base = { pub(crate) struct M { a: u32, b: i32 } }
    renamed_field = { pub(crate) struct M { a: u32, c: i32 } }
    other_order = { pub(crate) struct M { b: i32, a: u32 } }
    wider = { pub(crate) struct M { a: u64, b: i32 } }
    signed = { pub(crate) struct M { a: i32, b: i32 } }
    optional = { pub(crate) struct M { a: Option<u32>, b: i32 } }
    longer = { pub(crate) struct M { a: u32, b: i32, c: () } }
    array = { pub(crate) struct M { a: [u32; 1], b: i32 } }
    other_array = { pub(crate) struct M { a: [u32; 2], b: i32 } }
    boxed = { pub(crate) struct M { a: Box<u32>, b: i32 } }
    tuple = { pub(crate) struct M(u32, i32); }
    unit = { pub(crate) struct M; }
    choice = { pub(crate) enum M { A, B(u32) } }
    renamed_variant = { pub(crate) enum M { A, C(u32) } }
    other_tag = { #[repr(u8)] pub(crate) enum M { A = 1, B(u32) } }
    named_field = { pub(crate) enum M { A, B { value: u32 } } }
    more_variants = { pub(crate) enum M { A, B(u32), C } }
}

#[test]
fn what_archives_differently_or_means_something_else_differs() {
    let texts = [
        text::<base::M>(),
        text::<renamed_field::M>(),
        text::<other_order::M>(),
        text::<wider::M>(),
        text::<signed::M>(),
        text::<optional::M>(),
        text::<longer::M>(),
        text::<array::M>(),
        text::<other_array::M>(),
        text::<boxed::M>(),
        text::<tuple::M>(),
        text::<unit::M>(),
        text::<choice::M>(),
        text::<renamed_variant::M>(),
        text::<other_tag::M>(),
        text::<named_field::M>(),
        text::<more_variants::M>(),
        text::<(u32, i32)>(),
        text::<str>(),
        text::<String>(),
        text::<[u8]>(),
        text::<Vec<u8>>(),
        text::<()>(),
        text::<memit::Args>(),
        text::<memit::Value>(),
    ];
    for (index, one) in texts.iter().enumerate() {
        for other in &texts[..index] {
            assert_ne!(one, other);
        }
    }
}

#[test]
fn the_text_has_order_width_alignment_and_tags() {
    assert_eq!(text::<base::M>(), "{a:u32,b:i32}@8/4");
    assert_eq!(text::<wider::M>(), "{a:u64,b:i32}@16/8");
    assert_eq!(text::<choice::M>(), "<0=A,1=B{0:u32}>@8/4");
    assert_eq!(text::<other_tag::M>(), "<1=A,2=B{0:u32}>@8/4");
    assert_eq!(text::<unit::M>(), "{}@0/1");
    assert_eq!(
        text::<(u8, Option<Vec<[f64; 3]>>, std::collections::BTreeMap<String, char>)>(),
        "(u8,option<vec<[f64;3]>>,btreemap<string,char>)"
    );
}

#[memit::message]
struct List {
    value: u32,
    next: Option<Box<List>>,
}

#[memit::message]
struct Even {
    value: u32,
    next: Option<Box<Odd>>,
}

#[memit::message]
struct Odd {
    value: u32,
    next: Option<Box<Even>>,
}

#[memit::message]
struct Generic<T> {
    value: T,
    next: Option<Box<Generic<T>>>,
}

#[test]
fn recursion_is_a_back_reference_and_unrolled_recursion_the_same() {
    assert_eq!(text::<List>(), "{value:u32,next:option<box<#0>>}@12/4");
    assert_eq!(text::<Even>(), text::<List>());
    assert_eq!(text::<Odd>(), text::<List>());
    assert_eq!(text::<Generic<u32>>(), text::<List>());
    assert_ne!(text::<Generic<i32>>(), text::<List>());
}

// Each of these holds the next twice, so that written out they double thirty times.
macro_rules! doubling {
    ($name:ident) => {
        #[memit::message]
        struct $name { leaf: u8 }
    };
    ($name:ident $next:ident $($rest:ident)*) => {
        #[memit::message]
        struct $name { left: Box<$next>, right: Box<$next> }
        doubling!($next $($rest)*);
    };
}

doubling!(D0 D1 D2 D3 D4 D5 D6 D7 D8 D9 D10 D11 D12 D13 D14 D15 D16 D17 D18 D19 D20 D21 D22 D23 D24 D25 D26 D27 D28 D29);

#[test]
fn repetition_does_not_blow_up_the_text() {
    let text = text::<D0>();
    assert!(text.len() < 2_000, "{}", text.len());
    assert!(text.ends_with(",right:box<#1>}@8/4"));
}

#[test]
fn the_format_is_the_same_in_every_build() {
    // Peers compare this number: it changes only together with the archive format.
    assert_eq!(memit::format_fingerprint(), 17_989_865_655_529_378_085);
}
