//! What has no meaning in another process.
#[memit::message]
struct Handlers {
    f: fn(u8),
    p: *const u8,
    d: Box<dyn Send>,
}

#[memit::message]
union Either {
    a: u32,
    b: f32,
}

#[memit::message]
enum Never {}

#[memit::message]
enum Code {
    NotFound = 404,
}

fn main() {}
