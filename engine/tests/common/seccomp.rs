//! Filters that refuse system calls, as a sandbox does. One that was installed stays, so it goes into a process or a
//! thread of its own.
#![allow(dead_code, unreachable_pub, unsafe_code, clippy::unwrap_used)]

/// What becomes of a call.
#[derive(Clone, Copy, Debug)]
pub enum Action {
    Allow,
    /// It does nothing and gives this error; 0 is success.
    Fail(i32),
    /// It raises SIGSYS, whose handler may say what it gives.
    Trap,
    /// It ends the process.
    Kill,
}

impl Action {
    fn value(self) -> u32 {
        match self {
            Self::Allow => libc::SECCOMP_RET_ALLOW,
            Self::Fail(errno) => libc::SECCOMP_RET_ERRNO | u32::try_from(errno).unwrap(),
            Self::Trap => libc::SECCOMP_RET_TRAP,
            Self::Kill => libc::SECCOMP_RET_KILL_PROCESS,
        }
    }
}

/// Which calls, and what becomes of them.
#[derive(Clone, Debug)]
pub struct Rule {
    number: libc::c_long,
    /// Index, mask, and what the lower half of the argument is under the mask.
    argument: Option<(u32, u32, u32)>,
    action: Action,
}

/// All calls of this number.
pub fn all(number: libc::c_long, action: Action) -> Rule {
    Rule { number, argument: None, action }
}

/// Those whose argument `index` has, of the bits in `mask`, exactly `bits`.
pub fn only(number: libc::c_long, index: u32, mask: u32, bits: u32, action: Action) -> Rule {
    Rule { number, argument: Some((index, mask, bits)), action }
}

/// Those whose argument `index` is `value`.
pub fn exactly(number: libc::c_long, index: u32, value: u32, action: Action) -> Rule {
    only(number, index, u32::MAX, value, action)
}

/// Whom a filter is for, besides the threads that they start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    ThisThread,
    EveryThread,
}

/// The first rule that fits a call decides about it, and `otherwise` about those that none fits.
pub fn install(whom: Whom, rules: &[Rule], otherwise: Action) {
    let mut program = Vec::new();
    for rule in rules {
        program.push(load(NUMBER));
        let number = u32::try_from(rule.number).unwrap();
        let Some((index, mask, bits)) = rule.argument else {
            program.extend([unless_equal(number, 1), decide(rule.action)]);
            continue;
        };
        program.extend([
            unless_equal(number, 4),
            load(ARGUMENTS + 8 * index),
            statement(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, mask),
            unless_equal(bits, 1),
            decide(rule.action),
        ]);
    }
    program.push(decide(otherwise));
    let filter = libc::sock_fprog { len: u16::try_from(program.len()).unwrap(), filter: program.as_mut_ptr() };
    // SAFETY: takes numbers only.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    let flags = if whom == Whom::EveryThread { libc::SECCOMP_FILTER_FLAG_TSYNC } else { 0 };
    // SAFETY: the filter and its program live until the call has returned, and the kernel copies them.
    let installed =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const filter) };
    // The thread may be allowed nothing any more, so nothing is said of the error; and the program is not freed.
    assert!(installed == 0);
    std::mem::forget(program);
}

/// Where the kernel's description of a call has its number, and its arguments of eight bytes each, low half first.
const NUMBER: u32 = 0;
const ARGUMENTS: u32 = 16;

fn statement(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: u16::try_from(code).unwrap(), jt: 0, jf: 0, k }
}

fn load(offset: u32) -> libc::sock_filter {
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset)
}

/// Goes on, or else skips `jump` statements.
fn unless_equal(k: u32, jump: u8) -> libc::sock_filter {
    libc::sock_filter { jf: jump, ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, k) }
}

fn decide(action: Action) -> libc::sock_filter {
    statement(libc::BPF_RET | libc::BPF_K, action.value())
}
