//! A main and a renderer in two processes, of which one is short of something and the other is the test.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread::JoinHandle;
use std::time::Duration;

use memit_engine::{Config, ConnectError, Disconnect, Link, Port, WaitStrategy};
use tempfile::TempDir;

use crate::child::{obey, say};
use crate::common::exchange::{LIGHT, Serve, call_often, count_at_peer, send_numbers};
use crate::common::payload::{EXTENT, serve, small};
use crate::common::{Recorder, dispatch_to_the_end, link_to_main};

/// Small rings and arenas in `dir`, and a deadline for handshakes that a test can wait for.
pub fn settings(dir: &Path) -> Config {
    let mut config = Config::default();
    small(&mut config);
    config.runtime_dir = Some(dir.join("run"));
    config.wait = WaitStrategy::Adaptive;
    config.handshake_deadline = Duration::from_secs(20);
    config
}

pub fn bind(dir: &Path) -> Port {
    Port::bind("app", settings(dir)).unwrap()
}

pub fn connect(dir: &Path) -> Result<Port, ConnectError> {
    Port::connect("app", settings(dir))
}

/// In a child: a main that serves whoever comes, and does to itself what the test orders.
pub fn main_that_obeys(dir: &Path, perform: impl FnMut(&str)) {
    let main = bind(dir);
    let serving = serve(&main, Serve::default());
    say("bound");
    obey(perform);
    assert!(!serving.is_finished());
    main.shutdown();
    serving.join().unwrap();
}

/// A renderer of the test's, which has what it needs.
pub struct Renderer {
    port: Port,
    link: Arc<Link>,
    sent: u32,
}

impl Renderer {
    pub fn connect(dir: &Path) -> Self {
        let port = connect(dir).unwrap();
        let link = link_to_main(&port);
        let mut renderer = Self { port, link, sent: 0 };
        renderer.is_served();
        renderer
    }

    /// Whether main takes its messages, and answers its calls.
    pub fn is_served(&mut self) {
        const MORE: u32 = 60;
        send_numbers(&self.link, 0, self.sent..self.sent + MORE, &LIGHT);
        self.sent += MORE;
        call_often(&self.link, 20, &LIGHT);
        assert_eq!(count_at_peer(&self.link), self.sent);
    }

    /// Sends a message that takes memory of its own.
    pub fn send_large(&mut self) {
        send_numbers(&self.link, 1, 0..1, &[EXTENT + 1]);
        self.sent += 1;
    }

    /// Waits for the end of the connection; why it came.
    pub fn ends(self) -> Disconnect {
        dispatch_to_the_end(&self.port, &mut Recorder::default());
        self.link.ended().unwrap()
    }
}

/// A main of the test's, which has what it needs.
pub struct Main {
    port: Port,
    serving: Option<JoinHandle<()>>,
    ended: Receiver<Disconnect>,
}

impl Main {
    pub fn bind(dir: &TempDir) -> Self {
        let port = bind(dir.path());
        let (sender, ended) = mpsc::channel();
        let serving = serve(&port, Serve::telling(sender));
        Self { port, serving: Some(serving), ended }
    }

    /// Why the next renderer left.
    pub fn next_end(&self) -> Disconnect {
        self.ended.recv_timeout(crate::common::DEADLINE).unwrap()
    }
}

impl Drop for Main {
    fn drop(&mut self) {
        self.port.shutdown();
        if let Some(serving) = self.serving.take()
            && !std::thread::panicking()
        {
            serving.join().unwrap();
        }
    }
}
