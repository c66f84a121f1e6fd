//! Both sides must have one form, so that nothing in a message depends on how a side was built.
#[memit::message]
struct Field {
    #[cfg(any())]
    price: u32,
    #[cfg(not(any()))]
    price: f32,
}

#[memit::message]
struct Attribute {
    #[cfg_attr(all(), rkyv(with = memit::rkyv::with::Skip))]
    seq: u32,
}

#[memit::message]
#[cfg_attr(all(), rkyv(archived = Other))]
struct Whole {
    seq: u32,
}

#[memit::message]
enum Variant {
    Always,
    #[cfg(any())]
    Sometimes,
    Inside(#[cfg(all())] u8),
}

#[memit::message(plain)]
#[derive(Clone, Copy)]
struct Plain {
    #[cfg(any())]
    seq: u32,
    price: f32,
}

#[memit::message]
struct Tick {
    symbol: String,
}

#[memit::message(as = Tick)]
struct TickRef<'a> {
    symbol: &'a str,
    #[cfg(any())]
    seq: u32,
}

fn main() {}
