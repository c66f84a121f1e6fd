//! Node's rules, in the plainest way.

use std::collections::VecDeque;

use crate::program::{At, Entry, How, Kind, NAMES, Script, Step};

#[derive(Default)]
struct Model {
    /// The listeners of each name, in their order; the names in the order in which they got their first listener.
    names: Vec<(usize, Vec<Listener>)>,
    any: Vec<Listener>,
    /// How often each listener ran, by number.
    runs: Vec<usize>,
    sent: VecDeque<(At, u32)>,
    next_message: u32,
    account: Vec<Entry>,
}

#[derive(Clone)]
struct Listener {
    number: usize,
    kind: Kind,
    once: bool,
    script: Script,
}

/// What `program` brings about.
pub(crate) fn run(program: &[Step]) -> Vec<Entry> {
    let mut model = Model::default();
    for step in program {
        model.step(step, false);
        model.dispatch();
    }
    model.account
}

impl Model {
    fn dispatch(&mut self) {
        while let Some((at, message)) = self.sent.pop_front() {
            self.emit(at, message);
        }
    }

    fn emit(&mut self, at: At, message: u32) {
        let named = self.listeners(at.name);
        let (fits, others): (Vec<_>, Vec<_>) = named.into_iter().partition(|listener| listener.kind == at.kind);
        let any = if at.kind == Kind::Dynamic { self.any.clone() } else { Vec::new() };
        if fits.is_empty() && any.is_empty() && !others.is_empty() {
            self.account.push(Entry::Mismatch { name: at.name().into() });
        }
        for listener in fits.into_iter().chain(any) {
            if listener.once {
                self.remove(None, listener.number);
            }
            self.account.push(Entry::Ran { listener: listener.number, message });
            let run = self.runs[listener.number];
            self.runs[listener.number] += 1;
            for step in listener.script.0.get(run).into_iter().flatten() {
                self.step(step, true);
            }
        }
    }

    fn listeners(&self, name: usize) -> Vec<Listener> {
        self.names.iter().find(|(listed, _)| *listed == name).map_or_else(Vec::new, |(_, all)| all.clone())
    }

    fn step(&mut self, step: &Step, inside: bool) {
        match step {
            Step::Add(at, how, script) => self.add(*at, *how, script),
            Step::AddAny(script) => {
                let number = self.number();
                self.any.push(Listener { number, kind: Kind::Dynamic, once: false, script: script.clone() });
            }
            Step::Emit(at) => {
                self.sent.push_back((*at, self.next_message));
                self.next_message += 1;
            }
            Step::Off(index) => self.take_out(None, *index),
            Step::Remove(at, index) => self.take_out(Some(at.name), *index),
            Step::RemoveAll(at) => self.names.retain(|(name, _)| *name != at.name),
            Step::Clear => {
                self.names.clear();
                self.any.clear();
            }
            Step::Count(at) => self.account.push(Entry::Counted(self.listeners(at.name).len())),
            Step::Names => {
                let names = self.names.iter().map(|(name, _)| NAMES[*name].to_owned()).collect();
                self.account.push(Entry::Named(names));
            }
            Step::Dispatch if inside => self.account.push(Entry::Busy),
            Step::Dispatch => {}
        }
    }

    fn number(&mut self) -> usize {
        self.runs.push(0);
        self.runs.len() - 1
    }

    fn add(&mut self, at: At, how: How, script: &Script) {
        let listener = Listener { number: self.number(), kind: at.kind, once: how.once, script: script.clone() };
        let at_name = match self.names.iter().position(|(name, _)| *name == at.name) {
            Some(found) => found,
            None => {
                self.names.push((at.name, Vec::new()));
                self.names.len() - 1
            }
        };
        let all = &mut self.names[at_name].1;
        all.insert(if how.first { 0 } else { all.len() }, listener);
    }

    fn take_out(&mut self, name: Option<usize>, index: usize) {
        if !self.runs.is_empty() {
            let listener = index % self.runs.len();
            let was_there = self.remove(name, listener);
            self.account.push(Entry::Removed { listener, was_there });
        }
    }

    /// Removes a listener, from one name only if that is given.
    fn remove(&mut self, from: Option<usize>, number: usize) -> bool {
        let count = |model: &Self| model.any.len() + model.names.iter().map(|(_, all)| all.len()).sum::<usize>();
        let before = count(self);
        for (name, all) in &mut self.names {
            if from.is_none_or(|from| from == *name) {
                all.retain(|listener| listener.number != number);
            }
        }
        if from.is_none() {
            self.any.retain(|listener| listener.number != number);
        }
        self.names.retain(|(_, all)| !all.is_empty());
        count(self) < before
    }
}
