//! What is done to an emitter: the same for the model and for the endpoint.

use std::fmt;

use proptest::prelude::*;

/// The channels' names.
pub(crate) const NAMES: [&str; 3] = ["a", "b", "c"];

/// What a channel carries. Channels of one name and different types have one list of listeners, of which a message
/// reaches those of its own type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Number,
    Text,
    /// Dynamic arguments, which `on_any` hears too.
    Dynamic,
}

/// A channel: the index of its name, and its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct At {
    pub(crate) name: usize,
    pub(crate) kind: Kind,
}

impl At {
    pub(crate) fn name(self) -> &'static str {
        NAMES[self.name]
    }
}

/// How a listener is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct How {
    pub(crate) once: bool,
    pub(crate) first: bool,
}

/// A listener to be: in its first run it does what the first list says, in the next run what the next one says, and
/// nothing after the last.
#[derive(Clone, Debug)]
pub(crate) struct Script(pub(crate) Vec<Vec<Step>>);

/// Listeners go by the order in which they were added, from 0; an index is taken modulo their number.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Add(At, How, Script),
    AddAny(Script),
    /// Sends a message, which carries a number of its own. From inside of a listener it comes up after this message.
    Emit(At),
    Off(usize),
    Remove(At, usize),
    RemoveAll(At),
    Clear,
    Count(At),
    Names,
    /// Dispatches, which a listener may not.
    Dispatch,
}

/// What happened, as both sides write it down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Ran { listener: usize, message: u32 },
    Mismatch { name: String },
    Removed { listener: usize, was_there: bool },
    Counted(usize),
    Named(Vec<String>),
    Busy,
}

fn at() -> impl Strategy<Value = At> {
    let kind = prop_oneof![4 => Just(Kind::Number), 1 => Just(Kind::Text), 2 => Just(Kind::Dynamic)];
    (prop_oneof![3 => Just(0), 1 => 1..NAMES.len()], kind).prop_map(|(name, kind)| At { name, kind })
}

fn how() -> impl Strategy<Value = How> {
    (prop::bool::weighted(0.4), prop::bool::weighted(0.3)).prop_map(|(once, first)| How { once, first })
}

fn simple_steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => at().prop_map(Step::Emit),
        4 => any::<usize>().prop_map(Step::Off),
        2 => (at(), any::<usize>()).prop_map(|(at, index)| Step::Remove(at, index)),
        1 => at().prop_map(Step::RemoveAll),
        1 => Just(Step::Clear),
        3 => at().prop_map(Step::Count),
        3 => Just(Step::Names),
        2 => Just(Step::Dispatch),
    ]
}

/// Steps, in which listeners are added whose steps are smaller.
fn steps(depth: u32) -> BoxedStrategy<Step> {
    if depth == 0 {
        return simple_steps().boxed();
    }
    let script = || prop::collection::vec(prop::collection::vec(steps(depth - 1), 0..4), 0..3).prop_map(Script);
    prop_oneof![
        4 => simple_steps(),
        5 => (at(), how(), script()).prop_map(|(at, how, script)| Step::Add(at, how, script)),
        1 => script().prop_map(Step::AddAny),
    ]
    .boxed()
}

pub(crate) fn programs() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(steps(3), 1..40)
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}", self.name(), self.kind)
    }
}
