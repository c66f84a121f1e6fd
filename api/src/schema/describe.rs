//! From a type to its schema's text.
//!
//! Structs and enums are the nodes of a graph, in which recursion is a cycle. Two Rust types may have one structure
//! (twice the same struct in two crates, say), and the text must not depend on which of them a program names where. So
//! nodes that cannot be told apart are merged first, by refining a partition as one minimizes an automaton; then the
//! graph is printed from its root, and a node that was printed before is a back-reference.

use std::{any::TypeId, collections::HashMap, fmt::Write};

/// Stands in a node's text for the next of its children.
const CHILD: char = '\0';

/// Collects what a type says of its archive; see [`Schema::describe`](super::Schema::describe).
pub struct Describe {
    nodes: Vec<Node>,
    known: HashMap<TypeId, usize>,
    /// What is being described; the last one is written to. The first is the root's text.
    open: Vec<Node>,
}

#[derive(Default)]
struct Node {
    text: String,
    children: Vec<usize>,
}

impl Describe {
    pub(super) fn new() -> Self {
        Describe { nodes: Vec::new(), known: HashMap::new(), open: vec![Node::default()] }
    }

    fn current(&mut self) -> &mut Node {
        if self.open.is_empty() {
            self.open.push(Node::default());
        }
        let last = self.open.len() - 1;
        &mut self.open[last]
    }

    /// Text of the grammar.
    pub(crate) fn word(&mut self, word: &str) {
        self.current().text.push_str(word);
    }

    /// A struct or enum with a schema of its own.
    fn node<T: 'static>(&mut self, size: usize, align: usize, body: impl FnOnce(&mut Self)) {
        let id = TypeId::of::<T>();
        let index = match self.known.get(&id) {
            Some(&index) => index,
            None => {
                let index = self.nodes.len();
                self.nodes.push(Node::default());
                self.known.insert(id, index);
                self.open.push(Node::default());
                body(self);
                let mut node = self.open.pop().unwrap_or_default();
                let _ = write!(node.text, "@{size}/{align}");
                self.nodes[index] = node;
                index
            }
        };
        let current = self.current();
        current.text.push(CHILD);
        current.children.push(index);
    }

    /// A struct, archived in `size` bytes at `align`.
    #[doc(hidden)]
    pub fn structure<T: 'static>(&mut self, size: usize, align: usize, fields: impl FnOnce(&mut Self)) {
        self.node::<T>(size, align, |d| {
            d.word("{");
            fields(d);
            d.word("}");
        });
    }

    /// An enum, archived in `size` bytes at `align`.
    #[doc(hidden)]
    pub fn enumeration<T: 'static>(&mut self, size: usize, align: usize, variants: impl FnOnce(&mut Self)) {
        self.node::<T>(size, align, |d| {
            d.word("<");
            variants(d);
            d.word(">");
        });
    }

    /// The next field of a struct or variant.
    #[doc(hidden)]
    pub fn field(&mut self, name: &str, describe: fn(&mut Describe)) {
        self.separate();
        self.word(name);
        self.word(":");
        describe(self);
    }

    /// The next variant of an enum.
    #[doc(hidden)]
    pub fn variant(&mut self, tag: u8, name: &str, fields: impl FnOnce(&mut Self)) {
        self.separate();
        let _ = write!(self.current().text, "{tag}={name}");
        let before = self.current().text.len();
        self.word("{");
        fields(self);
        if self.current().text.len() == before + 1 {
            self.current().text.pop();
        } else {
            self.word("}");
        }
    }

    fn separate(&mut self) {
        let text = &mut self.current().text;
        if !text.ends_with(['{', '<']) {
            text.push(',');
        }
    }

    pub(super) fn finish(mut self) -> String {
        let root = self.open.pop().unwrap_or_default();
        let classes = classes(&self.nodes);
        let mut print = Print { nodes: &self.nodes, classes: &classes, numbers: HashMap::new(), out: String::new() };
        print.node(&root);
        print.out
    }
}

/// Gives each node the number of its class: nodes are of one class when no path from them tells them apart.
fn classes(nodes: &[Node]) -> Vec<usize> {
    fn number<K: std::hash::Hash + Eq>(keys: impl Iterator<Item = K>) -> (Vec<usize>, usize) {
        let mut numbers = HashMap::new();
        let classes = keys
            .map(|key| {
                let next = numbers.len();
                *numbers.entry(key).or_insert(next)
            })
            .collect();
        (classes, numbers.len())
    }

    let (mut classes, mut count) = number(nodes.iter().map(|node| node.text.as_str()));
    loop {
        let (finer, finer_count) = number(nodes.iter().zip(&classes).map(|(node, &class)| {
            let children: Vec<usize> = node.children.iter().map(|&child| classes[child]).collect();
            (class, children)
        }));
        if finer_count == count {
            return classes;
        }
        (classes, count) = (finer, finer_count);
    }
}

struct Print<'a> {
    nodes: &'a [Node],
    classes: &'a [usize],
    /// From class to number, for the classes printed so far.
    numbers: HashMap<usize, usize>,
    out: String,
}

impl Print<'_> {
    fn node(&mut self, node: &Node) {
        let mut children = node.children.iter();
        for piece in node.text.split_inclusive(CHILD) {
            self.out.push_str(piece.trim_end_matches(CHILD));
            if !piece.ends_with(CHILD) {
                continue;
            }
            let Some(&child) = children.next() else {
                continue;
            };
            let class = self.classes[child];
            let next = self.numbers.len();
            match self.numbers.get(&class) {
                Some(number) => {
                    let _ = write!(self.out, "#{number}");
                }
                None => {
                    self.numbers.insert(class, next);
                    let nodes = self.nodes;
                    self.node(&nodes[child]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct A;
    struct B;
    struct C;

    fn a(d: &mut Describe) {
        d.structure::<A>(8, 4, |d| d.field("next", b));
    }

    fn b(d: &mut Describe) {
        d.structure::<B>(8, 4, |d| d.field("next", a));
    }

    fn c(d: &mut Describe) {
        d.structure::<C>(8, 4, |d| d.field("next", c));
    }

    fn text(describe: fn(&mut Describe)) -> String {
        let mut d = Describe::new();
        describe(&mut d);
        d.finish()
    }

    #[test]
    fn a_circle_of_two_equal_structs_is_the_circle_of_one() {
        assert_eq!(text(c), "{next:#0}@8/4");
        assert_eq!(text(a), text(c));
        assert_eq!(text(b), text(c));
    }

    #[test]
    fn structs_that_differ_far_away_stay_apart() {
        struct P;
        struct Q;
        struct X;
        struct Y;
        fn x(d: &mut Describe) {
            d.structure::<X>(4, 4, |d| d.field("v", |d| d.word("u32")));
        }
        fn y(d: &mut Describe) {
            d.structure::<Y>(4, 4, |d| d.field("v", |d| d.word("i32")));
        }
        fn p(d: &mut Describe) {
            d.structure::<P>(4, 4, |d| d.field("in", x));
        }
        fn q(d: &mut Describe) {
            d.structure::<Q>(4, 4, |d| d.field("in", y));
        }
        let both = text(|d| {
            d.word("(");
            p(d);
            d.word(",");
            q(d);
            d.word(",");
            p(d);
            d.word(")");
        });
        assert_eq!(both, "({in:{v:u32}@4/4}@4/4,{in:{v:i32}@4/4}@4/4,#0)");
    }

    #[test]
    fn a_variant_without_fields_has_no_braces() {
        struct E;
        let enumeration = text(|d| {
            d.enumeration::<E>(8, 4, |d| {
                d.variant(0, "Off", |_| {});
                d.variant(7, "At", |d| d.field("0", |d| d.word("u32")));
            });
        });
        assert_eq!(enumeration, "<0=Off,7=At{0:u32}>@8/4");
    }
}
